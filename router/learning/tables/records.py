"""Rows of JSON Lines, of a JSON array of objects, and of Parquet."""

from __future__ import annotations

import importlib
import importlib.util
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from router.errors import ArtifactError
from router.learning.tables.dialects import Row

Record = dict[str, Any]


def is_json(text: str) -> bool:
    """Whether a text begins as JSON does: with an object or an array of objects that can be read or nearly so."""
    return re.match(r'\s*(\{\s*("|\})|\[\s*(\{|\]))', text) is not None


def json_rows(text: str, file: Path) -> list[Row]:
    """The header, of all names in the order in which they come, and a row for each object. Numbers stay as written.

    Raises `ArtifactError` with line and column.
    """
    given = list(_objects(text, file))
    if len(given) == 1 and any(isinstance(value, list | dict) for value in given[0][1].values()):
        raise _one_object(given[0][1], file)
    names = list(dict.fromkeys(name for _, record in given for name in record))
    return [
        (1, names),
        *((line, [_text(record.get(name), name, f"{file}:{line}") for name in names]) for line, record in given),
    ]


def parquet_rows(data: bytes, file: Path) -> list[Row]:
    """Header and rows of a Parquet file; rows are counted as if the header were line 1."""
    if importlib.util.find_spec("pyarrow") is None:
        raise ArtifactError(
            f"{file}: reading Parquet needs pyarrow; run: pip install -c constraints.txt -e '.[parquet]', or save the "
            "table as CSV"
        )
    parquet: Any = importlib.import_module("pyarrow.parquet")
    try:
        table = parquet.read_table(io.BytesIO(data))
        columns = [column.to_pylist() for column in table.columns]
    except Exception as error:  # pyarrow has exception classes of its own
        raise ArtifactError(f"{file} cannot be read ({error})") from error
    names = [str(name) for name in table.column_names]
    rows = [
        (line, [_text(value, name, f"{file}:{line}") for name, value in zip(names, row, strict=True)])
        for line, row in enumerate(zip(*columns, strict=True), start=2)
    ]
    return [(1, names), *rows]


def _objects(text: str, file: Path) -> Iterator[tuple[int, Record]]:
    """(line, object) of each object."""
    if text.lstrip().startswith("["):
        yield from _array(text, file)
        return
    decoder = _decoder()
    for line, written in enumerate(re.split(r"\r\n|\r|\n", text), start=1):
        if not written.strip():
            continue
        try:
            yield line, _record(decoder.decode(written), f"{file}:{line}")
        except json.JSONDecodeError as error:
            whole = _whole(text)
            if whole is not None:
                raise _one_object(whole, file) from None
            raise ArtifactError(f"{file}:{line}:{error.colno}: not valid JSON ({error.msg})") from None
        except _Twice as error:
            raise ArtifactError(f"{file}:{line}: {error.args[0]!r} is there twice") from None


def _array(text: str, file: Path) -> Iterator[tuple[int, Record]]:
    decoder = _decoder()
    at, line = text.index("[") + 1, 1
    seen = 0
    try:
        while True:
            at = _over(text, at, " \t\r\n")
            if text[at : at + 1] == "]":
                if text[at + 1 :].strip():
                    raise json.JSONDecodeError("something follows the array", text, at + 1)
                return
            line += len(re.findall(r"\r\n|\r|\n", text[seen:at]))
            seen = at
            found, at = decoder.raw_decode(text, at)
            yield line, _record(found, f"{file}:{line}")
            at = _over(text, at, " \t\r\n")
            if text[at : at + 1] == ",":
                at += 1
            elif text[at : at + 1] != "]":
                raise json.JSONDecodeError("a comma or the end of the array is missing", text, at)
    except json.JSONDecodeError as error:
        raise ArtifactError(f"{file}:{error.lineno}:{error.colno}: not valid JSON ({error.msg})") from None
    except _Twice as error:
        raise ArtifactError(f"{file}:{line}: {error.args[0]!r} is there twice") from None


class _Twice(Exception):
    """A name that an object has twice."""


def _decoder() -> json.JSONDecoder:
    def once(pairs: list[tuple[str, Any]]) -> Record:
        found: Record = {}
        for name, value in pairs:
            if name in found:
                raise _Twice(name)
            found[name] = value
        return found

    return json.JSONDecoder(
        object_pairs_hook=once, parse_float=_Written, parse_int=_Written, parse_constant=_Written, strict=False
    )


class _Written(str):
    """A number as it was written."""


def _record(found: Any, where: str) -> Record:
    if not isinstance(found, dict):
        raise ArtifactError(
            f'{where}: {json.dumps(found)[:40]} is no object; write {{"prompt": ..., ...}} for each row'
        )
    return found


def _whole(text: str) -> Record | None:
    """A text that is one JSON object as a whole."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _one_object(found: Record, file: Path) -> ArtifactError:
    return ArtifactError(
        f"{file} is one JSON object ({', '.join(map(repr, list(found)[:4]))}); write an object for each row, such as "
        "df.to_json(..., orient='records', lines=True)"
    )


def _text(value: Any, name: str, where: str) -> str:
    if value is None:
        return ""
    if isinstance(value, list | dict):
        if name.strip().lower() in ("prompt", "model", "recipe", "winner", "group"):
            raise ArtifactError(f"{where}: {name!r} is {_shown(value)}, not a text")
        return json.dumps(value)
    return str(value)


def _shown(value: Sequence[Any] | Record) -> str:
    return f"a {'list' if isinstance(value, list) else 'JSON object'}"


def _over(text: str, at: int, blank: str) -> int:
    while at < len(text) and text[at] in blank:
        at += 1
    return at
