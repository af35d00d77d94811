"""The bytes of a file as text: unpacked, decoded, or named as what they are."""

from __future__ import annotations

import codecs
import gzip
import io
import re
import zipfile
import zlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from router.errors import ArtifactError

REMEDY = "export it as CSV in UTF-8, and give that"
PARQUET = b"PAR1"
KINDS: tuple[tuple[bytes, str], ...] = (
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel or Office file (.xls)"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"ARROW1", "an Arrow (Feather) file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89HDF\r\n", "an HDF5 file"),
    (b"%PDF-", "a PDF"),
    (b"\x89PNG", "a picture (PNG)"),
    (b"\xff\xd8\xff", "a picture (JPEG)"),
    (b"GIF89a", "a picture (GIF)"),
    (b"{\\rtf", "a rich-text document"),
    (b"$FL2", "an SPSS file"),
    (b"<stata_dta>", "a Stata file"),
    (b"RDX3\n", "a file of R data"),
    (b"RDX2\n", "a file of R data"),
    (b"Obj\x01", "an Avro file"),
    (b"<?xml", "an XML document"),
    (b"BZh91AY&SY", "a bzip2 archive; unpack it first"),
    (b"\xfd7zXZ\0", "an xz archive; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive; unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive; unpack it first"),
    (b"Rar!\x1a", "a RAR archive; unpack it first"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself; run: git lfs pull"),
)
"""First bytes, and what a file is that begins with them."""
ZIPPED = (("xl/", "an Excel workbook (.xlsx)"), ("word/", "a Word document"), ("Index/", "a Numbers sheet"),
          (".npy", "a NumPy archive (.npz)"))  # fmt: skip
BOMS = (  # the longer ones first: that of UTF-32 begins like that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32-le", "UTF-32"),
    (codecs.BOM_UTF32_BE, "utf-32-be", "UTF-32"),
    (codecs.BOM_UTF8, "utf-8", "UTF-8 with a byte order mark"),
    (codecs.BOM_UTF16_LE, "utf-16-le", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16-be", "UTF-16"),
)
SIGNS = (
    "\u2018\u2019\u201c\u201d\u201e\u201a\u2013\u2014\u2026\u2022\u20ac\u2122"
    "\xa0\xa1\xa3\xa7\xa9\xab\xae\xb0\xb2\xb3\xb7\xbb\xbc\xbd\xbe\xbf\xd7"
)
"""Characters beside letters that texts of Western Europe have."""


@dataclass(frozen=True)
class Content:
    """data: unpacked;   packed: whether it was gzipped"""

    data: bytes
    packed: bool


def read_content(file: Path, what: str = "table") -> Content:
    """The bytes of a file, unpacked if they are gzipped, whatever it is called.

    Raises `ArtifactError` for what is no text and no Parquet, with the name of what it is and the remedy.
    """
    if file.is_dir():
        raise ArtifactError(f"{file} is a folder; name the {what}'s file")
    if not file.is_file():
        raise ArtifactError(f"{file}: there is no such {what}")
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{file} cannot be read ({error.strerror})") from error
    packed = data.startswith(b"\x1f\x8b")
    if packed:
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise ArtifactError(f"{file} is gzipped, but broken or cut off ({error}); copy it again") from error
    if (kind := _kind(data)) is not None:
        inside = "a gzip archive of " if packed else ""
        tail = "" if ";" in kind else f"; {REMEDY}"
        raise ArtifactError(f"{file} is {inside}{kind}{tail}")
    return Content(data, packed)


def decoded(data: bytes, file: Path) -> tuple[str, str]:
    """Text and the name of its encoding: UTF-8, UTF-16 or UTF-32, or Windows-1252 (of which Latin-1 is a part) if the
    bytes make words in it.

    Raises `ArtifactError` with the line of what cannot be decoded.
    """
    for mark, codec, name in BOMS:
        if data.startswith(mark):
            return _strictly(data[len(mark) :], codec, name, file), name
    head = data[:8]
    if len(head) >= 6:
        for codec, nothing, something in (("utf-16-le", head[1::2], head[::2]), ("utf-16-be", head[::2], head[1::2])):
            if not any(nothing) and all(something):
                return _strictly(data, codec, "UTF-16", file), "UTF-16"
    try:
        return data.decode("utf-8"), "UTF-8"
    except UnicodeDecodeError as error:
        line = _line(data[: error.start])
        text = data.decode("cp1252", "replace")
        words = [*re.finditer(r"[^\W\d_]*[^\x00-\x7f][^\s,;\t]*", text)]
        if not re.search(rb"[\xc2-\xf4][\x80-\xbf]", data) and words and all(_western(w.group()) for w in words):
            high = re.search(rb"[\x80-\x9f]", data)
            return text, "Windows-1252" if high else "Latin-1"
        around = data[max(0, error.start - 12) : error.start + 12].decode("ascii", "backslashreplace")
        raise ArtifactError(
            f"{file}:{line}: the byte 0x{data[error.start]:02x} in {around!r} is not UTF-8, and the text is in no "
            "other encoding that can be told; save it as UTF-8"
        ) from None


def _strictly(data: bytes, codec: str, name: str, file: Path) -> str:
    try:
        return data.decode(codec).lstrip("\ufeff")
    except UnicodeDecodeError as error:
        line = data[: error.start].decode(codec, "ignore").count("\n") + 1
        raise ArtifactError(f"{file}:{line}: this is no {name} ({error.reason}); save it as UTF-8") from None


def _line(before: bytes) -> int:
    return len(re.findall(rb"\r\n|\r|\n", before)) + 1


def _western(word: str) -> bool:
    """Whether a word that came out of Windows-1252 is one: Cyrillic, Mac Roman and the like become heaps of accents,
    capitals behind small letters, or signs amid letters."""
    body = word.strip(SIGNS + "\"'()[]{}.:!?-")
    letters = [c for c in body if c not in "\u2019\u2013\u2014-'"]
    if any(not (c.isascii() or (c.isalpha() and c not in "\xaa\xb5\xba\u0192")) for c in letters):
        return False
    if any(small.islower() and capital.isupper() for small, capital in pairwise(letters)):
        return False
    accents = sum(not c.isascii() for c in letters)
    return accents <= 1 or accents <= len(letters) / 2


def _kind(data: bytes) -> str | None:
    if data.startswith(b"PK\x03\x04"):
        try:
            names = zipfile.ZipFile(io.BytesIO(data)).namelist()
        except zipfile.BadZipFile:
            return "a zip archive that is broken; copy it again"
        for part, kind in ZIPPED:
            if any(name.startswith(part) or name.endswith(part) for name in names):
                return kind
        return "an OpenDocument sheet" if "content.xml" in names else "a zip archive; unpack it first"
    for first, kind in KINDS:
        if data.startswith(first):
            return kind
    if re.match(rb"\s*<(!doctype html|html)", data[:200], re.IGNORECASE):
        return "a web page; download the file itself"
    if re.match(rb"\x80[\x02-\x05].", data, re.DOTALL) and data.endswith(b"."):
        return "a Python pickle, which is not read, since it may run code"
    return "a tar archive; unpack it first" if data[257:262] == b"ustar" else None
