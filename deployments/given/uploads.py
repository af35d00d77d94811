"""What a request brings, in whatever form, to the files of its pictures: base64, data URLs, bytes, or a digest.

image ─▶ clean picture ─▶ extended, if that is asked ─▶ file        mask, or the image's transparency ─▶ file
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deployments.given.files import GivenFile, file_of, value_of
from models.given import masks
from models.given.cleaning import Bounds, Clean, cleaned
from router.errors import RequestError
from router.types import Mask

Raw = str | bytes
"""A picture as it came: bytes of a file, base64 of them, `data:…;base64,…`, or `sha256:<64 hex digits>`."""

KEPT = re.compile(r"sha256:[0-9a-f]{64}")
SIDES = ("left", "top", "right", "bottom")

Find = Callable[[str], Awaitable[bytes]]
"""The digest of a picture that was given before to its file; raises `NotFoundError`."""


@dataclass(frozen=True)
class Upload:
    """data: bytes of a file;   ours: it is one of `files.file_of`, found by its digest"""

    data: bytes
    ours: bool = False


@dataclass(frozen=True)
class Received:
    """The files of a request's pictures, and in words what of them changes nothing."""

    files: tuple[GivenFile, ...]
    notes: tuple[str, ...] = ()


def is_kept(raw: Raw) -> bool:
    """Whether it names a picture that was given before."""
    return isinstance(raw, str) and KEPT.fullmatch(raw) is not None


def reference(file: GivenFile) -> str:
    """How a body names a file by its digest."""
    return f"sha256:{file.told.digest}"


async def opened(raw: Raw, field: str, find: Find, most: int) -> Upload:
    """The bytes of a picture as it came. Raises `RequestError` that names the field."""
    if isinstance(raw, str) and is_kept(raw):
        return Upload(await find(raw.partition(":")[2]), ours=True)
    return Upload(raw if isinstance(raw, bytes) else _decoded(raw, field, most))


def _decoded(text: str, field: str, most: int) -> bytes:
    if text[:8].lower().startswith(("http://", "https://", "file://")):
        raise RequestError(
            f"{field}: pictures are not fetched from addresses, which could be anybody's; send the file itself, or its "
            "base64",
            field,
            "unsupported_value",
        )
    if text.startswith("data:"):
        head, comma, text = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise RequestError(f"{field}: a data URL needs base64, as data:image/png;base64,…", field, "invalid_value")
    if len(text) > most * 4 // 3 + 4:
        raise RequestError(f"{field}: it has more than {most:,} bytes", field, "image_too_large")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise RequestError(
            f"{field}: it is no base64 of a file; send the file as multipart, or its base64", field, "invalid_value"
        ) from None


def received(
    images: Sequence[Upload], mask: Upload | None, extend: Mapping[str, int] | None, bounds: Bounds
) -> Received:
    """The files of what was uploaded, the mask last; mask and `extend` are for the first image.

    Raises `RequestError` that names the field. Takes as long as decoding does."""
    if not images:
        raise RequestError("mask: there is no image that it could belong to", "mask", "invalid_value")
    image = _clean(images[0], "image", bounds)
    notes = [f"image: {note}" for note in image.notes]
    further = [_clean(one, "image", bounds) for one in images[1:]]
    pixels, area = image.pixels, None if image.alpha is None else masks.of_alpha(image.alpha)
    if mask is not None:
        notes += ["image: its transparency changes nothing beside a mask"] if area is not None else []
        area = _mask(mask, image, bounds)
    if extend:
        pixels, area = _extended(pixels, area, extend, bounds)
    if area is not None and not area.any():
        raise RequestError(
            "mask: nothing of it is transparent, so nothing could change; make transparent what is to be drawn anew",
            "mask",
            "invalid_value",
        )
    files = [file_of(pixels, "image"), *(file_of(one.pixels, "image") for one in further)]
    files += [] if area is None else [file_of(area, "mask")]
    return Received(tuple(files), tuple(notes))


def looked_at(upload: Upload, bounds: Bounds) -> Received:
    """The file of a picture that a style draws after. Raises `RequestError` that names the field."""
    clean = _clean(upload, "reference", bounds)
    return Received((file_of(clean.pixels, "reference"),), tuple(f"reference: {note}" for note in clean.notes))


def _clean(upload: Upload, field: str, bounds: Bounds) -> Clean:
    try:
        return cleaned(upload.data, bounds)
    except RequestError as error:
        raise RequestError(f"{field}: {error.message}", field, error.code) from None


def _mask(upload: Upload, image: Clean, bounds: Bounds) -> NDArray[np.uint8]:
    if upload.ours:
        kept = value_of(upload.data, "mask")
        assert isinstance(kept, Mask)
        area = kept.data
    else:
        clean = _clean(upload, "mask", bounds)
        if clean.alpha is None:
            raise RequestError(
                "mask: it has no transparent pixels; make transparent what is to be drawn anew", "mask", "invalid_value"
            )
        area = masks.of_alpha(clean.alpha)
    if area.shape != image.pixels.shape[:2]:
        sizes = f"{area.shape[1]}x{area.shape[0]}, and the image {image.size[0]}x{image.size[1]}"
        raise RequestError(f"mask: it has {sizes}; give it the size of the image", "mask", "invalid_value")
    return area


def _extended(
    pixels: NDArray[np.uint8], area: NDArray[np.uint8] | None, extend: Mapping[str, int], bounds: Bounds
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The picture with a border that is to be drawn, whose colours begin as those of its edge."""
    left, top, right, bottom = (extend.get(side, 0) for side in SIDES)
    height, width = pixels.shape[:2]
    if (size := (width + left + right) * (height + top + bottom)) > bounds.max_pixels:
        raise RequestError(
            f"extend: {size:,} pixels; at most {bounds.max_pixels:,} are made", "extend", "invalid_value"
        )
    sides = ((top, bottom), (left, right))
    area = np.zeros((height, width), np.uint8) if area is None else area
    return np.pad(pixels, (*sides, (0, 0)), mode="edge"), np.pad(area, sides, constant_values=255)
