"""Tables and lists as files: rows of CSV, TSV or Parquet with their line numbers, and lists of prompts."""

from __future__ import annotations

import csv
import gzip
import importlib
import importlib.util
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from router.errors import ArtifactError, did_you_mean

MAX_FIELD = 4_000_000  # characters of one field; beyond that a file is taken to be broken

Rows = Iterator[tuple[int, list[str]]]
"""(line number, fields), the header first."""


def read_table(file: Path) -> Rows:
    """Rows of a .parquet file, or of text: fields are parted by commas if it is called .csv, else by tabs.

    Raises `ArtifactError` with the file, and the line where there is one.
    """
    if not file.is_file():
        raise ArtifactError(f"{file}: there is no such table")
    if file.suffix == ".parquet":
        yield from _parquet(file)
        return
    comma = ".csv" in file.suffixes
    csv.field_size_limit(MAX_FIELD)
    # In TSV, a quotation mark is a character of the prompt like any other.
    reader = csv.reader(
        io.StringIO(_text(file)),
        delimiter="," if comma else "\t",
        quoting=csv.QUOTE_MINIMAL if comma else csv.QUOTE_NONE,
    )
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise ArtifactError(f"{file}:{reader.line_num}: {error}") from error


def place_of(name: str, header: list[str], file: Path) -> int:
    """The index of a column. Raises `ArtifactError` if the header does not have it."""
    if name not in header:
        raise ArtifactError(f"{file}:1: no column {name!r}{did_you_mean(name, header)}")
    return header.index(name)


def read_prompts(path: str | Path) -> list[str]:
    """Prompts of a text file with one a line, or of a table's column `prompt`, in their order, blank ones left out.

    Raises `ArtifactError` with file and line.
    """
    file = Path(path)
    if not file.is_file():
        raise ArtifactError(f"{file}: there is no such file of prompts")
    if {".csv", ".tsv", ".parquet"} & set(file.suffixes):
        rows = read_table(file)
        place = place_of("prompt", next(rows, (1, []))[1], file)
        prompts = [row[place] for _, row in rows if len(row) > place]
    else:
        prompts = [line.rstrip("\r") for line in _text(file).split("\n")]
    found = [prompt for prompt in prompts if prompt.strip()]
    if not found:
        raise ArtifactError(f"{file} holds no prompt; write one a line")
    return found


def _text(file: Path) -> str:
    data = file.read_bytes()
    try:
        return (gzip.decompress(data) if file.suffix == ".gz" else data).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ArtifactError(
            f"{file} cannot be read ({error}); it must be UTF-8 text, gzipped only if called .gz"
        ) from error


def _parquet(file: Path) -> Rows:
    """Its rows are counted as if the header were line 1."""
    if importlib.util.find_spec("pyarrow") is None:
        raise ArtifactError(
            f"{file}: reading Parquet needs pyarrow; run: pip install pyarrow, or save the table as TSV"
        )
    parquet: Any = importlib.import_module("pyarrow.parquet")
    try:
        table = parquet.read_table(file)
    except Exception as error:  # pyarrow has exception classes of its own
        raise ArtifactError(f"{file} cannot be read ({error})") from error
    yield 1, list(table.column_names)
    for line, row in enumerate(zip(*(column.to_pylist() for column in table.columns), strict=True), start=2):
        yield line, ["" if value is None else str(value) for value in row]
