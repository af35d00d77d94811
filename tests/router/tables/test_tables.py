"""Tables as people have them: read in the one way that they can be read, or refused with the line that breaks."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
import zipfile
from pathlib import Path

import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from router.errors import ArtifactError
from router.learning.ratings import Rating, read_ratings
from router.learning.tables.contents import _western
from router.learning.tables.prompts import read_prompts
from router.learning.tables.shapes import layout_of, left_out
from router.learning.tables.table import read_table

LETTERING = 'a "red" sign that says "STOP"'
ONE = '{"prompt": "a", "model": "b", "score": 1}'
HEAD = ["prompt", "model", "score"]
ROWS = [
    ["a red circle, on black", "sd15", "3.8"],
    [LETTERING, "sdxl", "1.9"],
    ["a château; red, \"bleu\"", "flux", "3"],
    ['"OPEN"', "sd15", "2.5"],
]  # fmt: skip
COMMAS = [[prompt, model, score.replace(".", ",")] for prompt, model, score in ROWS]


def written(rows: list[list[str]], **dialect: object) -> str:
    """Rows as Python's csv writes them."""
    text = io.StringIO(newline="")
    csv.writer(text, **{"lineterminator": "\n", **dialect}).writerows(rows)  # type: ignore[arg-type]
    return text.getvalue()


def save(folder: Path, data: str | bytes, name: str = "r.csv") -> Path:
    file = folder / name
    file.write_bytes(data if isinstance(data, bytes) else data.encode())
    return file


def told(file: Path, **options: object) -> tuple[list[Rating], str]:
    """Ratings of a file, and all that was said of it."""
    notes: list[str] = []
    return read_ratings(file, tell=notes.append, **options), "\n".join(notes)  # type: ignore[arg-type]


def triples(ratings: list[Rating]) -> list[list[str]]:
    return [[r.prompt, r.recipe, f"{r.score:g}"] for r in ratings]


# ------------------------------------------------------------------------------------------------------ quotation marks


def gzipped(data: bytes) -> bytes:
    """Without the time, so that a test is called the same in every process."""
    return gzip.compress(data, mtime=0)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('prompt,model,score\na,sd15,1\n"STOP" sign,sd15,3\nb,sd15,4\n', 3),
        ('prompt,model,score\na,sd15,1\n"hello world,sd15,4\nbye" said the sign,sd15,1\n', 3),
        ('prompt,model,score\na,sd15,1\n"hello world,sd15,4\nbye",sd15,1\n', 3),
        ('prompt,model,score\na,sd15,1\n"hello world,sd15,4\nmore,sd15,2\nbye",sd15,1\nb,sd15,1\n', 3),
        ('model,score,prompt\nsd15,1,a\nsd15,4,"hello world\nsdxl,2,bye"\n', 3),
        ('prompt;model;score\na;sd15;1\n"hello;sd15;4\nbye";sd15;1\n', 3),
        ('prompt,model_a,model_b,winner\na,x,y,tie\n"hi,x,y,model_a\nbye",y,x,tie\n', 3),
        ('prompt,model,score\na,sd15,1\n"never closed,sd15,4\nb,sd15,1\n', 3),
        ('prompt,model,score\na,sd15,1\nred, green,sd15,4\n', 3),
    ],
)  # fmt: skip
def test_a_quotation_mark_never_swallows_a_row(tmp_path: Path, text: str, line: int) -> None:
    """In CSV a leading quotation mark that is none, or makes one row of several, is refused where the row begins."""
    with pytest.raises(ArtifactError, match=rf"r\.csv:{line}: "):
        read_ratings(save(tmp_path, text))


def test_prompts_of_several_lines_are_read(tmp_path: Path) -> None:
    """A line break within quotation marks belongs to the prompt, and lines are counted as in an editor."""
    rows = [["a, b\n\nc", "sd15", "1"], ["d", "sd15", "2"], ["one\ntwo, three", "sdxl", "3"]]
    assert triples(read_ratings(save(tmp_path, written([HEAD, *rows])))) == rows
    turned = [[score, model, prompt] for prompt, model, score in rows]
    assert triples(read_ratings(save(tmp_path, written([HEAD[::-1], *turned])))) == rows
    with pytest.raises(ArtifactError, match=r"r\.csv:5: score is '4_5'"):
        read_ratings(save(tmp_path, written([HEAD, rows[0], ["d", "sd15", "4_5"]])))


def test_a_quotation_mark_in_plain_tsv_is_kept(tmp_path: Path) -> None:
    """Where no program has put fields into quotation marks, one that leads or ends a prompt is a part of it."""
    prompts = ['"STOP" sign in red', '"hello world', 'bye" said the sign', '"closed" and "open" signs', '"OPEN"']
    text = "\n".join(["prompt\tmodel\tscore", *(f"{p}\tsd15\t3" for p in prompts)])
    ratings, said = told(save(tmp_path, text, "r.tsv"))
    assert [r.prompt for r in ratings] == prompts
    assert "tab-separated without quotes" in said


def test_a_prompt_wholly_in_quotation_marks_is_kept_and_said(tmp_path: Path) -> None:
    """A few prompts of plain TSV that stand wholly in quotation marks keep them, with a word about the first."""
    ratings, said = told(save(tmp_path, 'prompt\tmodel\tscore\na cat\tsd15\t3\n"OPEN"\tsd15\t3\n', "r.tsv"))
    assert [r.prompt for r in ratings] == ["a cat", '"OPEN"']
    assert 'line 3: "OPEN" stands in quotation marks; they are kept' in said


@pytest.mark.parametrize(
    "text",
    [
        written([HEAD, *ROWS], delimiter="\t"),  # pandas: where needed
        written([HEAD, *ROWS], delimiter="\t", quoting=csv.QUOTE_ALL),
        written([HEAD, *ROWS], delimiter="\t", quoting=csv.QUOTE_NONNUMERIC),
        'prompt\tmodel\tscore\n"a red circle, on black"\tsd15\t3.8\n"a ""red"" sign that says ""STOP"""\tsdxl\t1.9\n'
        '"a château; red, ""bleu"""\tflux\t3\n"""OPEN"""\tsd15\t2.5\n',  # Excel: commas, too
        '"prompt"\t"model"\t"score"\n"1"\t"a red circle, on black"\t"sd15"\t3.8\n'
        '"2"\t"a \\"red\\" sign that says \\"STOP\\""\t"sdxl"\t1.9\n"3"\t"a château; red, \\"bleu\\""\t"flux"\t3\n'
        '"4"\t"\\"OPEN\\""\t"sd15"\t2.5\n',  # R: names of rows, \" inside
    ],
    ids=["pandas", "all", "texts", "Excel", "R"],
)
def test_quoted_tsv_is_recognised(tmp_path: Path, text: str) -> None:
    """TSV as pandas, Excel and R write it comes out without its quotation marks, and the output says so."""
    ratings, said = told(save(tmp_path, text, "r.tsv"))
    assert triples(ratings) == ROWS
    assert re.search("read as: tab-separated with (escaped )?quotes, UTF-8", said)


def test_excel_quotes_what_has_commas(tmp_path: Path) -> None:
    """If just the fields with commas stand in quotation marks, a program has put them there."""
    text = 'prompt\tmodel\tscore\n"a, b"\tsd15\t1\nc\tsd15\t2\n"d, e"\tsdxl\t3\n'
    assert [r.prompt for r in read_ratings(save(tmp_path, text, "r.tsv"))] == ["a, b", "c", "d, e"]


def test_tsv_of_which_nothing_tells_whether_it_is_quoted_is_refused(tmp_path: Path) -> None:
    """Each prompt in quotation marks, but neither header nor models: both readings are as good, so neither is taken."""
    with pytest.raises(ArtifactError, match=r"r\.tsv:2: every 'prompt' stands in quotation marks"):
        read_ratings(save(tmp_path, 'prompt\tmodel\tscore\n"STOP"\tsd15\t1\n"GO"\tsd15\t2\n', "r.tsv"))


# ---------------------------------------------------------------------------------------- encodings, line ends, endings


@pytest.mark.parametrize(
    ("data", "name", "spoken"),
    [
        (written([HEAD, *COMMAS], delimiter=";").encode("utf-8-sig"), "r.csv",
         "semicolon-separated with quotes, UTF-8 with a byte order mark, decimal comma"),
        (codecs.BOM_UTF16_LE + written([HEAD, *ROWS], delimiter="\t", lineterminator="\r\n").encode("utf-16-le"),
         "r.tsv", "tab-separated with quotes, UTF-16"),
        (codecs.BOM_UTF16_LE + written([HEAD, *COMMAS], delimiter="\t").encode("utf-16-le"), "r.txt",
         "tab-separated with quotes, UTF-16, decimal comma"),
        (codecs.BOM_UTF16_BE + written([HEAD, *ROWS]).encode("utf-16-be"), "r.csv",
         "comma-separated with quotes, UTF-16"),
        (written([HEAD, *ROWS]).encode("utf-16-le"), "r.csv", "UTF-16"),
        (written([HEAD, *ROWS]).encode("utf-16-be"), "r.csv", "UTF-16"),
        (written([HEAD, *ROWS]).encode("utf-32"), "r.csv", "UTF-32"),
        (written([HEAD, *ROWS]).encode("latin-1"), "r.csv", "Latin-1"),
        (written([HEAD, *ROWS], lineterminator="\r").encode(), "r.csv", "lines that end with a carriage return"),
        (written([HEAD, *ROWS], lineterminator="\r", delimiter="\t").encode(), "r.tsv", "carriage return"),
        (written([HEAD, *ROWS]).encode(), "R.CSV", "comma-separated with quotes"),
        (written([HEAD, *ROWS]).encode(), "r.tsv", "comma-separated with quotes"),
        (written([HEAD, *ROWS], delimiter="\t").encode(), "r.csv", "tab-separated with quotes"),
        (written([HEAD, *ROWS], delimiter="|").encode(), "r.csv", "bar-separated with quotes"),
        (gzipped(written([HEAD, *ROWS]).encode()), "R.CSV.GZ", "UTF-8, gzipped"),
        (gzipped(written([HEAD, *ROWS]).encode()), "r.csv", "UTF-8, gzipped"),
        (b"sep=;\r\n" + written([HEAD, *ROWS], delimiter=";").encode(), "r.csv", "semicolon-separated with quotes"),
        (written([HEAD, *ROWS], doublequote=False, escapechar="\\").encode(), "r.csv",
         "comma-separated with escaped quotes"),
        ("\n".join(",".join([f'"{p.replace(chr(34), chr(34) * 2)}"', m, s, ""]) for p, m, s in [HEAD, *ROWS]).encode(),
         "r.csv", "comma-separated with quotes"),
        (("\n\n" + written([HEAD, *ROWS]) + "\n\n,,\n").encode(), "r.csv", "comma-separated"),
    ],
)  # fmt: skip
def test_what_can_be_read_in_one_way_is_read(tmp_path: Path, data: bytes, name: str, spoken: str) -> None:
    """Semicolons with decimal commas, any Unicode, Latin-1, any line ends and any name: the same rows, and said."""
    ratings, said = told(save(tmp_path, data, name))
    assert triples(ratings) == ROWS
    assert spoken in said.splitlines()[0]


def zipped(*names: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), "x")
    return data.getvalue()


@pytest.mark.parametrize(
    ("data", "name", "says"),
    [
        (zipped("[Content_Types].xml", "xl/workbook.xml"), "r.xlsx", "is an Excel workbook.*export it as CSV in UTF-8"),
        (zipped("[Content_Types].xml", "xl/workbook.xml"), "r.csv", "is an Excel workbook"),
        (zipped("mimetype", "content.xml"), "r.ods", "is an OpenDocument sheet"),
        (zipped("ratings.csv"), "r.zip", "is a zip archive; unpack it first"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500), "r.xls", "is an old Excel"),
        (b"SQLite format 3\0" + bytes(100), "r.csv", "is an SQLite database"),
        (b"%PDF-1.7 ...", "r.csv", "is a PDF"),
        (b"\x89PNG\r\n\x1a\n", "r.csv", "is a picture"),
        (b"  <!DOCTYPE html><html>", "r.csv", "is a web page"),
        (b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00.", "r.pkl", "is a Python pickle"),
        (b"ARROW1\0\0", "r.feather", "is an Arrow"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "r.csv", "pointer of Git LFS.*git lfs pull"),
        (gzipped(zipped("xl/workbook.xml")), "r.gz", "a gzip archive of an Excel workbook"),
        (gzipped(b"prompt,model,score")[:-9], "r.csv.gz", "broken or cut off"),
        (b"", "r.csv", "is empty"),
        (b"\xef\xbb\xbf \n", "r.csv", "is empty"),
        ("prompt,model,score\nкрасный круг,sd15,3\n".encode("cp1251"), "r.csv", r"r.csv:2: the byte 0xea"),
        ("prompt,model,score\na,sd15,3\na caf\u00e9,sd15,3\n".encode("mac-roman"), "r.csv", r"r.csv:3: the byte 0x8e"),
        ("prompt,model,score\n\u8d64\u3044\u5186,sd15,3\n".encode("shift-jis"), "r.csv", r"r.csv:2: the byte"),
        ("prompt,model,score\n\u00e9,sd15,3\n".encode() + b"\xe9,sd15,3\n", "r.csv", r"r.csv:3: the byte 0xe9"),
        (codecs.BOM_UTF16_LE + "prompt\tm".encode("utf-16-le") + b"x", "r.tsv", "r.tsv:1: this is no UTF-16"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named_as_what_it_is(tmp_path: Path, data: bytes, name: str, says: str) -> None:
    """Workbooks, archives, databases, pages and encodings that cannot be told are named, with remedy or line."""
    for read in (read_ratings, read_prompts):
        with pytest.raises(ArtifactError, match=says if data.strip(b"\xef\xbb\xbf \n") else "."):
            read(save(tmp_path, data, name))


# -------------------------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    "score",
    ["4_5", "٣", "４", "1,5", "nan", "NaN", "inf", "-inf", "1e999", "", "NA", "5/5", "0x10", "½", "−3", "3.8.1",
     "1 000", "true", "1.234,5"],
)  # fmt: skip
@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
def test_what_is_no_number_is_refused_with_line_and_column(tmp_path: Path, score: str, delimiter: str) -> None:
    """Python's underscores, other digits, ambiguous commas, what is not finite and blanks: never a score."""
    rows = [HEAD, ["a", "sd15", "3.5"], ["b", "sd15", score]]
    with pytest.raises(ArtifactError, match=r"r\.csv:3: score is '.*', .*\(column 3\)"):
        read_ratings(save(tmp_path, written(rows, delimiter=delimiter)))


def test_one_decimal_comma_among_points_or_commas_is_refused(tmp_path: Path) -> None:
    """A decimal comma counts only where the table has no point; a thousand is not taken for one and a bit."""
    for scores, line in ((["3,5", "2.5", "1,5"], 2), (["1,500", "2,250", "3,000"], 2), (["4", "1,5", "3"], 3)):
        text = "prompt\tmodel\tscore\n" + "".join(f"p{k}\tsd15\t{score}\n" for k, score in enumerate(scores))
        with pytest.raises(ArtifactError, match=rf"r\.tsv:{line}: score is '.*decimal comma or a typing error"):
            read_ratings(save(tmp_path, text, "r.tsv"))


@pytest.mark.parametrize("score", ["4", "+4", "4.", "4.0", "04", "4e0", " 4 ", "400E-2"])
def test_numbers_may_be_written_in_the_usual_ways(tmp_path: Path, score: str) -> None:
    """Signs, leading zeros, exponents and spaces around are the same number."""
    assert read_ratings(save(tmp_path, f"prompt,model,score\na,sd15,{score}\n"))[0].score == 4.0


@pytest.mark.parametrize("name", ["raters", "weight"])
def test_weights_are_numbers_too(tmp_path: Path, name: str) -> None:
    """`raters` and `weight` are read by the same rules as scores."""
    with pytest.raises(ArtifactError, match=rf"r\.csv:2: {name} is '1_0', not a number.*\(column 4\)"):
        read_ratings(save(tmp_path, f"prompt,model,score,{name}\na,sd15,1,1_0\n"))


# ----------------------------------------------------------------------------------------------------- names and spaces


def test_spaces_at_the_ends_are_no_part_of_a_name(tmp_path: Path) -> None:
    """Header, prompts, models and groups are trimmed, of invisible characters, too, and it is said."""
    text = "Prompt, MODEL ,Score\u200b, Group\n a cat , sdxl ,3, g \na cat\u00a0,sdxl\ufeff,4,g\na cat,flux,2,g\n"
    ratings, said = told(save(tmp_path, text))
    assert {(r.prompt, r.recipe, r.group) for r in ratings} == {("a cat", "sdxl", "g"), ("a cat", "flux", "g")}
    assert "spaces at the ends of fields are left out" in said
    assert "rated several times: 1, such as 'sdxl' on 'a cat' (2 times); each counts as one" in said


@pytest.mark.parametrize(
    ("one", "other"),
    [("sdxl", "SDXL "), ("sdxl turbo", "sdxlturbo"), ("caf\u00e9", "cafe\u0301"), ("sdxl", "ｓｄｘｌ")],
)
def test_names_that_differ_by_case_or_space_only_are_a_warning(tmp_path: Path, one: str, other: str) -> None:
    """Models and prompts that a person would take for one are named; they stay apart unless --map makes them one."""
    text = f"prompt,model,score\na,{one},3\na,{other},4\n"
    ratings, said = told(save(tmp_path, text))
    assert len({r.recipe for r in ratings}) == 2
    assert f"warning: models {one!r} and {other.strip()!r} differ by case or spaces only" in said
    merged, said = told(save(tmp_path, text), rename=[f"{other.strip()}={one}"])
    assert {r.recipe for r in merged} == {one} and "warning" not in said
    _, said = told(save(tmp_path, f"prompt,model,score\n{one},x,3\n{other},x,4\n"))
    assert f"warning: prompts {one!r} and {other.strip()!r}" in said


@pytest.mark.parametrize(
    ("rename", "says"),
    [
        ("sdxl_base", "write OLD=NEW"),
        ("sdxl_bse=sdxl", "no model 'sdxl_bse'; did you mean 'sdxl_base'"),
        ("a=", "OLD=NEW"),
    ],
)
def test_a_map_that_fits_no_model_is_refused(tmp_path: Path, rename: str, says: str) -> None:
    """`--map` names a model of the table and a key."""
    file = save(tmp_path, "prompt,model,score\na,sdxl_base,3\n")
    with pytest.raises(ArtifactError, match=says):
        read_ratings(file, rename=[rename])
    assert read_ratings(file, rename=["sdxl_base=sd15@12:scheduler=dpmsolver++"])[0].recipe == (
        "sd15@12:scheduler=dpmsolver++"
    )


# --------------------------------------------------------------------------------------------------------------- shapes


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("r.jsonl", "".join(json.dumps(dict(zip(HEAD, [p, m, float(s)], strict=True))) + "\n" for p, m, s in ROWS)),
        ("r.jsonl", "\ufeff\n" + "\r\n".join(
            json.dumps({"Score": s, "MODEL": m, "prompt": p, "x": [1]}) for p, m, s in ROWS)),
        ("r.json", json.dumps([dict(zip(HEAD, row, strict=True)) for row in ROWS], indent=2)),
        ("r.txt", "".join(json.dumps(dict(zip(HEAD, row, strict=True))) + "\n" for row in ROWS)),
    ],
)  # fmt: skip
def test_json_is_read(tmp_path: Path, name: str, text: str) -> None:
    """JSON Lines and an array of objects hold ratings like any table, whatever they are called."""
    ratings, said = told(save(tmp_path, text, name))
    assert triples(ratings) == ROWS
    assert "read as: JSON Lines" in said or "read as: a JSON array" in said


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f'{ONE}\n{{"prompt": "a", "model": "b", "score": 1,}}\n', r"r.jsonl:2:\d+: not valid"),
        (f'{ONE}\n{{"prompt": "a", "model": "b"}}\n', r"r.jsonl:2: score is '', not a number"),
        ('{"prompt": "a", "model": "b", "score": NaN}\n', r"r.jsonl:1: score is 'NaN', not a number"),
        ('{"prompt": "a", "model": "b", "score": true}\n', r"r.jsonl:1: score is 'True', not a number"),
        ('{"prompt": "a", "model": "b", "score": 1, "score": 2}\n', r"r.jsonl:1: 'score' is there twice"),
        (f'{{"prompt": ["a"], "model": "b", "score": 1}}\n{ONE}\n', r"r.jsonl:1: 'prompt' is a list"),
        (f"{ONE}\n7\n", r"r.jsonl:2: .*is no object"),
        (
            '{"prompt": {"0": "a"}, "model": {"0": "b"}, "score": {"0": 1}}',
            "is one JSON object.*object for each row",
        ),
        ('{\n "data": [{"prompt": "a"}]\n}', r"is one JSON object"),
        (f'[\n{ONE},\n{{"prompt": "a", "model": "b", "score": "4_5"}}]', r"r.jsonl:3: score is '4_5'"),
        (f'[{ONE}\n{{"prompt": "a"}}]', r"r.jsonl:2:1: not valid JSON"),
    ],
)
def test_broken_json_is_refused_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    """Syntax with line and column, values with their line, other shapes of JSON by what they are."""
    with pytest.raises(ArtifactError, match=says):
        read_ratings(save(tmp_path, text, "r.jsonl"))


def test_a_column_a_model_is_read(tmp_path: Path) -> None:
    """A wide table is one of ratings, where an empty cell is a picture that was not rated; other columns are named."""
    text = "prompt_id,prompt,category,sd15,sdxl,flux,group\n7,a,x,3,,4,g\n8,b,y,1.5,2,,\n"
    ratings, said = told(save(tmp_path, text))
    assert triples(ratings) == [["a", "sd15", "3"], ["a", "flux", "4"], ["b", "sd15", "1.5"], ["b", "sdxl", "2"]]
    assert [r.group for r in ratings] == ["g", "g", "", ""]
    assert "a column a model: sd15, sdxl, flux" in said and "not looked at: prompt_id, category" in said


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prompt,sd15,sdxl\na,3,4\nb,3,NA\n", r"r.csv:3: sdxl is 'NA', not a number \(column 3\)"),
        ("prompt,sd15,sdxl\na,3,4\nb,3,4_5\n", r"r.csv:3: sdxl is '4_5', not a number \(column 3\)"),
        ("prompt,sd15,sdxl\na,4_5,4\nb,4_5,3\n", r"r.csv:2: sd15 is '4_5', not a number \(column 2\)"),
        ("prompt,sd15,sdxl\na,nan,4\nb,nan,3\n", r"r.csv:2: sd15 is 'nan', not a number \(column 2\)"),
        ("prompt,model,score\n", "holds no rating"),
        ('"prompt" "model" "score"\n"1" "a b" "sd15" 3.5\n', "r.csv:1: its fields are parted by spaces"),
        ('"prompt,model,score"\n"a,sd15,3"\n', "the whole header is one field, 'prompt,model,score'"),
        ("prompt,metric,sd15,sdxl\na,x,3,4\na,y,30,40\n", "rows of 2 metrics"),
        ("prompt,sd15,sd15\na,3,4\n", "'sd15' is there twice"),
        ("prompt,style\na,oil\n", r"r.csv:1: no column 'model' \(or 'recipe'\) and 'score'"),
        ("prompt,score\na,3\n", r"r.csv:1: no column 'model' \(or 'recipe'\)"),
        ("text,model,score\na,b,3\n", r"no column 'prompt'; did you mean 'text'"),
        ("prompt,model,rating\na,b,3\n", r"no column 'score'; did you mean 'rating'"),
        ("a red circle,sd15,4\nb,sd15,3\n", "no column 'prompt'; the first line is no header"),
        ("prompt,model_a,model_b\na,x,y\n", r"no column 'winner' .*a table of votes needs"),
        ("prompt,model_a,model_b,winner\na,x,y,z\n", r"r.csv:2: winner is 'z'; write one of model_a, model_b, tie, x"),
        ("prompt,model_a,model_b,winner\na,x,y,\n", r"r.csv:2: winner is ''"),
        ("prompt,model_a,model_b,winner\na,x,x,tie\n", r"r.csv:2: 'x' is compared with itself"),
        ("prompt,model_a,model_b,winner\na,x,,tie\n", r"r.csv:2: the recipe is empty"),
        ("prompt,model_a,model_b,winner\na,b,a,a\n", r"r.csv:2: winner is 'a', which may be either"),
        ("prompt,model_a,model_b,winner\na,x,y,tie\nb,v,w,tie\n", "were never compared"),
    ],
)  # fmt: skip
def test_errors_recognise_the_shape(tmp_path: Path, text: str, says: str) -> None:
    """What is missing is said for the shape that the table seems to have."""
    with pytest.raises(ArtifactError, match=says):
        read_ratings(save(tmp_path, text))


# -------------------------------------------------------------------------------------------------------------- prompts


@pytest.mark.parametrize(
    ("name", "text", "prompts"),
    [
        ("p.jsonl", '{"prompt": "a red circle"}\n\n{"prompt": "b", "x": 1}\n', ["a red circle", "b"]),
        ("p.txt", '{"prompt": "a red circle"}\n{"prompt": "b"}\n', ["a red circle", "b"]),
        ("p.json", '[{"prompt": "a red circle"}]', ["a red circle"]),
        ("p.txt", "{red|blue} circle\na cat\n", ["{red|blue} circle", "a cat"]),
        ("p.txt", ' a red circle, on black \r"STOP" sign\r', ["a red circle, on black", '"STOP" sign']),
        ("P.CSV", 'Prompt ,x\n"a red circle, on black",1\n', ["a red circle, on black"]),
        ("p.txt", 'model\tprompt\nsd15\ta cat\n', ["a cat"]),
        ("p.csv", 'prompt\n"a, b"\nc\n', ["a, b", "c"]),
        ("p.tsv", "prompt\na, b\n", ["a, b"]),
    ],
)  # fmt: skip
def test_prompts_are_read_from_what_the_file_is(tmp_path: Path, name: str, text: str, prompts: list[str]) -> None:
    """Lines, tables and JSON Lines: never a line of JSON or of a table taken for a prompt."""
    assert read_prompts(save(tmp_path, text, name)) == prompts


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("p.jsonl", '{"prompt": "a"}\n{"prompt": \n', r"p.jsonl:2:\d+: not valid JSON"),
        ("p.jsonl", '{"text": "a"}\n', "no column 'prompt'; did you mean 'text'"),
        ("p.csv", "prompt\na, b\n", "p.csv:2: 2 fields where the header has 1"),
        ("p.txt", " \n\n", "holds no prompt"),
    ],
)
def test_prompts_that_cannot_be_read_are_refused(tmp_path: Path, name: str, text: str, says: str) -> None:
    """With the line, or the column that is missing."""
    with pytest.raises(ArtifactError, match=says):
        read_prompts(save(tmp_path, text, name))


# ------------------------------------------------------------------------------------------------------------- property

TEXTS = st.text(
    st.one_of(
        st.sampled_from("\"',;\t|\\ \n\r=#{[ab1"),
        st.characters(codec="utf-8", exclude_characters="\x00", max_codepoint=0x2FFFF),
    ),
    min_size=1,
    max_size=12,
)
ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1", "cp1252", "utf-32"])


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


@given(
    prompts=st.lists(TEXTS, min_size=1, max_size=6),
    scores=st.lists(st.decimals(0, 5, places=2), min_size=6, max_size=6),
    delimiter=st.sampled_from(",;\t|"),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC, csv.QUOTE_NONE]),
    ends=st.sampled_from(["\n", "\r\n", "\r"]),
    encoding=ENCODINGS,
    comma=st.booleans(),
    last=st.booleans(),
    packed=st.booleans(),
    name=st.sampled_from(["r.csv", "r.tsv", "R.TXT"]),
)
@settings(max_examples=400, deadline=None)
def test_any_table_in_any_dialect_round_trips_or_is_refused(
    prompts: list[str], scores: list[object], delimiter: str, quoting: int, ends: str, encoding: str, comma: bool,
    last: bool, packed: bool, name: str, tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    """Whatever prompts, delimiter, quoting, line ends, encoding and order of columns: the same rows come back, trimmed,
    or an error names the file; never fewer rows, never other prompts."""
    rows = [[prompt, "sd15", str(score)] for prompt, score in zip(prompts, scores, strict=False)]
    told_rows = [[p, m, s.replace(".", ",") if comma else s] for p, m, s in rows]
    order = slice(None, None, -1 if last else 1)
    try:
        text = written(
            [HEAD[order], *(row[order] for row in told_rows)], delimiter=delimiter, quoting=quoting, lineterminator=ends
        )
        data = text.encode(encoding)
    except (csv.Error, UnicodeEncodeError):
        assume(False)
    if encoding in ("latin-1", "cp1252"):  # its control characters are typographic marks; and what is UTF-8, is UTF-8
        assume(text.isascii() or not (_is_utf8(data) or re.search("[\x80-\x9f]", text)))
    file = save(tmp_path_factory.getbasetemp(), gzipped(data) if packed else data, name)
    try:
        read = read_table(file)
        found = [[row[read.place(column)] for column in HEAD] for _, row in read.rows]
        ratings = read_ratings(file)
    except ArtifactError as error:
        event("refused")
        refused = str(error)
    else:
        refused = ""
    if refused:
        assert refused.startswith(str(file))
        return
    event("read")
    assert [row[0] for row in found] == [prompt.strip().strip("\ufeff\u200b").strip() for prompt in prompts]
    assert [rating.score for rating in ratings] == [float(row[2]) for row in rows]


@pytest.mark.parametrize(
    ("header", "row", "left"),
    [
        ("prompt,model,score,notes", "a,sd15,0.5,n", ["notes"]),
        ("prompt,model,score,group,weight", "a,sd15,0.5,g,1", []),
        ("prompt,sd15,sdxl,notes", "a,0.5,0.6,n", ["notes"]),
        ("prompt,model_a,model_b,winner,notes", "a,sd15,sdxl,model_a,n", ["notes"]),
        ("prompt,model_a,model_b,winner", "a,sd15,sdxl,model_a", []),
    ],
)
def test_what_is_not_looked_at_is_named(tmp_path: Path, header: str, row: str, left: list[str]) -> None:
    """Columns that mean nothing to any shape of table; those that do are not among them."""
    file = tmp_path / "table.csv"
    file.write_text(f"{header}\n{row}\n")
    table = read_table(file)
    assert left_out(table, layout_of(table)) == left


@pytest.mark.parametrize(
    ("word", "western"),
    [
        ("plain", True), ("caf\u00e9", True), ("\u00e0", True), ("th\u00e9i\u00e8re", True), ("\u00e9t\u00e9", False),
        ("d\u2019\u00e9t\u00e9s,", True), ("caf\u00c9", False), ("\u00c9T\u00c9S", True), ("na\u00b0ve", False),
        ("\u00cf\u00f0\u00e8\u00e2", False), ("5\u00aa", False), ("(co\u00f6p-er)", True), ("\u0192oo", False),
    ],
)  # fmt: skip
def test_words_of_the_west_have_few_accents_and_no_signs(word: str, western: bool) -> None:
    """One accent is fine, more only up to half of the letters; a sign amid letters, or a capital behind a small one, is
    what another code page leaves."""
    assert _western(word) is western


@pytest.mark.parametrize(
    ("rows", "read"),
    [
        (["a,sd15,0.5,", "b,sdxl,0.6, "], [["a", "sd15", "0.5"], ["b", "sdxl", "0.6"]]),  # each row ends with a comma
        (["1,a,sd15,0.5", "2,b,sdxl,0.6"], [["a", "sd15", "0.5"], ["b", "sdxl", "0.6"]]),  # R names the rows
        (["1,a,sd15,0.5", "1,b,sdxl,0.6"], None),  # two rows of one name are none of R's
        (["x,a,sd15,0.5", "y,b,sdxl,0.6"], None),
        (["a,sd15,0.5,", "b,sdxl,0.6,1"], None),
        (["a,sd15,0.5", "b,sdxl,0.6,"], None),
        (["a,sd15", "b,sdxl"], None),
    ],
)
def test_rows_are_as_wide_as_the_header(tmp_path: Path, rows: list[str], read: list[list[str]] | None) -> None:
    """One field too many in all of them is an empty one at the end, or R's number of the row; all else is refused with
    the line."""
    file = tmp_path / "table.csv"
    file.write_text("\n".join(["prompt,model,score", *rows]) + "\n")
    if read is None:
        with pytest.raises(ArtifactError, match=r"table.csv:[23]: . fields where the header has 3"):
            read_table(file)
    else:
        assert [row for _, row in read_table(file).rows] == read
