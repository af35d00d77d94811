"""What parts the fields of a table, and which quotation marks are syntax: each form beside one that nearly has it."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.errors import ArtifactError
from router.learning.tables.dialects import MAX_FIELD, Dialect, Parsed, parse
from router.learning.tables.table import KNOWN, Table, read_table

FILE = Path("r.csv")
HEAD = "prompt\tmodel\tscore"


def fields(text: str, file: Path = FILE) -> list[list[str]]:
    """The fields of all rows below the header."""
    return [row for _, row in parse(text, file, KNOWN).rows[1:]]


def tsv(*rows: str, head: str = HEAD) -> Parsed:
    return parse("\n".join([head, *rows]) + "\n", Path("r.tsv"), KNOWN)


def prompts(parsed: Parsed) -> list[str]:
    return [row[0] for _, row in parsed.rows[1:]]


def plain(field: str) -> str:
    """What a field says that a program may have put into quotation marks."""
    return field[1:-1].replace('""', '"') if field.startswith('"') else field


def read(folder: Path, text: str, name: str = "r.csv") -> Table:
    file = folder / name
    file.write_bytes(text.encode())
    return read_table(file)


# ------------------------------------------------------------------------------------------------------------ delimiter


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("sep=;\nprompt;model;score\na;sd15;1\nb;sd15;2;3\n", 4),
        ("sep=,\r\nprompt,model,score\r\na,sd15,1\r\nb,sd15\r\n", 4),
        ('sep=;\n"prompt" "model" "score"\n"a" "b" "c"\n', 2),
        ('sep=,\nprompt,model,score\na,sd15,1\n"never closed,sd15,4\n', 4),
        ("sep=\t\nprompt\tmodel\tscore\na\tsd15\n", 3),
        ('sep=\t\nprompt\tmodel\tscore\n"STOP"\tsd15\t1\n"GO"\tsd15\t2\n', 3),
    ],
)  # fmt: skip
def test_lines_are_counted_from_the_first_one_of_the_file(text: str, line: int) -> None:
    """Excel's own first line, which names the delimiter, is counted like any other when something breaks below it."""
    with pytest.raises(ArtifactError, match=rf"^r\.csv:{line}: "):
        parse(text, FILE, KNOWN)


def test_what_stands_below_the_line_of_excel_has_its_own_line() -> None:
    """Rows and notes name the line that an editor shows; without that first line they begin at 1."""
    told = parse(f'sep=\t\n{HEAD}\na\tsd15\t1\n"OPEN"\tsd15\t2\n', FILE, KNOWN)
    assert [line for line, _ in told.rows] == [2, 3, 4]
    assert told.notes == ('line 4: "OPEN" stands in quotation marks; they are kept, as a part of the text',)
    assert [line for line, _ in parse("prompt,model\na,b\n", FILE, KNOWN).rows] == [1, 2]


def test_a_first_line_that_names_no_delimiter_is_the_header() -> None:
    """`sep=` counts with tabs, commas, semicolons and bars only."""
    assert parse("sep=:\na\n", FILE, KNOWN).rows == [(1, ["sep=:"]), (2, ["a"])]


@pytest.mark.parametrize(
    ("header", "file", "delimiter"),
    [
        ("prompt;model,a,b,c", "r.tsv", ";"),  # a known name more
        ("prompt,model;score,x", "r.tsv", ","),
        ("one;two,three,four", "r.tsv", ","),  # none known: more fields
        ("one;two;three,four", "r.csv", ";"),
        ("one\ttwo,three", "r.csv", ","),  # as many: what the file is called
        ("one\ttwo,three", "r.tsv", "\t"),
        ("one\ttwo,three", "r.CSV.gz", ","),
        ('\ufeff"PROMPT" | Model|x,y,z', "r.tsv", "|"),  # names in any case, with marks and blanks around
    ],
)  # fmt: skip
def test_the_delimiter_is_that_of_the_names_that_are_known(header: str, file: str, delimiter: str) -> None:
    """First the known names, then the number of fields, then what the file is called."""
    assert parse(header + "\n", Path(file), KNOWN).dialect.delimiter == delimiter


def test_blank_lines_above_the_header_say_nothing() -> None:
    """The header is the first line with something in it."""
    assert parse("\n \nprompt;score\na;1\n", FILE, KNOWN).dialect.delimiter == ";"


# ------------------------------------------------------------------------------------------------------ quotation marks


@pytest.mark.parametrize("field", ['"a\tsd15"', r'"a \"b' + '\tsd15"'])
def test_under_a_header_in_quotation_marks_they_are_syntax_in_every_row(field: str) -> None:
    """A row that has a field less by them is refused with its line, and not read as if they belonged to the text."""
    with pytest.raises(ArtifactError, match=r"^r\.tsv:3: "):
        tsv("c\tsdxl\t2", f"{field}\t1", head='"prompt"\t"model"\t"score"')


@pytest.mark.parametrize(
    ("rows", "quoted"),
    [
        (['"a, b"\tsd15\t1', "c\tsd15\t2"], False),  # one may be chance
        (['"a, b"\tsd15\t1', 'c\tsd15\t2', '"d, e"\tsdxl\t3'], True),  # two are a program
        (['"a, b"\tsd15\t1', 'c\tsd15\t2', '"d, e"\tsdxl\t3', '"f"\tsdxl\t3'], False),  # it would leave `f` alone
        (['"a, b"\tsd15\t1', 'c, d\tsd15\t2', '"d, e"\tsdxl\t3'], False),  # and quote this
        (['"a"\t"sd15"\t1', '"b"\t"sdxl"\t2'], True),  # two whole columns
        (['"a"\t"sd15"\t1', '"b"\tsdxl\t2', "c\tsdxl\t3"], False),
        (['"a ""b"""\tsd15\t1', "c\tsd15\t2"], True),  # nobody doubles a quotation mark by hand
        (['"OPEN"\tsd15\t1', '"OPEN"\tsdxl\t2'], False),  # one prompt that is a sign
        (['"OPEN"\tsd15\t1', '"SHUT"\tsdxl\t2', "c\tsdxl\t3"], False),
        (['"OPEN" sign\tsd15\t1', '"a, b"\tsdxl\t2', '"d, e"\tsdxl\t3'], False),
    ],
)  # fmt: skip
def test_a_tsv_is_quoted_if_a_program_that_quotes_would_have_written_it(rows: list[str], quoted: bool) -> None:
    """Each sign of such a program, and beside it the table that lacks just that: there the marks belong to the text."""
    found = tsv(*rows)
    assert found.dialect == Dialect("\t", quoted)
    marked = [row.split("\t")[0] for row in rows]
    assert prompts(found) == ([plain(field) for field in marked] if quoted else marked)
    whole = all(field.startswith('"') == field.endswith('"') for field in marked)
    assert len(found.notes) == (not quoted and whole)


def test_a_header_in_quotation_marks_is_enough() -> None:
    """If all of its names stand in them, so may fields; one name alone says nothing."""
    head = '"prompt"\t"model"\t"score"'
    assert prompts(tsv("a\tsd15\t1", '"b"\tsd15\t2', head=head)) == ["a", "b"]
    assert prompts(tsv("a\tsd15\t1", '"b"\tsd15\t2', head='"prompt"\tmodel\tscore')) == ["a", '"b"']


def test_a_tab_or_line_break_within_quotation_marks_needs_them() -> None:
    """Where fields do not fit the header unless marks are syntax, they are."""
    assert prompts(tsv('"a\tb"\tsd15\t1', "c\tsd15\t2")) == ["a\tb", "c"]
    assert prompts(tsv('"a\nb"\tsd15\t1', "c\tsd15\t2")) == ["a\nb", "c"]


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (['"a ""b"""\tsd15\t1', '"bye\tsd15\t2', "c\tsd15"], r"r\.tsv:3: its quotation marks do not match"),
        (['"a"\tsd15\t1', '"bye\tsd15\t2', "c\tsd15"], r"r\.tsv:4: 2 fields where the header has 3"),
    ],
)
def test_a_broken_tsv_is_refused_by_the_rules_that_it_follows(rows: list[str], why: str) -> None:
    """If a program has doubled quotation marks, the one that is not closed is wrong; if none has, the width is."""
    with pytest.raises(ArtifactError, match=why):
        tsv(*rows)
    assert prompts(tsv(*rows[:-1])) == [row.split("\t")[0] for row in rows[:-1]]  # which fits as it is


def test_a_quoted_header_over_marks_that_do_not_match_is_refused() -> None:
    """Neither doubled nor escaped: the row is named."""
    with pytest.raises(ArtifactError, match=r"r\.tsv:3: its quotation marks do not match"):
        tsv('"a"\t"sd15"\t1', '"b" c\t"sd15"\t2', head='"prompt"\t"model"\t"score"')


def test_escaped_marks_are_tried_where_doubled_ones_leave_another_width() -> None:
    """A tab behind an escaped mark belongs to the text, though without the backslash it would part two fields."""
    found = tsv('"say \\"\thello\\""\t"sd15"\t"1"', head='"prompt"\t"model"\t"score"')
    assert prompts(found) == ['say "\thello"'] and found.dialect == Dialect("\t", True, True)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ('prompt, model, score\n"a, b", "sd15", 1\n', [["a, b", "sd15", "1"]]),
        ('prompt; model\n"a; b"; "sd15"\n', [["a; b", "sd15"]]),
        ('\nprompt, model\r\n"a, b", "sd15"\r\n', [["a, b", "sd15"]]),
        ('prompt,model,score\n"a","sd15", 1\n', [["a", "sd15", " 1"]]),
        ('prompt,model\n"a\\b \\"c\\"",sd15\n', [['a\\b "c"', "sd15"]]),  # as R writes it
        ('prompt,model\n"a\\b ""c""",sd15\n', [['a\\b "c"', "sd15"]]),
    ],
)
def test_quotation_marks_may_come_behind_a_space_if_the_header_has_spaces(text: str, read: list[list[str]]) -> None:
    """`a, "b, c"` has two fields in a table that is spaced throughout; backslashes are kept as they are."""
    assert fields(text) == read


def test_a_quotation_mark_behind_a_space_is_text_otherwise() -> None:
    """One space in the header is none behind each delimiter."""
    assert fields('prompt, model,score\n"a, b", "sd15",1\n') == [["a, b", ' "sd15"', "1"]]
    with pytest.raises(ArtifactError, match="3 fields where the header has 2"):
        parse('prompt,model\n"a", "sd, 15"\n', FILE, KNOWN)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('prompt\n"a\nb"\nc\n', 2),  # one column: any line could be a row
        (
            'prompt,model,score\na,sd15,1\n"one, two, 3\nthe end, really, not, yes",sd15,1\n',
            2,
        ),  # only the first looks so
        ('score,model,prompt\n1,sd15,a\n2,sd15,"x\ny, z, w"\n', 2),  # its score would be no number
        ('score,model,prompt\n1,sd15,a\n1,sd15,b\n2,sd15,"x\ny, z, w"\n', 3),
        ('prompt,model,score\n"a\n\nb",sd15,1\n', 1),
    ],
)
def test_a_text_of_several_lines_is_one_field(text: str, rows: int) -> None:
    """Where one of the two outer lines of a row could be none by itself, the marks hold them together."""
    assert len(fields(text)) == rows


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('prompt,x\n"a,1\nb",2\n', 2),
        ('model,score,prompt\nsd15,4,"hello\nsdxl,2,bye"\n', 2),  # no other row tells what a number is
        ('prompt,model,score\na,sd15,1\nb,sd15,2\n"one,sd15, 3\n"end,sd15,1"\n', 4),
        ('score,model,prompt\n1,sd15,a\n2,sd15,"x\n3,z,w"\n', 3),
    ],
)
def test_a_quotation_mark_that_would_make_one_row_of_two_is_refused(text: str, line: int) -> None:
    """If both outer lines are rows by themselves, with numbers where all others have them."""
    with pytest.raises(ArtifactError, match=rf"^r\.csv:{line}: its quotation mark"):
        parse(text, FILE, KNOWN)


def test_a_field_may_have_four_million_characters() -> None:
    """So long it is a text, one more, and the file is taken to be broken."""
    long = "x" * (MAX_FIELD - 1)
    assert MAX_FIELD == 4_000_000
    assert len(fields(f'prompt,model\n"{long}x",b\n')[0][0]) == MAX_FIELD
    with pytest.raises(ArtifactError, match=r"r\.csv:2: a field of more than 4,000,000 characters"):
        parse(f'prompt,model\n"{long}xx",b\n', FILE, KNOWN)


def test_names_of_rows_are_said_to_be_left_out() -> None:
    """R's numbers of rows are left out with a word, an empty field at the end of each row without; a header alone is a
    table of no rows."""
    assert parse("prompt,model\n1,a,b\n12,c,d\n", FILE, KNOWN).notes == ("names of rows, as R writes them, left out",)
    assert parse("prompt,model\na,b,\nc,d,\n", FILE, KNOWN).notes == ()
    assert parse("prompt,model\n", FILE, KNOWN).rows == [(1, ["prompt", "model"])]


# ------------------------------------------------------------------------------------------------------------ the table


@pytest.mark.parametrize(
    ("text", "read_as"),
    [
        ("prompt,model\na,b\n", "comma-separated, UTF-8"),
        ("prompt,model\r\na,b\r\n", "comma-separated, UTF-8"),
        ("prompt,model\ra,b\r", "comma-separated, UTF-8, lines that end with a carriage return"),
        ('prompt,model\n"a",b\n', "comma-separated with quotes, UTF-8"),
        ('prompt\tmodel\na "c"\tb\n', "tab-separated without quotes, UTF-8"),
        ('prompt;model\n"a \\"c\\"";b\n', "semicolon-separated with escaped quotes, UTF-8"),
        ('[{"prompt": "a"}]\n', "a JSON array, UTF-8"),
        ('{"prompt": "a"}\n', "JSON Lines, UTF-8"),
    ],
)
def test_how_a_table_was_read_is_told_in_plain_words(tmp_path: Path, text: str, read_as: str) -> None:
    """Delimiter, marks if there are any, encoding, and line ends if they are Apple's old ones."""
    assert read(tmp_path, text).read_as == read_as


def test_fields_with_spaces_at_their_ends_are_counted(tmp_path: Path) -> None:
    """Of all rows below the header, and only if there are any."""
    found = read(tmp_path, "prompt,model\n a,b\nc , d\n")
    assert found.notes == ("spaces at the ends of fields are left out (3 fields)",)
    assert [row for _, row in found.rows] == [["a", "b"], ["c", "d"]]
    assert read(tmp_path, "prompt,model\na,b\n").notes == ()


def test_columns_without_a_name_may_be_several_and_others_not(tmp_path: Path) -> None:
    """Only names are taken; which column is meant is refused if two differ by capitals alone."""
    assert read(tmp_path, "prompt,,\na,b,c\n").header == ("prompt", "", "")
    twice = read(tmp_path, "prompt,PROMPT,model\na,b,c\n")
    with pytest.raises(ArtifactError, match=r"r\.csv:1: the column 'prompt' is there twice"):
        twice.place("prompt")
    assert twice.place("Model") == 2 and twice.has("MODEL") and not twice.has("score")


@pytest.mark.parametrize(
    ("header", "hint"),
    [
        ("my prompt,model,score", "; did you mean 'my prompt'?"),
        ("my prompts;x", "; did you mean 'my prompts'?"),
        ("Caption,model", "; did you mean 'Caption'? Then call it so"),
        ("Text,Input", "; did you mean 'Text'? Then call it so"),
        ("a cat,sd15,4.5", "; the first line is no header: write the columns' names above it"),
        ("a cat,,x", "; known: a cat, x"),
    ],
)
def test_where_a_column_is_missing_the_likeliest_cause_is_named(tmp_path: Path, header: str, hint: str) -> None:
    """A synonym, a row of numbers in the place of the header, a name that is near, or what there is."""
    table = read(tmp_path, f"{header}\n")
    with pytest.raises(ArtifactError) as refused:
        table.place("prompt")
    assert f"no column 'prompt'{hint}" in str(refused.value)
