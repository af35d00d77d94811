"""A file of prompts: a text file with one a line, or a table with a column `prompt`."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

from router.errors import ArtifactError, did_you_mean
from router.learning.ratings import MAX_FIELD

TABLES = {".tsv": "\t", ".csv": ","}


def read_prompts(path: str | Path) -> list[str]:
    """Prompts in the order of the file, blank lines left out. Raises `ArtifactError` with file and line."""
    file = Path(path)
    if not file.is_file():
        raise ArtifactError(f"{file}: there is no such file of prompts")
    data = file.read_bytes()
    try:
        text = (gzip.decompress(data) if file.suffix == ".gz" else data).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{file} cannot be read ({error}); it must be UTF-8 text") from error
    ending = next((suffix for suffix in file.suffixes if suffix in TABLES), None)
    if ending is None:
        prompts = [line.rstrip("\r") for line in text.split("\n")]
    else:
        csv.field_size_limit(MAX_FIELD)
        comma = ending == ".csv"
        rows = csv.reader(
            io.StringIO(text), delimiter=TABLES[ending], quoting=csv.QUOTE_MINIMAL if comma else csv.QUOTE_NONE
        )
        header = next(rows, [])
        if "prompt" not in header:
            raise ArtifactError(f"{file}:1: no column 'prompt'{did_you_mean('prompt', header)}")
        place = header.index("prompt")
        prompts = [row[place] for row in rows if len(row) > place]
    found = [prompt for prompt in prompts if prompt.strip()]
    if not found:
        raise ArtifactError(f"{file} holds no prompt; write one a line")
    return found
