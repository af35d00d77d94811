"""A component of a card that is not as the rest of its checkpoint: from a source of its own, in another precision or in
fewer bits. Every key is described in models/cards/README.md.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator

FILES = (".safetensors", ".gguf")
PLACES = ("hub", "local", "file")


class Component(BaseModel):
    """Where its weights are (exactly one of `hub`, `local` and `file`, or none: in the card's own source), and how they
    are kept.

    subfolder: of a hub repository, or of a folder;   dtype: on a GPU;   quantize: as in `tuning`
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    hub: str | None = None
    local: str | None = None
    file: str | None = None
    subfolder: str | None = None
    revision: str | None = None
    variant: str | None = None
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    quantize: Literal["int8", "fp8", "nf4"] | None = None

    @model_validator(mode="after")
    def _makes_sense(self) -> Component:
        said = self.model_dump(exclude_none=True)
        places = [place for place in PLACES if place in said]
        if len(places) > 1:
            raise ValueError(f"give one of {' and '.join(places)}, where the weights are")
        if not said or set(said) <= {"subfolder", "revision", "variant"}:
            raise ValueError("give a source of its own ('hub', 'local' or 'file'), a 'dtype' or 'quantize'")
        if self.file is not None and not self.file.endswith(FILES):
            raise ValueError(f"'file: {self.file}': only .safetensors and .gguf are read; other formats may run code")
        if self.file is not None and self.file.endswith(".gguf") and self.quantize is not None:
            raise ValueError("a .gguf is in fewer bits already; leave 'quantize' out")
        for key in ("revision", "variant", "subfolder"):
            if key in said and not places:
                raise ValueError(f"{key!r} belongs to 'hub' or 'local'; the card's own source has its own")
        if self.file is not None and (self.subfolder or self.variant):
            raise ValueError("'subfolder' and 'variant' belong to 'hub' or 'local', not to a 'file'")
        return self
