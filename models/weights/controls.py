"""The ControlNets of a card, loaded when a step first asks for one, and the pipelines that draw with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.families import FAMILIES
from models.weights.loading import place, sibling
from router.errors import StepError, did_you_mean
from router.types import ModelCard


class Controls:
    """The ControlNets of one pipeline, whose other components they share. device, dtype: as of the pipeline."""

    def __init__(self, card: ModelCard, pipe: Any, device: str, dtype: Any) -> None:
        self._card, self._pipe, self._device, self._dtype = card, pipe, device, dtype
        self._networks: dict[str, Any] = {}
        self._pipes: dict[tuple[str, str], Any] = {}

    def pipe(self, step: str, kind: str) -> Any:
        """The pipeline for steps of a kind ("generate", "refine", "inpaint") with the control of a kind. Raises
        `StepError` that says what is missing."""
        if (step, kind) not in self._pipes:
            row = FAMILIES[self._card.family].control
            if row is None:
                raise StepError(f"family {self._card.family!r} has no ControlNets; leave out control", "control")
            name = {"refine": row.img2img, "inpaint": row.inpaint}.get(step, row.pipeline)
            self._pipes[step, kind] = sibling(self._card, self._pipe, name, controlnet=self._network(kind))
        return self._pipes[step, kind]

    def networks(self) -> list[Any]:
        """Those that are loaded."""
        return list(self._networks.values())

    def _network(self, kind: str) -> Any:
        if kind not in self._networks:
            self._networks[kind] = load_control(self._card, kind, self._device, self._dtype)
        return self._networks[kind]


def load_control(card: ModelCard, kind: str, device: str, dtype: Any) -> Any:
    """The ControlNet of a kind that a card names. Raises `StepError`: the model itself is not at fault."""
    import diffusers

    if kind not in card.controlnets:
        raise StepError(f"{card.id!r} has no control {kind!r}{did_you_mean(kind, card.controlnets)}", "control")
    source, row = card.controlnets[kind], FAMILIES[card.family].control
    assert row is not None, "`schema` refuses controlnets of other families"
    where = source.get("path") or source["hub"]
    if source.get("path") and not Path(str(where)).is_dir():
        raise StepError(f"control {kind!r} of {card.id!r}: there is no folder {where}; fetch its weights", "control")
    revision = {"revision": str(source["revision"])} if source.get("revision") else {}
    try:
        made = getattr(diffusers, row.network).from_pretrained(
            str(where), torch_dtype=dtype, use_safetensors=True, **revision
        )
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise StepError(f"control {kind!r} of {card.id!r}: cannot load {where}: {first}", "control") from error
    return place(card, made.eval(), device, dtype)
