"""Lists of prompts: a text with one a line, or a table of any form with a column `prompt`."""

from __future__ import annotations

import json
import re
from pathlib import Path

from router.errors import ArtifactError
from router.learning.tables.contents import PARQUET, decoded, read_content
from router.learning.tables.dialects import DELIMITERS
from router.learning.tables.records import is_json
from router.learning.tables.table import INVISIBLE, Table, table_of, trimmed

TABLES = {".csv", ".tsv", ".tab", ".json", ".jsonl", ".ndjson", ".parquet"}


def read_prompts(path: str | Path) -> list[str]:
    """Prompts of a text file with one a line, or of a table's column `prompt`, in their order, trimmed, blank ones left
    out. A file that is called otherwise is a table if its content says so: its first line names several columns, one of
    them `prompt`, or each line is a JSON object.

    Raises `ArtifactError` with file and line, or for what is neither.
    """
    file = Path(path)
    content = read_content(file, "file of prompts")
    named = {suffix.lower() for suffix in file.suffixes[-2:]} & TABLES
    if named or content.data.startswith(PARQUET):
        prompts = _column(table_of(content, file))
    else:
        text = decoded(content.data, file)[0].lstrip(INVISIBLE)
        lines = [trimmed(line) for line in re.split(r"\r\n|\r|\n", text)]
        lines = [line for line in lines if line]
        prompts = _column(table_of(content, file)) if lines and _is_table(text, lines) else lines
    if not prompts:
        raise ArtifactError(f"{file} holds no prompt; write one a line")
    return prompts


def _column(table: Table) -> list[str]:
    place = table.place("prompt")
    return [row[place] for _, row in table.rows if row[place]]


def _is_table(text: str, lines: list[str]) -> bool:
    if is_json(text):
        return text.lstrip().startswith("[") or all(map(_is_object, lines))
    names = ([name.strip(' "').lower() for name in lines[0].split(delimiter)] for delimiter in DELIMITERS)
    return len(lines) > 1 and any(len(found) > 1 and "prompt" in found for found in names)


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
