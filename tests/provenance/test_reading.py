"""Files that mean harm, or are broken: a clear error, and bounded memory."""

from __future__ import annotations

import contextlib
import io
import json
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from models.provenance import FORMATS, encode_image
from models.provenance import reading as limits
from models.provenance.comments import ASCII, UNICODE, comment_of, exif_with
from models.provenance.reading import read_file, read_pixels
from models.provenance.texts import loads, printable
from router.errors import RequestError

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
METADATA = {"prompt": "a red circle", "seed": 7}


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes, width: int = 8, height: int = 8) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * (1 + 3 * 8) * 8)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(chunks) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_a_bomb_of_pixels_is_not_decoded() -> None:
    """A small file that says it has four billion pixels is refused by its head."""
    tracemalloc.start()
    for width, height in ((65_000, 65_000), (12_000, 9_000)):
        with pytest.raises(RequestError, match="pixels"):
            read_file(png(width=width, height=height))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_a_bomb_of_text_is_not_unpacked() -> None:
    """Compressed text that would grow to 200 MB is refused, and takes less than a tenth of it."""
    bomb = b"triptych\0\0" + zlib.compress(b"x" * 200_000_000)
    tracemalloc.start()
    with pytest.raises(RequestError, match="damaged"):
        read_file(png(chunk(b"zTXt", bomb)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000


def test_a_file_that_is_too_large_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound on bytes nothing is looked at."""
    monkeypatch.setattr(limits, "MOST_BYTES", 1000)
    with pytest.raises(RequestError, match="MiB"):
        read_file(bytes(1001))


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_that_is_cut_off_is_told(format: str) -> None:
    """Wherever it ends, a part of a file is an error or what is left of it, and never a crash."""
    file = encode_image(PIXELS, format, METADATA)
    for end in (*range(0, 64), *range(64, len(file), 37)):
        try:
            read_file(file[:end])
        except RequestError:
            continue
    with pytest.raises(RequestError, match=r"damaged|not a PNG"):
        read_pixels(file[: len(file) // 2])


@settings(max_examples=150, deadline=None)
@given(format=st.sampled_from([*FORMATS]), places=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8))
def test_a_file_that_was_tampered_with_is_read_or_refused(format: str, places: list[tuple[float, int]]) -> None:
    """Bytes that were changed anywhere make other metadata, none, or an error."""
    file = bytearray(encode_image(PIXELS, format, METADATA))
    for place, byte in places:
        file[int(place * (len(file) - 1))] = byte
    with contextlib.suppress(RequestError):
        read_file(bytes(file))
        assert read_pixels(bytes(file)).ndim == 3


def test_an_animation_is_told_and_not_compared() -> None:
    """Of an animated file the frames are counted; its pixels are no single picture."""
    frames = [Image.fromarray(np.full((8, 8, 3), level, np.uint8)) for level in (0, 90, 200)]
    for format in ("PNG", "WEBP"):
        buffer = io.BytesIO()
        frames[0].save(buffer, format, save_all=True, append_images=frames[1:])
        assert read_file(buffer.getvalue()).frames == 3
        with pytest.raises(RequestError, match="animation of 3 frames"):
            read_pixels(buffer.getvalue())


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "[1]", "null", '{"a":' * 50_000, "\0", ""])
def test_metadata_that_are_no_object_are_none(text: str) -> None:
    """Nesting without end, other JSON and no JSON are no metadata."""
    info = PngImagePlugin.PngInfo()
    info.add_itxt("triptych", text)
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "PNG", pnginfo=info)
    assert read_file(buffer.getvalue()).metadata == loads(text) == {}


def test_texts_behind_the_pixels_are_found() -> None:
    """Programs may write a PNG's text after its pixels."""
    file = encode_image(PIXELS)
    late = chunk(b"iTXt", b"triptych\0\0\0\0\0" + json.dumps(METADATA).encode())
    assert read_file(file[:-12] + late + file[-12:]).metadata == METADATA


@pytest.mark.parametrize(
    ("raw", "text"),
    [(UNICODE + "ü圆🔴".encode("utf-16-be"), "ü圆🔴"), (UNICODE + "plain".encode("utf-16-le"), "plain"),
     (ASCII + b"plain\0\0", "plain"), (bytes(8) + "ü".encode(), "ü"), (b"short", "short"), (b"", ""),
     (7, ""), ("x", "x")],
)  # fmt: skip
def test_comments_are_read_as_others_write_them(raw: object, text: str) -> None:
    """Both orders of bytes behind `UNICODE`, ASCII, no mark at all; what is no text is empty."""
    assert comment_of(raw) == text


def test_comments_are_written_as_piexif_does() -> None:
    """EXIF is big-endian (`MM`), with the comment behind `UNICODE`, of the type of which A1111's reader makes bytes."""
    exif = exif_with("ü圆")
    assert exif.startswith(b"Exif\0\0MM") and exif.endswith(UNICODE + "ü圆".encode("utf-16-be"))
    assert struct.pack(">HHI", 0x9286, 7, 12) in exif
    read = Image.Exif()
    read.load(exif)
    assert (read[0x0131], comment_of(read.get_ifd(0x8769)[0x9286])) == ("Triptych", "ü圆")


def test_nothing_of_a_file_moves_the_cursor() -> None:
    """Escape sequences and characters that turn the direction of writing are shown as they are spelt."""
    assert printable("a\x1b[2Jb\u202ec\n\td") == "a\\x1b[2Jb\\u202ec\n\td"
