"""A given picture as a file: it travels with a submission and lies in the store, known by the digest of its pixels."""

from __future__ import annotations

import io
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.given import masks
from models.given.cleaning import digest_of
from router.types import GivenPicture, Mask, Picture, Role

MEDIA_TYPE = "image/png"


@dataclass(frozen=True)
class GivenFile:
    """told: what a request says of it;   data: a PNG without metadata: RGB of a picture, greys of a mask"""

    told: GivenPicture
    data: bytes = field(repr=False)


def file_of(pixels: NDArray[np.uint8], role: Role) -> GivenFile:
    """The file of a picture (height, width, 3) or a mask (height, width)."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", compress_level=1)
    height, width = pixels.shape[:2]
    share = masks.share(pixels) if role == "mask" else 1.0
    return GivenFile(GivenPicture(role, digest_of(pixels), width, height, share), buffer.getvalue())


def value_of(data: bytes, role: Role) -> Picture | Mask:
    """What steps work on, of a file that `file_of` made."""
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        pixels = np.asarray(image.convert("L" if role == "mask" else "RGB"))
    return Mask(pixels) if role == "mask" else Picture(pixels)
