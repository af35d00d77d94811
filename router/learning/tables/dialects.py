"""The dialect of a text table: what parts its fields, and whether quotation marks are syntax or a part of the text.

With commas, semicolons and bars, a field may stand in quotation marks, doubled inside (RFC 4180), or after a backslash
as R writes them. With tabs both habits are common: pandas, R and Excel quote, others do not, and then `"STOP" sign`
begins with a quotation mark that means something. Such a table is read as quoted only if a program that quotes would
have written it so.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from router.errors import ArtifactError

MAX_FIELD = 4_000_000  # characters of one field; beyond that a file is taken to be broken
DELIMITERS = {"\t": "tab-separated", ",": "comma-separated", ";": "semicolon-separated", "|": "bar-separated"}
_WHOLE = re.compile(r'"(?:[^"]|"")*"')
_NUMBER = re.compile(r"[-+]?[\d.,]+")
_DOUBLE = 'write one that belongs to the text twice, in a field that stands in quotation marks: "a ""red"" sign"'

Row = tuple[int, list[str]]
"""(line on which it begins, fields)."""


@dataclass(frozen=True)
class Dialect:
    """quoted: whether fields may stand in quotation marks; escaped: whether those inside are \\" instead of "\""""

    delimiter: str
    quoted: bool
    escaped: bool = False


@dataclass(frozen=True)
class Parsed:
    """rows: the header first, blank ones left out, all as wide as the header;   notes: what was understood or kept"""

    rows: list[Row]
    dialect: Dialect
    notes: tuple[str, ...] = ()


class _Broken(Exception):
    """A row that does not follow a dialect."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(line, why)
        self.line, self.why = line, why


def parse(text: str, file: Path, known: Sequence[str]) -> Parsed:
    """The rows of a table. known: lower-case names that its header may have, which tell what parts them.

    Raises `ArtifactError` with the line of the row that breaks.
    """
    csv.field_size_limit(MAX_FIELD)
    first = 1
    said = re.match(r"\s*sep=(.)\r?\n?", text, re.IGNORECASE)  # Excel's own
    if said and said[1] in DELIMITERS:
        text, first = text[said.end() :], 2
    delimiter = said[1] if said and said[1] in DELIMITERS else _delimiter(text, file, known)
    try:
        if re.match(r'\s*"[^"\r\n]*"(?: "[^"\r\n]*")+\s*?[\r\n]', text):
            raise _Broken(1, 'its fields are parted by spaces; write commas or tabs, such as sep="\\t" in R')
        rows, dialect, kept = _tabbed(text, file, first) if delimiter == "\t" else _quoted(text, delimiter)
        rows, wide = _as_wide_as_the_header(rows)
    except _Broken as broken:
        raise ArtifactError(f"{file}:{broken.line + first - 1}: {broken.why}") from None
    return Parsed([(line + first - 1, row) for line, row in rows], dialect, (*kept, *wide))


def _delimiter(text: str, file: Path, known: Sequence[str]) -> str:
    """What parts the header into the most known names; of equals, into the most fields, the file's ending first."""
    lines = [line for line in re.split(r"\r\n|\r|\n", text[:MAX_FIELD], maxsplit=20) if line.strip()]
    header = lines[0] if lines else ""
    usual = "," if ".csv" in [suffix.lower() for suffix in file.suffixes] else "\t"

    def fitness(delimiter: str) -> tuple[int, int, bool]:
        names = [name.strip(' "\ufeff').lower() for name in header.split(delimiter)]
        return sum(name in known for name in names), len(names), delimiter == usual

    return max(DELIMITERS, key=fitness)


def _quoted(text: str, delimiter: str) -> tuple[list[Row], Dialect, list[str]]:
    try:
        rows = _strict(text, delimiter)
    except _Broken:
        if '\\"' not in text:
            raise
        try:
            return _strict(_doubly_escaped(text), delimiter, escaped=True), Dialect(delimiter, True, True), []
        except _Broken:
            pass
        raise
    return rows, Dialect(delimiter, True), []


def _tabbed(text: str, file: Path, first: int) -> tuple[list[Row], Dialect, list[str]]:
    """Rows of a tab-separated table, of the two readings that which a program would have written."""
    plain = _plain(text)
    as_is = plain, Dialect("\t", False), list[str]()
    if '"' not in text or not plain:
        return as_is
    marked = [(line, field) for line, row in plain for field in row if '"' in field]
    header_quoted = all(_WHOLE.fullmatch(field.strip()) for field in plain[0][1])
    doubled = any(_WHOLE.fullmatch(field) and '""' in field[1:-1] for _, field in marked)
    try:
        quoted: list[Row] | None = _fitting(_strict(text, "\t"))
    except _Broken as broken:
        quoted, why = None, broken
        if header_quoted:
            if '\\"' not in text:
                raise
            try:
                return _fitting(_strict(_doubly_escaped(text), "\t", escaped=True)), Dialect("\t", True, True), []
            except _Broken:
                raise why from None
    plain_fits = _fits(plain)
    if quoted is None:
        if doubled and not plain_fits:
            raise why
        return as_is
    as_quoted = quoted, Dialect("\t", True), list[str]()
    if not plain_fits:
        return as_quoted
    if not all(_WHOLE.fullmatch(field) for _, field in marked):
        return as_is  # a program that quotes leaves no field like that
    with_commas = {field for _, row in plain[1:] for field in row if "," in field}
    full = [all(_WHOLE.fullmatch(v) for v in values) for values in zip(*(row for _, row in plain[1:]), strict=True)]
    if header_quoted or doubled or sum(full) > 1 or (with_commas == {f for _, f in marked} and len(with_commas) > 1):
        return as_quoted
    if any(full) and len({field for _, field in marked}) > 1:
        name = plain[0][1][full.index(True)]
        raise ArtifactError(
            f"{file}:{marked[0][0] + first - 1}: every {name!r} stands in quotation marks, and nothing says whether "
            "they belong to the text; save the table as CSV, or put the header in quotation marks, too, if they do not"
        )
    line, field = marked[0]
    note = f"line {line + first - 1}: {field[:40]} stands in quotation marks; they are kept, as a part of the text"
    return plain, Dialect("\t", False), [note]


def _plain(text: str) -> list[Row]:
    lines = re.split(r"\r\n|\r|\n", text)
    return [(k, line.split("\t")) for k, line in enumerate(lines, start=1) if line.strip()]


def _strict(text: str, delimiter: str, escaped: bool = False) -> list[Row]:
    """Rows by the rules of quotation marks. Raises `_Broken` with the line on which the row begins that breaks them,
    also where a lone quotation mark would make one row of several."""
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=_spaced(text, delimiter),
        doublequote=not escaped, escapechar="\\" if escaped else None,
    )  # fmt: skip
    rows: list[Row] = []
    tall: list[tuple[int, int]] = []
    begin = 1
    try:
        for row in reader:
            if any(field.strip() for field in row):
                rows.append((begin, row))
                if reader.line_num > begin:
                    tall.append((begin, reader.line_num))
            begin = reader.line_num + 1
    except csv.Error as error:
        size = "field larger" in str(error)
        why = f"a field of more than {MAX_FIELD:,} characters" if size else "its quotation marks do not match"
        raise _Broken(begin, f"{why}; {_DOUBLE}") from None
    if tall:
        _no_row_swallowed(text, delimiter, rows, tall)
    return rows


def _spaced(text: str, delimiter: str) -> bool:
    """Whether the header has a space behind each delimiter, so that quotation marks may come after one."""
    header = re.split(r"[\r\n]", text.lstrip(), maxsplit=1)[0]
    return delimiter != "\t" and delimiter in header and not re.search(re.escape(delimiter) + r"(?! )", header)


def _no_row_swallowed(text: str, delimiter: str, rows: list[Row], tall: list[tuple[int, int]]) -> None:
    """Of a row that goes over several lines, the first and the last must not be rows by themselves.

    tall: where such rows begin and end
    """
    lines = re.split(r"\r\n|\r|\n", text)
    width, begins = len(rows[0][1]), {begin for begin, _ in tall}
    flat = [row for line, row in rows[1:] if line not in begins and len(row) == width][:1000]
    numeric = [bool(flat) and all(_NUMBER.fullmatch(row[k].strip()) for row in flat) for k in range(width)]

    def is_row(line: int) -> bool:
        fields = lines[line - 1].split(delimiter)
        if len(fields) != width or width == 1:
            return False
        return all(_NUMBER.fullmatch(f.strip(' "')) for f, number in zip(fields, numeric, strict=True) if number)

    for begin, end in tall:
        if is_row(begin) and is_row(end):
            raise _Broken(begin, f"its quotation mark would make one row of lines {begin} to {end}; {_DOUBLE}")


def _doubly_escaped(text: str) -> str:
    """R escapes quotation marks only: each other backslash is one."""
    return re.sub(r'\\(?!")', r"\\\\", text)


def _fits(rows: Sequence[Row]) -> bool:
    try:
        return bool(_as_wide_as_the_header(list(rows)))
    except _Broken:
        return False


def _fitting(rows: list[Row]) -> list[Row]:
    _as_wide_as_the_header(rows)
    return rows


def _as_wide_as_the_header(rows: list[Row]) -> tuple[list[Row], list[str]]:
    """All rows as wide as the header. R names rows without naming that column; some programs end each row with a
    delimiter. Raises `_Broken` for a row of another width."""
    if not rows:
        return rows, []
    width, body = len(rows[0][1]), rows[1:]
    if body and all(len(row) == width + 1 for _, row in body):
        if all(not row[-1].strip() for _, row in body):
            return [rows[0], *((line, row[:-1]) for line, row in body)], []
        names = {row[0].strip('"') for _, row in body}
        if len(names) == len(body) and all(re.fullmatch("[0-9]+", name) for name in names):
            return [rows[0], *((line, row[1:]) for line, row in body)], ["names of rows, as R writes them, left out"]
    for line, row in body:
        if len(row) != width:
            raise _Broken(line, f"{len(row)} fields where the header has {width}")
    return rows, []
