"""What a picture's file is, read from its first bytes before a decoder sees them: format, size, frames, scans.

Decoders allocate by what the header says, WebP's already when it opens a file; so whether a file is taken at all is
decided here, on bytes alone.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from router.errors import RequestError

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
NEEDED = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"iCCP", b"sRGB", b"eXIf", b"sBIT"))
"""Chunks of a PNG that say how it looks; the others may unpack to what nobody asked for."""

OTHERS: dict[bytes, str] = {
    b"GIF8": "a GIF", b"BM": "a BMP", b"II*\x00": "a TIFF", b"MM\x00*": "a TIFF", b"%PDF": "a PDF", b"PK\x03\x04":
    "a ZIP archive", b"\x1f\x8b": "compressed by gzip", b"<svg": "an SVG", b"<?xml": "XML", b"<!DOC": "HTML",
    b"<html": "HTML", b"{": "JSON", b"8BPS": "a Photoshop file", b"\xff\x0a": "a JPEG XL",
}  # fmt: skip
"""How files begin that people send instead."""


@dataclass(frozen=True)
class Header:
    """format: "PNG", "JPEG" or "WEBP";   size in pixels;   scans: of a JPEG, passes over the whole picture"""

    format: str
    width: int
    height: int
    animated: bool = False
    scans: int = 1


def header(data: bytes) -> Header:
    """What the file says of itself. Raises `RequestError` for another type, and for a header that is cut off."""
    if data.startswith(PNG_MAGIC):
        return _png(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp(data)
    if data.startswith(b"\xff\xd8"):
        return _jpeg(data)
    raise RequestError(f"it is {_named(data)}; send a PNG, JPEG or WebP", None, "unsupported_image")


def bare_png(data: bytes) -> bytes:
    """A PNG without the chunks that say nothing of how it looks (`NEEDED`). Raises `RequestError` if it is cut off."""
    kept = [PNG_MAGIC]
    place = len(PNG_MAGIC)
    while place < len(data):
        if place + 12 > len(data):
            raise damaged("it is cut off")
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        if end > len(data):
            raise damaged("it is cut off")
        if kind in NEEDED:
            kept.append(data[place:end])
        if kind == b"IEND":
            return b"".join(kept)
        place = end
    raise damaged("it is cut off")


def damaged(why: str) -> RequestError:
    """A file that is of a known type, and not a sound one."""
    return RequestError(f"it is damaged: {why}", None, "invalid_image")


def _named(data: bytes) -> str:
    if not data:
        return "empty"
    if data[4:8] == b"ftyp":
        return "a HEIC, AVIF or video file"
    start = data[:64].lstrip()
    return next((name for magic, name in OTHERS.items() if start.startswith(magic)), "no picture of a known type")


def _png(data: bytes) -> Header:
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise damaged("its header is cut off")
    width, height = struct.unpack_from(">II", data, 16)
    place, animated = 33, False
    while place + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        if kind == b"IDAT":
            break
        animated = animated or kind == b"acTL"
        place += 12 + length
    return Header("PNG", width, height, animated)


def _webp(data: bytes) -> Header:
    kind = data[12:16]
    if len(data) < 30:
        raise damaged("its header is cut off")
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
        return Header("WEBP", width, height, animated=bool(data[20] & 0x02))
    if kind == b"VP8L" and data[20] == 0x2F:
        bits = int.from_bytes(data[21:25], "little")
        return Header("WEBP", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", data, 26)
        return Header("WEBP", width & 0x3FFF, height & 0x3FFF)
    raise damaged("its header is none of WebP's")


def _jpeg(data: bytes) -> Header:
    place = 2
    while place + 4 <= len(data):
        if data[place] != 0xFF:
            raise damaged("its header is none of JPEG's")
        marker = data[place + 1]
        if marker == 0xFF:  # padding
            place += 1
            continue
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if place + 9 > len(data):
                break
            height, width = struct.unpack_from(">HH", data, place + 5)
            return Header("JPEG", width, height, scans=data.count(b"\xff\xda", place))
        if marker == 0xDA or length < 2:
            break
        place += 2 + length
    raise damaged("its header is cut off")
