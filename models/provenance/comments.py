"""EXIF's user comment, in which JPEG and WebP carry what PNG has as the text `parameters`."""

from __future__ import annotations

import struct
from collections.abc import Sequence

EXIF_IFD, USER_COMMENT, SOFTWARE = 0x8769, 0x9286, 0x0131
UNICODE, ASCII = b"UNICODE\0", b"ASCII\0\0\0"
MOST_UNITS = 32_600
"""UTF-16 units of a comment that fit into the one segment that a JPEG has for EXIF."""


def exif_with(comment: str) -> bytes:
    """EXIF with a comment as the readers of A1111 expect it: big-endian UTF-16 behind `UNICODE`."""
    # By hand, since Pillow writes such a comment as numbers, at which A1111's reader fails.
    said = UNICODE + comment.encode("utf-16-be")
    program = b"Triptych\0"
    fields = [(SOFTWARE, _ASCII, program), (EXIF_IFD, _LONG, b"")]
    inner = [(0x9000, _UNDEFINED, b"0232"), (USER_COMMENT, _UNDEFINED, said)]  # which version of EXIF this is
    at = 8 + _length(fields)
    fields[1] = (EXIF_IFD, _LONG, struct.pack(">I", at))
    return b"Exif\0\0MM\0*" + struct.pack(">I", 8) + _directory(fields, 8) + _directory(inner, at)


_ASCII, _LONG, _UNDEFINED = 2, 4, 7
"""Types of TIFF."""

Field = tuple[int, int, bytes]


def _directory(fields: Sequence[Field], at: int) -> bytes:
    """A directory of TIFF that begins at byte `at`, with the values that do not fit into it behind it."""
    behind = at + 2 + 12 * len(fields) + 4
    entries, values = b"", b""
    for tag, kind, value in fields:
        count = 1 if kind == _LONG else len(value)
        if len(value) <= 4:
            entries += struct.pack(">HHI", tag, kind, count) + value.ljust(4, b"\0")
        else:
            entries += struct.pack(">HHII", tag, kind, count, behind + len(values))
            values += value + b"\0" * (len(value) % 2)
    return struct.pack(">H", len(fields)) + entries + struct.pack(">I", 0) + values


def _length(fields: Sequence[Field]) -> int:
    return 6 + 12 * len(fields) + sum(len(value) + len(value) % 2 for _, _, value in fields if len(value) > 4)


def units(text: str) -> int:
    """How long a text is as a comment."""
    return len(text.encode("utf-16-be", "surrogatepass")) // 2


def comment_of(raw: object) -> str:
    """The text of a user comment as cameras, A1111 and others write it; "" for what cannot be read."""
    if isinstance(raw, str):
        return raw
    if not isinstance(raw, bytes):
        return ""
    head, body = raw[:8], raw[8:]
    if head == UNICODE:
        # Some programs write little-endian: then the zeros of plain letters are on the other side.
        little = body[1::2].count(0) > body[0::2].count(0)
        return body.decode("utf-16-le" if little else "utf-16-be", "replace").rstrip("\0")
    text = body if head in (ASCII, bytes(8)) else raw
    return text.decode("utf-8", "replace").rstrip("\0")
