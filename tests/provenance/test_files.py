"""Files that say how their pictures were made: what goes in comes out, in every format, and nothing else."""

import io
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from models.provenance import FORMATS, encode_image, read_metadata
from models.provenance.parameters import details
from models.provenance.reading import read_file
from models.provenance.xmp import EXTENSION, SOURCE_TYPE
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


TEXTS = st.text(st.characters(), max_size=60)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(prompt=TEXTS, negative=TEXTS, more=st.dictionaries(TEXTS, JSON, max_size=3), format=st.sampled_from([*FORMATS]))
def test_every_text_of_unicode_comes_back(prompt: str, negative: str, more: dict[str, Any], format: str) -> None:
    """Whatever prompts and settings say, control characters and lone surrogates included, the file gives it back."""
    metadata = {**more, "prompt": prompt, "negative_prompt": negative}
    read = read_file(encode_image(PIXELS, format, metadata))
    assert read.metadata == metadata
    (packet,) = read.xmp
    assert ElementTree.fromstring(packet.strip("\ufeff")).tag == "{adobe:ns:meta/}xmpmeta"


@pytest.mark.parametrize("format", FORMATS)
def test_a_very_long_prompt_fits_into_every_format(format: str) -> None:
    """Nothing of the metadata is lost where a JPEG's segment is too short; the one line that has to be shortened there
    says so, and keeps its settings."""
    steps = [{"kind": "generate", "model": "sdxl", "settings": {"steps": 20, "guidance_scale": 7.5}}]
    long = {"prompt": "圆" * 32_000, "negative_prompt": "🔴\n" * 16_000, "seed": 1, "steps": steps}
    read = read_file(encode_image(PIXELS, format, long))
    shortened = {"shortened": ["parameters"]} if format == "jpeg" else {}
    assert read.metadata == {**long, **shortened}
    assert read.texts["parameters"].endswith(details(long))
    assert ("圆" * 32_000 in read.texts["parameters"]) == (format != "jpeg")


@pytest.mark.parametrize("length", [21_000, 21_700, 21_800, 22_500, 65_000, 130_000])
def test_a_jpeg_is_whole_around_the_ends_of_its_segments(length: int) -> None:
    """Below, at and beyond the length of one, two and three segments."""
    metadata = {"prompt": "x", "note": "é" * length}
    assert read_metadata(encode_image(PIXELS, "jpeg", metadata)) == {**metadata}


def test_parts_of_a_jpeg_that_are_missing_are_not_made_up() -> None:
    """Without one segment of the extension there are no metadata, and the mark stays."""
    file = encode_image(PIXELS, "jpeg", {"prompt": "x", "note": "é" * 100_000})
    at = file.rindex(EXTENSION) - 4
    end = at + 2 + int.from_bytes(file[at + 2 : at + 4], "big")
    read = read_file(file[:at] + file[end:])
    assert (read.metadata, read.source_type) == ({}, SOURCE_TYPE)


@pytest.mark.parametrize("format", FORMATS)
def test_a_mark_says_only_that_a_model_made_it(format: str) -> None:
    """With `mark` and no metadata, the IPTC type is all that a file has; without it, there is nothing at all."""
    marked, bare = (read_file(encode_image(PIXELS, format, mark=mark)) for mark in (True, False))
    assert (marked.source_type, marked.metadata, dict(marked.texts).keys() - {"XML:com.adobe.xmp"}) == (
        SOURCE_TYPE, {}, set(),
    )  # fmt: skip
    assert (bare.source_type, bare.metadata, bare.texts, bare.xmp) == ("", {}, {}, ())


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
