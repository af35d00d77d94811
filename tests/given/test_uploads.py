"""Bytes of anybody's to clean pixels: what is refused, at what cost, and what is made of the rest."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from models.given import masks
from models.given.cleaning import ORIENTATION, Bounds, cleaned, digest_of
from router.errors import RequestError
from tests.given.bad_uploads import BAD, many_scans, picture, saved
from tests.given.measured import LIMIT


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    """What became of each bad upload in a process of its own."""
    command = [sys.executable, "-m", "tests.given.measured"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", BAD)
def test_a_bad_upload_is_one_clear_refusal(name: str, measured: dict[str, Any]) -> None:
    """A file that does harm or is no picture is refused in words, at once, within the bound on memory."""
    told = measured[name]
    assert told["code"] == BAD[name][1], told
    assert told["message"].startswith("it ") and len(told["message"]) < 160
    assert told["bytes"] < LIMIT and told["seconds"] < 2


def test_the_largest_pictures_stay_within_the_bound(measured: dict[str, Any]) -> None:
    """Turned, converted and taken apart, a picture as large as is taken needs no more memory than is promised."""
    sound = {name: told for name, told in measured.items() if name not in BAD}
    assert len(sound) == 3
    assert {name: told["code"] for name, told in sound.items()} == dict.fromkeys(sound, "")
    assert max(told["bytes"] for told in sound.values()) < LIMIT


@pytest.mark.parametrize("format", ["PNG", "WEBP", "JPEG"])
def test_pixels_are_those_of_the_file(format: str) -> None:
    """A sound picture is what its file shows."""
    options = {"lossless": True} if format == "WEBP" else {"quality": 95}
    data = saved(picture(), format, **options)
    made = cleaned(data)
    assert made.size == (48, 32) and made.alpha is None and made.notes == ()
    assert np.array_equal(made.pixels, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "WEBP", "JPEG"])
def test_a_picture_is_turned_upright(format: str, orientation: int) -> None:
    """EXIF's orientation is applied, to transparency as well."""
    from PIL import ImageOps

    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    mode = "RGB" if format == "JPEG" else "RGBA"
    options = {"lossless": True} if format == "WEBP" else {}
    data = saved(picture(mode=mode), format, exif=exif, **options)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    made = cleaned(data)
    assert np.array_equal(made.pixels, np.asarray(upright.convert("RGB")))
    if mode == "RGBA":
        assert made.alpha is not None and np.array_equal(made.alpha, np.asarray(upright.getchannel("A")))


def swapped_profile() -> bytes:
    """sRGB with red and blue exchanged."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    tags = {b"rXYZ": b"bXYZ", b"bXYZ": b"rXYZ"}
    table = bytearray(profile)
    for number in range(int.from_bytes(profile[128:132], "big")):
        at = 132 + 12 * number
        table[at : at + 4] = tags.get(profile[at : at + 4], profile[at : at + 4])
    return bytes(table)


@pytest.mark.parametrize("format", ["PNG", "WEBP", "JPEG"])
def test_colours_are_brought_to_srgb(format: str) -> None:
    """A colour means what its file's profile says; a profile that is none is told, and sRGB is taken."""
    options = {"lossless": True} if format == "WEBP" else {}
    red = Image.new("RGB", (16, 16), (255, 0, 0))
    turned = cleaned(saved(red, format, icc_profile=swapped_profile(), **options))
    assert turned.pixels[8, 8, 2] > 240 and turned.pixels[8, 8, 0] < 15
    broken = cleaned(saved(red, format, icc_profile=b"no profile", **options))
    assert broken.pixels[8, 8, 0] > 240 and "colour profile" in broken.notes[0]


def test_grey_of_sixteen_bits_is_scaled() -> None:
    """16 bits of grey become 8, and nothing is clipped."""
    deep = Image.fromarray(np.array([[0, 0x8000, 0xFFFF]], np.uint16))
    assert cleaned(saved(deep, "PNG")).pixels[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("mode", ["P", "LA", "RGBA"])
def test_transparency_is_kept_apart(mode: str) -> None:
    """Alpha of any kind is kept; where all is opaque there is none."""
    clear = picture(mode="RGBA")
    clear.putalpha(Image.fromarray(np.tile(np.array([0, 255], np.uint8), (32, 24))))
    image = clear.convert("P") if mode == "P" else clear.convert(mode)
    told = {"transparency": image.getpixel((0, 0))} if mode == "P" else {}
    made = cleaned(saved(image, "PNG", **told))
    assert made.alpha is not None and made.alpha[0, 0] == 0
    opaque = picture(mode="RGBA")
    opaque.putalpha(255)
    assert cleaned(saved(opaque, "PNG")).alpha is None


def test_time_is_bounded() -> None:
    """Decoding ends when its time is up, and a JPEG of many scans is refused before it begins."""
    data = saved(picture(512, 512), "JPEG", quality=95)
    with pytest.raises(RequestError, match="too long"):
        cleaned(data, Bounds(timeout_s=-1.0))
    with pytest.raises(RequestError, match="scans"):
        cleaned(many_scans(200))


def test_a_digest_is_of_what_is_seen() -> None:
    """The same pixels have one digest whatever file they came in; shape and content count."""
    png, webp = saved(picture(), "PNG"), saved(picture(), "WEBP", lossless=True)
    assert digest_of(cleaned(png).pixels) == digest_of(cleaned(webp).pixels)
    flat = np.zeros((4, 9, 3), np.uint8)
    assert len({digest_of(flat), digest_of(flat.reshape(9, 4, 3)), digest_of(flat + 1)}) == 3


@pytest.mark.parametrize("size", [(64, 64), (33, 70), (128, 16)])
def test_outside_the_mask_every_byte_is_the_given_one(size: tuple[int, int]) -> None:
    """Whatever is drawn, and whatever the mask, its zeros keep the given bytes, and deep inside all is drawn."""
    rng = np.random.default_rng(sum(size))
    width, height = size
    given, drawn = (rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(2))
    for kind in range(4):
        mask = np.zeros((height, width), np.uint8)
        mask[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = 255
        if kind == 1:
            mask = rng.integers(0, 2, (height, width), dtype=np.uint8) * 255
        if kind == 2:
            mask = rng.integers(0, 256, (height, width), dtype=np.uint8)
        if kind == 3:
            mask[:] = 255
        made = masks.laid_over(drawn, given, mask)
        assert np.array_equal(made[mask == 0], given[mask == 0])
        if kind == 3:
            assert np.array_equal(made, drawn)
        if kind == 0:
            assert np.array_equal(made[height // 2, width // 2], drawn[height // 2, width // 2])


def test_a_mask_loses_nothing_at_another_size() -> None:
    """A single pixel that may change still may when the mask is made smaller, larger, or whole cells."""
    mask = np.zeros((64, 64), np.uint8)
    mask[13, 37] = 255
    assert masks.resized(mask, 16, 16)[3, 9] > 0 and np.count_nonzero(masks.resized(mask, 16, 16)) == 1
    assert masks.resized(mask, 128, 128)[26:28, 74:76].all()
    whole = masks.cells(mask, 8)
    assert whole[8:16, 32:40].all() and np.count_nonzero(whole) == 64
    assert masks.share(mask) == 1 / 4096
