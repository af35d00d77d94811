"""Bytes, records and numbers of tables: what is told apart by one byte, digit or bracket more."""

from __future__ import annotations

import importlib.machinery
import io
import json
import sys
import tarfile
import types
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.errors import ArtifactError
from router.learning.tables.contents import _western, decoded, read_content
from router.learning.tables.numbers import Decimals
from router.learning.tables.prompts import read_prompts
from router.learning.tables.records import is_json, json_rows, parquet_rows
from router.learning.tables.table import read_table

FILE = Path("r.csv")


def save(folder: Path, data: str | bytes, name: str = "r.csv") -> Path:
    file = folder / name
    file.write_bytes(data if isinstance(data, bytes) else data.encode())
    return file


# ---------------------------------------------------------------------------------------------------------------- bytes


@given(
    st.text(st.characters(min_codepoint=32, max_codepoint=0xFF), min_size=3, max_size=9),
    st.text(st.characters(codec="utf-16", exclude_characters="\ufeff"), max_size=9),
    st.sampled_from(["utf-16-le", "utf-16-be"]),
)
@settings(max_examples=60, deadline=None)
def test_utf_16_without_its_mark_is_told_by_its_first_characters(head: str, tail: str, codec: str) -> None:
    """Three of the Latin alphabet are enough, if there are no more than three; of longer texts, four; whatever follows
    is decoded with them."""
    wanted = head + tail
    if len(wanted) > 3 and not 0 < ord(wanted[3]) <= 0xFF:
        wanted = head[:3]
    assert decoded(wanted.encode(codec), FILE) == (wanted, "UTF-16")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"a\0b\0", "a\0b\0"),  # too short to tell
        (b"ab\0cdefgh", "ab\0cdefgh"),  # one such byte is none of a pair
        (b"a\0\0\0b\0\0\0c\0\0\0", "a\0\0\0b\0\0\0c\0\0\0"),
        (b"\0a\0b\0\0\0c", "\0a\0b\0\0\0c"),
        (b"abcdefg\0", "abcdefg\0"),
        (b"\0" * 8, "\0" * 8),
    ],
)
def test_other_zeros_do_not_make_it_utf_16(data: bytes, text: str) -> None:
    """Every second byte of the first eight must be 0, and the others must not."""
    assert decoded(data, FILE) == (text, "UTF-8")


def test_the_byte_that_no_encoding_has_is_shown_with_what_stands_around_it() -> None:
    """Twelve bytes before it and eleven behind, or what there is, and its line, whatever ends lines."""
    for data, line, shown in (
        (b"\x81\r\n\xff\xfe0123456789abcdef", 1, b"\x81\r\n\xff\xfe0123456"),
        (b"x\r\ny\rz\n0123456789abcdefgh\xc3\xa9\x81ijklmnopqrstuvwxyz", 4, b"89abcdefgh\xc3\xa9\x81ijklmnopqrs"),
    ):
        with pytest.raises(ArtifactError) as refused:
            decoded(data, FILE)
        around = shown.decode("ascii", "backslashreplace")
        assert str(refused.value).startswith(f"r.csv:{line}: the byte 0x81 in {around!r} is not UTF-8")


def test_where_utf_16_breaks_its_line_is_told(tmp_path: Path) -> None:
    """Half a pair on the third line is on the third line."""
    data = b"\xff\xfe" + "prompt\na\nb".encode("utf-16-le") + b"\x00\xd8"
    with pytest.raises(ArtifactError, match=r"r\.csv:3: this is no UTF-16"):
        read_table(save(tmp_path, data))


@pytest.mark.parametrize(
    ("word", "western"),
    [("\u00e9t\u00e9s", True), ("\u00e0\u00e9", False), ("Caf\u00e9", True), ("o\u00bao", False)],
)
def test_half_of_the_letters_may_have_accents(word: str, western: bool) -> None:
    """Of several, not more; a capital begins a word."""
    assert _western(word) is western


def test_a_file_is_told_from_a_folder_and_from_nothing(tmp_path: Path) -> None:
    """Each with what was asked for."""
    with pytest.raises(ArtifactError, match="is a folder; name the ratings table's file"):
        read_content(tmp_path, "ratings table")
    with pytest.raises(ArtifactError, match="there is no such table"):
        read_content(tmp_path / "nothing")


def test_archives_are_named(tmp_path: Path) -> None:
    """A tar archive by its bytes 257 to 261, a zip archive that is none as broken; each with one remedy."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("r.csv"))
    for content, says in (
        (data.getvalue(), "is a tar archive; unpack it first$"),
        (b"PK\x03\x04 and nothing", "is a zip archive that is broken; copy it again$"),
        (b"%PDF-1.7", "is a PDF; export it as CSV in UTF-8, and give that$"),
    ):
        with pytest.raises(ArtifactError, match=says):
            read_content(save(tmp_path, content))


def test_what_only_ends_or_only_begins_like_a_pickle_is_none(tmp_path: Path) -> None:
    """A list of prompts may end with a full stop."""
    assert read_prompts(save(tmp_path, "a cat.", "p.txt")) == ["a cat."]
    with pytest.raises(ArtifactError, match="the byte 0x80"):
        read_table(save(tmp_path, b"\x80\x04\x81 and so on"))


# -------------------------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("nan", "not a number (column 3); leave the row out if it is missing"),
        ("-NA", "not a number (column 3); leave the row out if it is missing"),
        ("-inf", "which is not finite (column 3); leave the row out if it is missing"),
        ("1e999", "which is not finite (column 3); leave the row out if it is missing"),
        ("1,5", "which may be a decimal comma or a typing error (column 3); write a decimal point"),
        ("5\u00bd", "not a number in the digits 0 to 9 (column 3); write it in those"),
        ("\u0663", "not a number in the digits 0 to 9 (column 3); write it in those"),
        ("4_5", "not a number (column 3); write the digits 0 to 9 with a decimal point"),
        ("five", "not a number (column 3); write the digits 0 to 9 with a decimal point"),
    ],
)
def test_what_is_no_number_has_its_own_remedy(written: str, why: str) -> None:
    """Missing, infinite, a decimal comma, other digits, anything else: each is told what to do."""
    with pytest.raises(ArtifactError) as refused:
        Decimals().number(written, "score", 3, "r.csv:2")
    assert str(refused.value) == f"r.csv:2: score is {written!r}, {why}"


@pytest.mark.parametrize(
    ("texts", "delimiter", "comma"),
    [
        (["3,5", "2,5"], "\t", True),
        (["3,5", "4"], "\t", False),  # one is a typing error
        (["3,5", "4"], ";", True),  # but for what semicolons are for
        (["3,5", "2,5"], ",", False),
        (["3", "2"], ";", False),
        (["3,5", "2,5", "1.5"], ";", False),
        (["1,500", "2,250"], "\t", False),  # thousands
        (["1,500", "2,250", "3,5"], "\t", True),  # not all of them
        (["0,500", "2,250"], "\t", True),
        ([" 3,5 ", "2,5", ""], "\t", True),
    ],
)
def test_a_decimal_comma_needs_evidence(texts: list[str], delimiter: str, comma: bool) -> None:
    """Several commas that part no thousands, no point; one will do between semicolons, none between commas."""
    assert Decimals.of(texts, delimiter) == Decimals(comma)


def test_a_table_with_decimal_commas_may_have_whole_numbers() -> None:
    """Both are numbers there; where points are used, a comma is none."""
    assert [Decimals(True).number(text, "score", 1, "") for text in ("3,5", "-4", " +0,25 ")] == [3.5, -4.0, 0.25]
    assert not Decimals().comma


# -------------------------------------------------------------------------------------------------------------- records


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('[{"a": 1}] x', ":1:11: not valid JSON (something follows the array)"),
        ('[{"a": 1}\n {"a": 2}]', ":2:2: not valid JSON (a comma or the end of the array is missing)"),
        ('[{"a": 1}, ', ":1:12: not valid JSON"),
        ('[{"a": 1} ', ":1:11: not valid JSON (a comma or the end of the array is missing)"),
        ('\n[\r\n{"a": 1},\r{"a": 1, "a": 2}]\n', ":4: 'a' is there twice"),
        ('\n[\n{"a": 1},\n\n7]\n', ':5: "7" is no object'),
        ('{"a": 1}\n\n{"a": 1,\n', ":3:9: not valid JSON"),
        ('{"a": 1}\r\n\n{"a": 2, "a": 3}\n', ":3: 'a' is there twice"),
        ('{"prompt": {"x": 1}, "b": 1}\n{"prompt": "a"}\n', ":1: 'prompt' is a JSON object, not a text"),
        ('{"prompt": "a"}\n{"Model ": ["x"]}\n', ":2: 'Model ' is a list, not a text"),
        ('{"prompt": "a", "x": [1]}', " is one JSON object ('prompt', 'x')"),
        ('{"prompt": {"0": "a"}, "x": 1}', " is one JSON object ('prompt', 'x')"),
        ('{\n"a": 1}', " is one JSON object ('a')"),
    ],
)
def test_json_that_breaks_is_refused_where_it_does(text: str, where: str) -> None:
    """With line and column of the file, whatever ends its lines."""
    with pytest.raises(ArtifactError) as refused:
        json_rows(text, FILE)
    assert str(refused.value).startswith(f"r.csv{where}")


@pytest.mark.parametrize("text", ['[{"a": 1.50, "b": null}, {"c": [1]}]\n', '{"a": 1.50, "b": null}\n\n{"c": [1]}'])
def test_records_are_rows_under_all_of_their_names(text: str) -> None:
    """Names in the order in which they come, numbers as they are written, nothing where there is nothing."""
    (line, header), *rows = json_rows(text, FILE)
    assert (line, header) == (1, ["a", "b", "c"])
    assert [row for _, row in rows] == [["1.50", "", ""], ["", "", '["1"]']]
    assert [line for line, _ in rows] == ([1, 1] if text[0] == "[" else [1, 3])


def test_one_record_is_a_row() -> None:
    """An object of texts and numbers alone is one; an array may be empty."""
    assert json_rows('{"a": "x", "b": 2}', FILE)[1:] == [(1, ["x", "2"])]
    assert json_rows("[\n]\n", FILE) == [(1, [])]


def test_a_raw_tab_in_a_text_of_json_is_read() -> None:
    """As many programs write it, though the standard wants it escaped."""
    assert json_rows('{"prompt": "a\tb"}\n', FILE)[1] == (1, ["a\tb"])


@given(
    st.lists(
        st.dictionaries(st.text(max_size=3), st.one_of(st.text(max_size=4), st.none(), st.booleans()), max_size=3),
        min_size=2,
        max_size=4,
    ),
    st.sampled_from([None, 0, 2]),
    st.text(" \t\n\r", max_size=3),
)
@settings(max_examples=80, deadline=None)
def test_records_come_back_however_they_are_laid_out(
    rows: list[dict[str, Any]], indent: int | None, blank: str
) -> None:
    """An array with any indentation and any blanks around, and lines, hold the same rows."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    wanted = [["" if row.get(name) is None else str(row[name]) for name in names] for row in rows]
    array = json_rows(f"{blank}{json.dumps(rows, indent=indent)}{blank}", FILE)
    lines = json_rows("\n".join(map(json.dumps, rows)) + blank, FILE)
    assert array[0][1] == lines[0][1] == names
    assert [row for _, row in array[1:]] == [row for _, row in lines[1:]] == wanted
    assert [line for line, _ in lines[1:]] == list(range(1, len(rows) + 1))


@pytest.mark.parametrize(
    ("text", "json_"), [("{}", True), ('{"a"', True), ("[]", True), ("[{", True), ("{red|blue}", False), ("[a]", False)]
)
def test_braces_alone_are_no_json(text: str, json_: bool) -> None:
    """An object begins with a name, an array with an object."""
    assert is_json(text) is json_


class _Column(list):  # type: ignore[type-arg]
    to_pylist = list.copy


def test_rows_of_parquet_are_counted_below_their_header(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first row is line 2, as it would be in a text; what pyarrow cannot read is refused with its words."""
    table = types.SimpleNamespace(columns=[_Column(["a", "b"]), _Column([1.5, None])], column_names=["prompt", "sd15"])
    module: Any = types.ModuleType("pyarrow.parquet")
    module.read_table = lambda data: table
    whole: Any = types.ModuleType("pyarrow")
    whole.__spec__ = importlib.machinery.ModuleSpec("pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow", whole)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", module)
    assert parquet_rows(b"PAR1", FILE) == [(1, ["prompt", "sd15"]), (2, ["a", "1.5"]), (3, ["b", ""])]
    table.columns[0] = _Column(["a", ["b"]])
    with pytest.raises(ArtifactError, match=r"r\.csv:3: 'prompt' is a list, not a text"):
        parquet_rows(b"PAR1", FILE)
    del module.read_table
    with pytest.raises(ArtifactError, match=r"r\.csv cannot be read \(.*read_table"):
        parquet_rows(b"PAR1", FILE)


# -------------------------------------------------------------------------------------------------------------- prompts


@pytest.mark.parametrize(
    ("name", "text", "prompts"),
    [
        ("p.txt", "prompt, a cat\n", ["prompt, a cat"]),  # one line is a prompt
        ("p.txt", "prompt\na cat\n", ["prompt", "a cat"]),  # so is one word
        ("p.txt", "Prompt;x\na cat;1\n", ["a cat"]),
        ("p.txt", '"prompt"|x\na cat|1\n', ["a cat"]),
        ("p.txt", "a cat, a prompt\nb, c\n", ["a cat, a prompt", "b, c"]),
        ("p.txt", '{"a": 1}\n{red|blue} circle\n', ['{"a": 1}', "{red|blue} circle"]),
        ("p.txt", '\ufeff\u200b[{"prompt": "a"}]', ["a"]),
        ("my.csv.notes.txt", "prompt\na cat\n", ["prompt", "a cat"]),
        ("my.csv.gz", "prompt\na cat\n", ["a cat"]),
        ("my.csv", "prompt,x\na cat,1\n,2\n", ["a cat"]),
    ],
)
def test_a_list_of_prompts_is_a_table_only_if_it_says_so(
    tmp_path: Path, name: str, text: str, prompts: list[str]
) -> None:
    """By what it is called, or by a first line with several names of which `prompt` is one, above others."""
    assert read_prompts(save(tmp_path, text, name)) == prompts
