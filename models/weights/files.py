"""What the files of a checkpoint are, from their first bytes: whole safetensors, GGUF, or something that is not read.

Nothing here reads a weight, so a file of 24 GB is judged in a moment.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from router.errors import LoadError
from router.types import ModelCard

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
MOST_HEADER = 100_000_000
"""Bytes; safetensors itself refuses longer ones."""

GGUF_FAMILIES = {
    "sd1": "sd15", "sdxl": "sdxl", "flux": "flux", "flux2": "flux2-klein", "sd3": "sd3", "qwen_image": "qwen-image",
    "lumina2": "z-image",
}  # fmt: skip
"""What those who write GGUF files call our families (`general.architecture`)."""

VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model", "tekken.json")


def check_file(card: ModelCard, path: Path, remedy: str) -> None:
    """Raise `LoadError` for a weight file that is not there, is cut off, or is of a kind that may run code."""
    where = f"model {card.id!r}: {path}"
    if not path.is_file():
        raise LoadError(f"model {card.id!r}: there is no file {path}; {remedy}")
    with path.open("rb") as handle:
        begin = handle.read(8)
    if begin[:4] == b"GGUF":
        if path.suffix != ".gguf":
            raise LoadError(f"{where} is a GGUF file; name it under `components`, with the ending .gguf")
        return
    if path.suffix == ".gguf":
        raise LoadError(f"{where} is no GGUF file: it begins with {begin[:4]!r}; {remedy}")
    if begin[:2] in (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05"):
        raise LoadError(f"{where} is a pickle, which may run code when it is opened; take the .safetensors instead")
    header(card, path, remedy)


def header(card: ModelCard, path: Path, remedy: str) -> dict[str, Any]:
    """Shape, type and place of each tensor of a safetensors file. `LoadError` if it is none, or not whole."""
    where, size = f"model {card.id!r}: cannot load {path}", path.stat().st_size
    with path.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        text = handle.read(length) if 0 < length <= min(MOST_HEADER, size) else b""
    try:
        tensors = json.loads(text)
        ends = [int(entry["data_offsets"][1]) for name, entry in tensors.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise LoadError(f"{where}: it is no safetensors file, or its beginning is damaged; {remedy}") from None
    if (whole := 8 + length + max(ends, default=0)) != size:
        raise LoadError(f"{where}: it is cut off: {size:,} of {whole:,} bytes are there; {remedy}")
    return {name: entry for name, entry in tensors.items() if name != "__metadata__"}


def check_tokenizer(card: ModelCard, folder: Path, remedy: str) -> None:
    """Raise `LoadError` for a tokenizer's folder without a vocabulary."""
    if not any((folder / name).is_file() for name in VOCABULARIES):
        raise LoadError(f"model {card.id!r}: {folder} has no vocabulary ({', '.join(VOCABULARIES[:4])}); {remedy}")


def check_gguf(card: ModelCard, path: Path) -> None:
    """Raise `LoadError` for a GGUF file of another family, or if none can be read here."""
    try:
        from gguf import GGUFReader
    except ImportError:
        raise LoadError(
            f"model {card.id!r}: {path.name} needs gguf, which is not installed; "
            "pip install -c constraints.txt -e '.[gguf]'"
        ) from None
    try:
        field = GGUFReader(path).get_field("general.architecture")
        said = str(field.contents()) if field is not None else ""
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise LoadError(f"model {card.id!r}: {path} cannot be read as GGUF: {first}; download it again") from None
    if said and GGUF_FAMILIES.get(said, said) != card.family:
        raise LoadError(
            f"model {card.id!r}: {path} holds a model of {said!r}, and the card is of family {card.family!r}; take the "
            "file of this family"
        )


def gguf_names(path: Path) -> list[str]:
    """The names of the weights in a GGUF file that `check_gguf` let pass."""
    from gguf import GGUFReader

    return [str(tensor.name) for tensor in GGUFReader(path).tensors]


def missing(part: Any) -> list[str]:
    """Parameters of a loaded network that its file did not have."""
    return [name for name, parameter in part.named_parameters() if parameter.device.type == "meta"]


def pickled(folder: Path) -> Mapping[str, int]:
    """Files of a folder that may run code, with their sizes."""
    return {file.name: file.stat().st_size for file in sorted(folder.iterdir()) if file.suffix in PICKLES}
