"""EXIF's user comment, in which JPEG and WebP carry what PNG has as the text `parameters`."""

from __future__ import annotations

from PIL import Image

EXIF_IFD, USER_COMMENT, SOFTWARE = 0x8769, 0x9286, 0x0131
UNICODE, ASCII = b"UNICODE\0", b"ASCII\0\0\0"
MOST_UNITS = 32_600
"""UTF-16 units of a comment that fit into the one segment that a JPEG has for EXIF."""


def exif_with(comment: str) -> bytes:
    """EXIF with a comment as the readers of A1111 expect it: big-endian UTF-16 behind `UNICODE`."""
    exif = Image.Exif()
    exif.endian = ">"
    exif[SOFTWARE] = "Triptych"
    exif.get_ifd(EXIF_IFD)[USER_COMMENT] = UNICODE + comment.encode("utf-16-be")
    return exif.tobytes()


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
