import io

import numpy as np
import pytest
from PIL import Image

from models.provenance import FORMATS, encode_image, read_metadata
from router.errors import RequestError

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
METADATA = {
    "prompt": 'a "red" <circle> & ünïcode 圆 🔴 {x}\n</triptych:metadata>',
    "seed": 7,
    "recipe": "duel",
    "models": {"sdxl": "sha256:0123456789ab"},
}


@pytest.mark.parametrize("format", FORMATS)
def test_metadata_survives_the_file(format: str) -> None:
    """What is written into a picture is read back unchanged, in all three formats."""
    assert read_metadata(encode_image(PIXELS, format, METADATA)) == METADATA


@pytest.mark.parametrize("format", FORMATS)
def test_same_picture_and_metadata_give_same_bytes(format: str) -> None:
    """There is no clock and no order of keys in a file."""
    backwards = dict(reversed(METADATA.items()))
    assert encode_image(PIXELS, format, METADATA) == encode_image(PIXELS.copy(), format, backwards)


@pytest.mark.parametrize(("format", "loss"), [("png", 0), ("webp", 0), ("jpeg", 20)])
def test_pixels_survive_the_file(format: str, loss: int) -> None:
    """PNG and WebP are lossless by default; JPEG is close."""
    with Image.open(io.BytesIO(encode_image(PIXELS, format, METADATA))) as image:
        assert image.format == FORMATS[format]
        assert np.abs(np.asarray(image.convert("RGB")).astype(int) - PIXELS).mean() <= loss


@pytest.mark.parametrize("format", ["webp", "jpeg"])
def test_compression_makes_smaller_files(format: str) -> None:
    """OpenAI's output_compression is the quality of the lossy formats."""
    assert len(encode_image(PIXELS, format, None, 10)) < len(encode_image(PIXELS, format, None, 90))


@pytest.mark.parametrize("format", FORMATS)
def test_files_say_that_a_model_made_them(format: str) -> None:
    """The XMP packet carries the IPTC source type for trained models, where other software looks for it."""
    assert b"trainedAlgorithmicMedia" in encode_image(PIXELS, format, METADATA)
    assert b"trainedAlgorithmicMedia" not in encode_image(PIXELS, format)


def test_a_very_long_prompt_fits_into_every_format() -> None:
    """A prompt beyond JPEG's segment is cut there, with a mark, and kept whole elsewhere."""
    long = {"prompt": "圆" * 32_000, "seed": 1}
    assert read_metadata(encode_image(PIXELS, "png", long)) == long
    assert read_metadata(encode_image(PIXELS, "webp", long)) == long
    cut = read_metadata(encode_image(PIXELS, "jpeg", long))
    assert (cut["truncated"], cut["seed"], len(cut["prompt"])) == (True, 1, 1000)


def test_odd_characters_do_not_break_a_file() -> None:
    """Control characters and lone surrogates in a prompt are written as something readable."""
    for format in FORMATS:
        assert "a" in read_metadata(encode_image(PIXELS, format, {"prompt": "a\x00\x1b\ud800b"}))["prompt"]


def test_foreign_files_have_no_metadata() -> None:
    """A picture from elsewhere reads as empty; something that is no picture is an error."""
    assert read_metadata(encode_image(PIXELS, "png")) == {}
    with pytest.raises(RequestError, match="not a PNG, WebP or JPEG"):
        read_metadata(b"GIF89a nothing")


def test_wrong_formats_are_refused() -> None:
    """Unknown formats and compressions name the field and the nearest word."""
    with pytest.raises(RequestError, match="did you mean 'jpeg'"):
        encode_image(PIXELS, "jpg")
    with pytest.raises(RequestError, match=r"outside 0\.\.100"):
        encode_image(PIXELS, "webp", None, 101)
