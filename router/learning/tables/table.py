"""A table as it was read: a header, rows with their lines, and in which dialect."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from router.errors import ArtifactError, did_you_mean
from router.learning.tables.contents import PARQUET, Content, decoded, read_content
from router.learning.tables.dialects import DELIMITERS, Dialect, Row, parse
from router.learning.tables.numbers import Decimals
from router.learning.tables.records import is_json, json_rows, parquet_rows

KNOWN = (
    "prompt", "model", "recipe", "score", "group", "raters", "weight", "right", "model_a", "model_b", "winner", "loser",
)  # fmt: skip
SYNONYMS = {
    "prompt": ("text", "caption", "prompts", "prompt_text", "input"),
    "model": ("generator", "system", "method", "models", "recipes", "model_name", "name"),
    "score": ("rating", "ratings", "mos", "mean", "quality", "value", "scores", "human_score", "label"),
}
INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060"


@dataclass(frozen=True)
class Table:
    """header: names, trimmed;   rows: (line, fields, trimmed), as wide as the header;   read_as: in plain words;
    notes: what is to be said of it"""

    file: Path
    header: tuple[str, ...]
    rows: list[Row] = field(repr=False)
    read_as: str
    delimiter: str = ""
    line: int = 1
    notes: tuple[str, ...] = ()

    def has(self, name: str) -> bool:
        """Whether there is such a column, in capitals or small letters."""
        return any(known.lower() == name.lower() for known in self.header)

    def place(self, name: str) -> int:
        """The index of a column, in capitals or small letters. Raises `ArtifactError` if there is none, or two."""
        places = [k for k, known in enumerate(self.header) if known.lower() == name.lower()]
        if len(places) > 1:
            raise ArtifactError(f"{self.file}:{self.line}: the column {name!r} is there twice; keep one of them")
        if not places:
            raise ArtifactError(f"{self.file}:{self.line}: no column {name!r}{self.hint(name)}")
        return places[0]

    def hint(self, name: str) -> str:
        """The remedy where a column is missing."""
        lower = [known.lower() for known in self.header]
        for other in SYNONYMS.get(name, ()):
            if other in lower:
                return f"; did you mean {self.header[lower.index(other)]!r}? Then call it so"
        if len(self.header) == 1 and name in lower[0]:
            return f"; the whole header is one field, {self.header[0]!r}: part the fields by commas or tabs"
        if any(known and known.replace(".", "").replace(",", "").isdigit() for known in self.header):
            return "; the first line is no header: write the columns' names above it, such as prompt,model,score"
        return did_you_mean(name, [known for known in self.header if known])

    def decimals(self, places: Sequence[int]) -> Decimals:
        """How the numbers of some columns are written."""
        return Decimals.of((row[k] for _, row in self.rows for k in places), self.delimiter)

    def number(self, row: Row, place: int, decimals: Decimals) -> float:
        """The number in a field. Raises `ArtifactError` with line and column."""
        return decimals.number(row[1][place], self.header[place], place + 1, f"{self.file}:{row[0]}")


def read_table(file: Path, what: str = "table") -> Table:
    """Any file of rows: text of any dialect, JSON Lines, JSON, Parquet, each perhaps gzipped. What it is, its content
    says, not its name. what: it is called in messages.

    Raises `ArtifactError` with the line of what breaks, or the name of what it is.
    """
    return table_of(read_content(file, what), file)


def table_of(content: Content, file: Path) -> Table:
    """The table that a file's content holds; see `read_table`."""
    packed = ", gzipped" if content.packed else ""
    if content.data.startswith(PARQUET):
        return _table(file, parquet_rows(content.data, file), f"Parquet{packed}")
    text, encoding = decoded(content.data, file)
    text = text.lstrip(INVISIBLE)
    if not text.strip():
        raise ArtifactError(f"{file} is empty; its first line names the columns: prompt, model, score")
    if is_json(text):
        form = "a JSON array" if text.lstrip().startswith("[") else "JSON Lines"
        return _table(file, json_rows(text, file), f"{form}, {encoding}{packed}")
    parsed = parse(text, file, KNOWN)
    marks = f" {_marks(parsed.dialect)}" if '"' in text else ""
    ends = ", lines that end with a carriage return" if "\r" in text and "\n" not in text else ""
    spoken = f"{DELIMITERS[parsed.dialect.delimiter]}{marks}, {encoding}{ends}{packed}"
    return _table(file, parsed.rows, spoken, parsed.dialect.delimiter, parsed.notes)


def _marks(dialect: Dialect) -> str:
    return "with escaped quotes" if dialect.escaped else "with quotes" if dialect.quoted else "without quotes"


def _table(file: Path, rows: Sequence[Row], read_as: str, delimiter: str = "", notes: tuple[str, ...] = ()) -> Table:
    line, header = rows[0]
    names = tuple(trimmed(name) for name in header)
    twice = [name for name, count in Counter(name for name in names if name).items() if count > 1]
    if twice:
        raise ArtifactError(f"{file}:{line}: the column {twice[0]!r} is there twice; keep one of them")
    body = [(at, [trimmed(value) for value in row]) for at, row in rows[1:]]
    body = [row for row in body if any(row[1])]
    padded = sum(value != value.strip(" ") for _, row in rows[1:] for value in row)
    if padded:
        notes = (*notes, f"spaces at the ends of fields are left out ({padded} fields)")
    return Table(file, names, body, read_as, delimiter, line, notes)


def trimmed(text: str) -> str:
    """A text without blanks and invisible characters at its ends."""
    before = None
    while before != text:
        before, text = text, text.strip().strip(INVISIBLE)
    return text
