"""A folder of pictures with captions, to train a style on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from router.errors import RequestError

ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
FEWEST = 4
Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS or 89_478_485


@dataclass(frozen=True)
class Example:
    """A picture's file and what it shows."""

    path: Path
    caption: str


def examples(folder: Path) -> tuple[Example, ...]:
    """The captioned pictures of a folder, by name. Raises `RequestError` naming the first that has no caption.

    A caption stands in `NAME.txt` beside `NAME.png`, or in the picture's own metadata: what Triptych wrote into it, or
    a PNG text `caption` or `Description`.
    """
    if not folder.is_dir():
        raise RequestError(f"there is no folder {folder}; give one with pictures ({', '.join(ENDINGS)})", "folder")
    found = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in ENDINGS:
            found.append(Example(path, _caption(path)))
    if len(found) < FEWEST:
        raise RequestError(f"{folder} has {len(found)} pictures; a style needs {FEWEST} at least", "folder")
    return tuple(found)


def _caption(path: Path) -> str:
    beside = path.with_suffix(".txt")
    if beside.is_file():
        told = beside.read_text(encoding="utf-8").strip()
        if told:
            return told
    elif told := _own_caption(path):
        return told
    raise RequestError(f"{path} has no caption; write what it shows into {beside}", "folder")


def _own_caption(path: Path) -> str:
    from models.provenance.reading import read_metadata

    metadata = read_metadata(path.read_bytes())
    if metadata and str(metadata.get("prompt") or "").strip():
        return str(metadata["prompt"]).strip()
    with Image.open(path) as image:
        return str(image.info.get("caption") or image.info.get("Description") or "").strip()


def read_pixels(paths: Sequence[Path], width: int, height: int) -> NDArray[np.float32]:
    """Pictures cropped to the middle and brought to one size: float32 (N, 3, height, width) in -1..1."""
    made = np.empty((len(paths), 3, height, width), np.float32)
    for place, path in enumerate(paths):
        with Image.open(path) as image:
            whole = ImageOps.exif_transpose(image).convert("RGB")
        fitted = whole if whole.size == (width, height) else ImageOps.fit(whole, (width, height))
        made[place] = np.asarray(fitted, np.float32).transpose(2, 0, 1) / 127.5 - 1
    return made
