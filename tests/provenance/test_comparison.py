"""When a picture is the one in a file."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from models.provenance import encode_image
from models.provenance.comparison import compare

SMOOTH = np.linspace(0, 255, 64 * 48 * 3).reshape(48, 64, 3).astype(np.uint8)
PICTURE = (SMOOTH + np.random.default_rng(1).integers(0, 40, SMOOTH.shape)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("format", "compression", "verdict"),
    [("png", None, "identical"), ("webp", None, "identical"), ("webp", 60, "within codec"),
     ("jpeg", None, "within codec"), ("jpeg", 30, "within codec")],
)  # fmt: skip
def test_the_same_picture_is_the_same(format: str, compression: int | None, verdict: str) -> None:
    """Lossless files have identical pixels; lossy ones what the codec leaves of the picture."""
    file = encode_image(PICTURE, format, None, compression)
    found = compare(file, PICTURE, format, compression, format)
    assert (found.verdict, found.same) == (verdict, True)
    assert (found.mean, found.largest) == (found.codec_mean, found.codec_largest)


@pytest.mark.parametrize(("format", "compression"), [("png", None), ("webp", 60), ("jpeg", None)])
def test_another_picture_is_told_with_how_far_it_is(format: str, compression: int | None) -> None:
    """A spot that was painted over is found, in lossless files from one level on."""
    other = PICTURE.copy()
    other[10:14, 10:14] = 255 - other[10:14, 10:14]
    found = compare(encode_image(other, format, None, compression), PICTURE, format, compression, format)
    assert found.verdict == "different" and "differ" in found.reason
    one = PICTURE.copy()
    one[0, 0, 0] ^= 1
    assert compare(encode_image(one), PICTURE, "png", None, "png").largest == 1


def test_a_file_that_was_stored_again_is_judged_by_its_own_tables() -> None:
    """A PNG that somebody made a JPEG of is within that codec's error; what cannot be told says so."""
    buffer = io.BytesIO()
    Image.fromarray(PICTURE).save(buffer, "JPEG", quality=55)
    assert compare(buffer.getvalue(), PICTURE, "jpeg", None, "png").verdict == "within codec"
    lossy = encode_image(PICTURE, "webp", None, 20)
    found = compare(lossy, PICTURE, "webp", None, "png")
    assert found.verdict == "different" and "written as png and stored again as webp" in found.reason


def test_other_sizes_are_other_pictures() -> None:
    """A thumbnail is not compared pixel by pixel."""
    found = compare(encode_image(PICTURE[::2, ::2]), PICTURE, "png", None, "png")
    assert found.verdict == "different" and "32x24" in found.reason and "64x48" in found.reason
