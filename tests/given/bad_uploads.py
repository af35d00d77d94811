"""Forty files that nobody should be able to do harm with, and what each is. All are made here; none is large."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image


def picture(width: int = 48, height: int = 32, mode: str = "RGB") -> Image.Image:
    """A picture of noise, which no format makes small."""
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 4), dtype=np.uint8)
    return Image.fromarray(noise, "RGBA").convert(mode)


def saved(image: Image.Image, format: str, **options: object) -> bytes:
    """The bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *between: bytes, depth: int = 8, colour: int = 2, data: bytes | None = None) -> bytes:
    """A PNG by hand. data: of its IDAT, unpacked"""
    packed = zlib.compress(b"\0" * 64 if data is None else data, 9)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(between) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def webp_canvas(width: int, height: int, flags: int = 0) -> bytes:
    """A WebP whose canvas is of any size, around a small picture."""
    inner = saved(picture(), "WEBP", lossless=True)[12:]
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBP" + b"VP8X" + struct.pack("<I", 10) + bytes((flags, 0, 0, 0)) + canvas + inner
    return b"RIFF" + struct.pack("<I", len(body)) + body


def jpeg_of(width: int, height: int) -> bytes:
    """A JPEG that says another size than it has."""
    data = bytearray(saved(picture(), "JPEG"))
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def many_scans(times: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    data = saved(Image.new("RGB", (256, 256), "grey"), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * times + data[-2:]


def animated(format: str) -> bytes:
    """Two frames."""
    return saved(picture(), format, save_all=True, append_images=[picture().rotate(90)], duration=100)


PNG, JPEG, WEBP = (saved(picture(), name) for name in ("PNG", "JPEG", "WEBP"))
GREY_BOMB = zlib.compress(b"\0" * 60_000_000, 9)
TEXT_BOMB = chunk(b"zTXt", b"Comment\0\0" + GREY_BOMB)
PROFILE_BOMB = chunk(b"iCCP", b"p\0\0" + GREY_BOMB)
TOO_LARGE, DAMAGED, OTHER = "image_too_large", "invalid_image", "unsupported_image"

BAD: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", OTHER),
    "one byte": (b"\x89", OTHER),
    "text": (b"a red circle", OTHER),
    "JSON": (b'{"image": 1}', OTHER),
    "HTML": (b"<!DOCTYPE html><html></html>", OTHER),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", OTHER),
    "SVG with an outer entity": (
        b"<?xml version='1.0'?><!DOCTYPE svg [<!ENTITY a SYSTEM 'file:///a'>]>",
        OTHER,
    ),
    "GIF": (saved(picture(), "GIF"), OTHER),
    "animated GIF": (animated("GIF"), OTHER),
    "BMP": (saved(picture(), "BMP"), OTHER),
    "TIFF": (saved(picture(), "TIFF"), OTHER),
    "PDF": (b"%PDF-1.7\n", OTHER),
    "ZIP": (b"PK\x03\x04" + b"\0" * 64, OTHER),
    "gzip of a PNG": (b"\x1f\x8b" + zlib.compress(PNG), OTHER),
    "HEIC": (b"\0\0\0\x18ftypheic" + b"\0" * 64, OTHER),
    "EPS": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", OTHER),
    "ICO": (saved(picture(32, 32), "ICO"), OTHER),
    "random bytes": (np.random.default_rng(1).bytes(4096), OTHER),
    "a PNG's first bytes alone": (PNG[:8], DAMAGED),
    "a PNG cut off in its header": (PNG[:20], DAMAGED),
    "a PNG cut off in its pixels": (PNG[: len(PNG) // 2], DAMAGED),
    "a PNG without an end": (PNG[:-12], DAMAGED),
    "a PNG with a broken sum": (PNG[:50] + bytes((PNG[50] ^ 255,)) + PNG[51:], DAMAGED),
    "a PNG with too few rows": (png(64, 64), DAMAGED),
    "a PNG of no width": (png(0, 64), DAMAGED),
    "a PNG of an unknown colour type": (png(8, 8, colour=5), DAMAGED),
    "a PNG of 65535 x 65535": (png(65535, 65535), TOO_LARGE),
    "a PNG of 2^31 columns": (png(2**31 - 1, 1), TOO_LARGE),
    "a PNG bomb of 30000 x 2000": (png(30000, 2000, colour=0, data=b"\0" * (30001 * 2000)), TOO_LARGE),
    "a PNG with a bomb of text and too few rows": (png(64, 64, TEXT_BOMB, TEXT_BOMB, TEXT_BOMB), DAMAGED),
    "a PNG with a bomb of a profile": (png(64, 64, PROFILE_BOMB), DAMAGED),
    "animated PNG": (animated("PNG"), DAMAGED),
    "a JPEG's first bytes alone": (JPEG[:2], DAMAGED),
    "a JPEG cut off in its pixels": (JPEG[: len(JPEG) // 2], DAMAGED),
    "a JPEG of 65500 x 65500": (jpeg_of(65500, 65500), TOO_LARGE),
    "a JPEG of 2000 scans": (many_scans(2000), DAMAGED),
    "a JPEG of no height": (jpeg_of(48, 0), DAMAGED),
    "a WebP cut off in its pixels": (WEBP[: len(WEBP) // 2], DAMAGED),
    "a WebP with a canvas of 16383 x 16383": (webp_canvas(16383, 16383), TOO_LARGE),
    "a WebP whose canvas is not its picture's": (webp_canvas(640, 480), DAMAGED),
    "animated WebP": (animated("WEBP"), DAMAGED),
    "more bytes than are read": (PNG + b"\0" * 2_000_000, TOO_LARGE),
}
"""What it is -> the bytes, and the code that it is refused with."""
