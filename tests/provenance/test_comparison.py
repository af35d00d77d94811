"""When a picture is the one in a file."""

from __future__ import annotations

import io
from typing import Any

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


SPOT = PICTURE.copy()
SPOT[20:28, 20:28] = (SPOT[20:28, 20:28].astype(int) + 24).clip(0, 255).astype(np.uint8)


def stored_again(pixels: np.ndarray, **options: Any) -> bytes:
    """As whoever edits a file may store it."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("quality", [10, 20, 50, 90])
@pytest.mark.parametrize("recorded", ["png", "jpeg"])
def test_a_file_cannot_say_its_way_out_of_an_edit(quality: int, recorded: str) -> None:
    """However coarse a file says that its codec was, a spot that was made lighter is found, and the limits are told."""
    coarse = compare(stored_again(SPOT, quality=quality), PICTURE, "jpeg", 0, recorded)
    assert coarse.verdict == "different" and "tolerated are" in coarse.reason


def test_a_file_of_which_nothing_is_left_proves_nothing() -> None:
    """A codec that makes every picture the same flat one, as the file's own tables say, is no excuse."""
    half = np.where(np.arange(64)[None, :, None] < 32, 10, 240).repeat(48, 0).repeat(3, 2).astype(np.uint8)
    flat = stored_again(half, qtables={0: [255] * 64, 1: [255] * 64}, subsampling=2)
    found = compare(flat, half, "jpeg", None, "png")
    assert found.verdict == "different" or found.left_largest == 0
    grey = stored_again(half // 16 * 0 + 128, qtables={0: [255] * 64, 1: [255] * 64}, subsampling=2)
    assert compare(grey, half, "jpeg", None, "png").verdict == "different"


def test_another_version_of_a_codec_is_tolerated_and_said() -> None:
    """A picture one level off here and there is still the one in a JPEG, and the reason says what was tolerated."""
    near = PICTURE.copy()
    near[::7, ::5] ^= 1
    found = compare(stored_again(near, quality=90), PICTURE, "jpeg", None, "png")
    assert found.verdict == "within codec" and 0 < found.left_mean < found.codec_mean
    assert f"{found.left_mean:.2f} levels" in found.reason and "tolerated are" in found.reason


def test_other_sizes_are_other_pictures() -> None:
    """A thumbnail is not compared pixel by pixel."""
    found = compare(encode_image(PICTURE[::2, ::2]), PICTURE, "png", None, "png")
    assert found.verdict == "different" and "32x24" in found.reason and "64x48" in found.reason
