"""Is a picture the one in a file? Identical pixels; or, where the file's codec loses something, what that leaves.

How coarse its codec was is what the file itself says, and so could whoever edited it. Therefore the file is not
compared with the picture within what the codec loses, but with the picture as the codec leaves it, within limits that
no file widens; and a codec that leaves too little to tell pictures apart is no excuse.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from models.provenance.files import encode_image, jpeg_options
from models.provenance.reading import opened, read_pixels

Pixels = NDArray[np.uint8]
Verdict = Literal["identical", "within codec", "different"]
MEAN, LARGEST, REGIONAL = 1.5, 32, 3.0
"""Levels by which a file may be apart from what its codec leaves of the picture, since another version rounds
otherwise: on average, at most, and on average of any region."""
COARSE = 40.0
"""Levels on average of a region from which a codec leaves too little of a picture to know it by."""
REGION = 8, 16
"""Sides in pixels of the regions of `REGIONAL` and of `COARSE`."""


@dataclass(frozen=True)
class Comparison:
    """mean, largest: difference of the file to the picture, in levels of 0..255;   codec_mean, codec_largest: what the
    codec loses of the picture itself;   left_mean, left_largest: difference of the file to what the codec leaves, which
    is what was tolerated if they are the same;   differing: share of pixels that differ at all;   in words: reason"""

    verdict: Verdict
    mean: float
    largest: int
    differing: float
    codec_mean: float
    codec_largest: int
    left_mean: float
    left_largest: int
    reason: str

    @property
    def same(self) -> bool:
        return self.verdict != "different"


def compare(file: bytes, picture: Pixels, format: str, compression: int | None, recorded: str | None) -> Comparison:
    """The picture in `file`, which is of `format`, against `picture`.

    compression, recorded: what the file says that it was written with; `recorded` is its format then
    Raises `RequestError` if the file cannot be decoded.
    """
    found = read_pixels(file)
    if found.shape != picture.shape:
        sizes = [f"{shape[1]}x{shape[0]}" for shape in (found.shape, picture.shape)]
        reason = f"the file has {sizes[0]} pixels, the picture {sizes[1]}: the file was changed, or the size is another"
        return Comparison("different", 255.0, 255, 1.0, 0.0, 0, 255.0, 255, reason)
    mean, largest, differing = _apart(found, picture)
    if not largest:
        return Comparison("identical", 0.0, 0, 0.0, 0.0, 0, 0.0, 0, "identical pixels")
    through = _through_codec(file, picture, format, compression, recorded)
    codec_mean, codec_largest, _ = _apart(through, picture)
    left_mean, left_largest, _ = _apart(found, through)

    def judged(verdict: Verdict, reason: str) -> Comparison:
        figures = (mean, largest, differing, codec_mean, codec_largest, left_mean, left_largest)
        return Comparison(verdict, *figures, reason)

    told = f"{differing:.0%} of the pixels differ, by {mean:.2f} levels on average and at most {largest}"
    if not codec_largest:
        again = f"; the file was written as {recorded} and stored again as {format} since"
        return judged("different", told if recorded in (None, format) else told + again)
    if (lost := _regional(through, picture, REGION[1])) > COARSE:
        coarse = f"{format}, as coarse as in this file, loses {lost:.0f} levels of whole regions"
        return judged("different", f"{told}; {coarse}, so that nothing can be told by it")
    if not left_largest:
        loses = f"which loses {codec_mean:.2f} levels on average and {codec_largest} at most"
        return judged("within codec", f"identical pixels once the picture went through {format}, {loses}")
    regional = _regional(found, through, REGION[0])
    apart = f"{left_mean:.2f} levels on average, {left_largest} at most and {regional:.1f} of a region"
    apart += f" from what {format} leaves of the picture; tolerated are {MEAN:g}, {LARGEST} and {REGIONAL:g}"
    if left_mean <= MEAN and left_largest <= LARGEST and regional <= REGIONAL:
        return judged("within codec", apart)
    return judged("different", f"{told}: {apart}")


def _apart(one: Pixels, other: Pixels) -> tuple[float, int, float]:
    """Mean and largest difference in levels, and the share of pixels that differ."""
    apart = np.abs(one.astype(np.int16) - other)
    return float(apart.mean()), int(apart.max(initial=0)), float((apart.max(axis=2) > 0).mean())


def _regional(one: Pixels, other: Pixels, side: int) -> float:
    """The largest difference of the means of a region, in levels; regions at the right and lower edge are smaller."""
    apart = one.astype(np.float64) - other
    for axis in (0, 1):
        starts = np.arange(0, apart.shape[axis], side)
        sizes = np.diff([*starts, apart.shape[axis]])
        apart = np.add.reduceat(apart, starts, axis) / np.expand_dims(sizes, (1 - axis, 2))
    return float(np.abs(apart).max(initial=0.0))


def _through_codec(file: bytes, picture: Pixels, format: str, compression: int | None, recorded: str | None) -> Pixels:
    """The picture as the file's codec would give it back."""
    if recorded in (None, format):
        return read_pixels(encode_image(picture, format, None, compression))
    if format != "jpeg":
        return picture  # nobody knows by what it was stored again
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", **_tables_of(file))
    return read_pixels(buffer.getvalue())


def _tables_of(file: bytes) -> dict[str, Any]:
    """Pillow's options for a JPEG as coarse as this one."""
    with opened(file) as image:
        sampling = JpegImagePlugin.get_sampling(image)
        tables = getattr(image, "quantization", None)
    return {"qtables": tables, "subsampling": max(sampling, 0)} if tables else jpeg_options(None)
