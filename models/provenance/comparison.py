"""Is a picture the one in a file? Identical pixels; or, where the file's codec loses something, no more than that."""

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
SLACK = 1.25
"""A file is within its codec's error up to so many times what the codec loses here, in perhaps another version."""


@dataclass(frozen=True)
class Comparison:
    """mean, largest: difference of the file to the picture, in levels of 0..255;   codec_mean, codec_largest: what the
    codec loses of the picture itself;   differing: share of pixels that differ at all;   in words: reason"""

    verdict: Verdict
    mean: float
    largest: int
    differing: float
    codec_mean: float
    codec_largest: int
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
        return Comparison("different", 255.0, 255, 1.0, 0.0, 0, reason)
    mean, largest, differing = _apart(found, picture)
    if not largest:
        return Comparison("identical", 0.0, 0, 0.0, 0.0, 0, "identical pixels")
    through = _through_codec(file, picture, format, compression, recorded)
    codec_mean, codec_largest, _ = _apart(through, picture)

    def judged(verdict: Verdict, reason: str) -> Comparison:
        return Comparison(verdict, mean, largest, differing, codec_mean, codec_largest, reason)

    if not _apart(found, through)[1]:
        loses = f"which loses {codec_mean:.2f} levels on average"
        return judged("within codec", f"identical pixels once the picture went through {format}, {loses}")
    if codec_largest and mean <= SLACK * codec_mean and largest <= SLACK * codec_largest:
        loses = f"{format} loses {codec_mean:.2f} of this picture"
        return judged("within codec", f"{mean:.2f} levels apart on average, and {loses}")
    reason = f"{differing:.0%} of the pixels differ, by {mean:.2f} levels on average and at most {largest}"
    if recorded not in (None, format):
        reason += f"; the file was written as {recorded} and stored again as {format} since"
    elif codec_largest:
        reason += f", of which {format} explains {codec_mean:.2f}"
    return judged("different", reason)


def _apart(one: Pixels, other: Pixels) -> tuple[float, int, float]:
    """Mean and largest difference in levels, and the share of pixels that differ."""
    apart = np.abs(one.astype(np.int16) - other)
    return float(apart.mean()), int(apart.max(initial=0)), float((apart.max(axis=2) > 0).mean())


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
