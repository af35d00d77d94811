"""Shapes of ratings tables, and what becomes of ratings: each rule beside the case that it must leave alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.errors import ArtifactError
from router.learning.ratings import MIN_PROMPTS, Rating, common_prompts, read_ratings, renamed, shares_of, tabulate
from router.learning.tables.rating import MAX_GROUP, alike, check, normal_group
from router.learning.tables.shapes import layout_of, left_out
from router.learning.tables.table import read_table
from router.quality.ratings_table import Scale


def save(folder: Path, text: str) -> Path:
    file = folder / "r.csv"
    file.write_text(text)
    return file


def by_model(ratings: list[Rating]) -> dict[tuple[str, str], tuple[float, float]]:
    return {(r.prompt, r.recipe): (r.score, r.weight) for r in ratings}


# --------------------------------------------------------------------------------------------------------------- shapes


@pytest.mark.parametrize(
    ("text", "shape", "models", "left"),
    [
        ("prompt,model,score,left,right\na,sd15,1,x,y\n", "long", ("sd15",), ["left", "right"]),
        ("prompt,model,score,winner\na,sd15,1,x\n", "long", ("sd15",), ["winner"]),
        ("prompt,recipe,score\na,sd15,1\nb,sd15,1\nb,flux,1\n", "long", ("sd15", "flux"), []),
        ("prompt,sd15,empty,flux\na,3,,4\n", "wide", ("sd15", "flux"), ["empty"]),
        ("prompt,sd15,place\na,3,1st\nb,4,second\n", "wide", ("sd15",), ["place"]),
        ("prompt,ID,SEED,sd15,raters,weight,prompt_group\na,1,2,3,1,1,g\n", "wide", ("sd15",), ["ID"]),
        ("prompt,a,b,choice,sd15\np,x,y,a,3\nq,z,x,b,4\n", "votes", ("x", "y", "z"), ["sd15"]),
        ("prompt,loser,winner\np,x,y\n", "votes", ("y", "x"), []),
    ],
)
def test_a_header_has_one_shape(
    tmp_path: Path, text: str, shape: str, models: tuple[str, ...], left: list[str]
) -> None:
    """Models and scores first, then votes, then a column a model: those that hold a number, or nothing that is none."""
    table = read_table(save(tmp_path, text))
    layout = layout_of(table)
    assert (layout.shape, layout.models) == (shape, models)
    assert left_out(table, layout) == left


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("prompt,left,right,score\na,x,y,1\n", "no column 'model' "),
        ("prompt,model,left,right,winner\na,sd15,x,y,x\n", "no column 'score'"),
        ("prompt,sd15\na,3\nb,oops\n", "r.csv:3: sd15 is 'oops'"),  # one number makes a column of scores
        ("prompt,metric,x\n" + "".join(f"a,{m},1\n" for m in "abcdef"), r"rows of 6 metrics \('a', 'b', 'c', 'd'\);"),
        ("prompt,model,score,raters\na,sd15,1,0\n", "r.csv:2: weight 0.0 must be a positive"),
        ("prompt,left,right,winner,weight\na,x,y,x,-1\n", "r.csv:2: weight -1.0 must be a positive"),
        ("prompt,left,right,winner\n,x,y,x\n", "r.csv:2: the prompt is empty"),
        ("prompt,winner,loser\na,x,x\n", "r.csv:2: 'x' is compared with itself"),
    ],
)
def test_a_table_that_nearly_has_a_shape_is_refused(tmp_path: Path, text: str, why: str) -> None:
    """What is missing or wrong is told for the shape that it comes nearest to."""
    with pytest.raises(ArtifactError, match=why):
        read_ratings(save(tmp_path, text))


def test_a_wide_table_of_one_metric_is_read(tmp_path: Path) -> None:
    """The name of the metric is about prompts; empty cells are none, weights and groups go with each of the row."""
    text = "prompt,metric,sd15,flux,raters,weight,group\na,mos,3,,2,3,g\nb,mos,1,2,1,1,\n"
    ratings = read_ratings(save(tmp_path, text))
    assert ratings == [Rating("a", "sd15", 3, "g", 6), Rating("b", "sd15", 1), Rating("b", "flux", 2)]


WAYS = {
    "names": ("model_a,model_b,winner", "{a},{b},{a}", "{a},{b},{b}", "{a},{b},tie"),
    "places": ("model_a,model_b,winner", "{a},{b},model_a", "{a},{b},model_b", "{a},{b},both bad"),
    "short": ("model1,model2,preference", "{a},{b},1", "{a},{b},2", "{a},{b},Both"),
    "turned": ("left,right,vote", "{b},{a},right", "{b},{a},LEFT", "{b},{a},same"),
    "letters": ("recipe_a,recipe_b,choice", "{a},{b},A", "{a},{b},recipe_b", "{a},{b},draw"),
}


@given(st.lists(st.tuples(st.sampled_from("pqr"), st.sampled_from(["xy", "yz", "zx"]), st.integers(0, 2)), max_size=8))
@settings(max_examples=15, deadline=None)
def test_votes_say_the_same_however_they_are_written(
    tmp_path_factory: pytest.TempPathFactory, told: list[tuple[str, str, int]]
) -> None:
    """Names, places, sides turned round: the same scores with the same weights."""
    told = [*told, ("p", "xy", 0), ("q", "yz", 2)]
    found = []
    for header, *forms in WAYS.values():
        rows = [f"{prompt},{forms[won].format(a=pair[0], b=pair[1])}" for prompt, pair, won in told]
        text = "\n".join([f"prompt,{header}", *rows])
        found.append(by_model(read_ratings(save(tmp_path_factory.getbasetemp(), text))))
    for other in found[1:]:
        assert other == {key: (pytest.approx(score, abs=1e-4), weight) for key, (score, weight) in found[0].items()}


def test_winner_and_loser_are_a_vote_for_the_first(tmp_path: Path) -> None:
    """Two columns say as much as three, whichever comes first."""
    three = read_ratings(save(tmp_path, "prompt,left,right,winner\np,x,y,left\nq,y,x,right\nq,y,z,left\n"))
    for header, rows in (("winner,loser", "p,x,y\nq,x,y\nq,y,z"), ("loser,winner", "p,y,x\nq,y,x\nq,z,y")):
        two = read_ratings(save(tmp_path, f"prompt,{header}\n{rows}\n"))
        assert {key: pytest.approx(value, abs=1e-6) for key, value in by_model(three).items()} == by_model(two)


def test_votes_of_a_group_are_shared_and_raters_count(tmp_path: Path) -> None:
    """Prompts of one group have one score for a model; without a group, case and spaces make none; a vote of five
    raters is five votes."""
    rows = ["one,x,y,x,g,1", "two,x,y,x,g,1", "three,x,y,y,,1", "Three ,x,y,y,,1"]
    ratings = read_ratings(save(tmp_path, "\n".join(["prompt,left,right,winner,group,raters", *rows])))
    scores = by_model(ratings)
    assert scores["one", "x"] == scores["two", "x"] != scores["three", "x"] == scores["Three", "x"]
    assert [r.group for r in ratings] == ["g", "g", "g", "g", "three", "three", "three", "three"]
    five = read_ratings(save(tmp_path, "prompt,left,right,winner,raters\np,x,y,x,5\np,x,y,y,1\n"))
    each = read_ratings(save(tmp_path, "prompt,left,right,winner\n" + "p,x,y,x\n" * 5 + "p,x,y,y\n"))
    assert by_model(five) == {key: (pytest.approx(score, abs=1e-6), 6.0) for key, (score, _) in by_model(each).items()}


# -------------------------------------------------------------------------------------------------------------- ratings


@pytest.mark.parametrize(
    ("rating", "why"),
    [
        (Rating(" ", "b", 1), "the prompt is empty"),
        (Rating("a", " ", 1), "the recipe is empty"),
        (Rating("a", "b", float("inf")), "score inf is not a finite number"),
        (Rating("a", "b", 1, "g" * 2_001), "a group of 2001 characters; name it in at most 2000"),
        (Rating("a", "b", 1, "", float("inf")), "weight inf must be"),
        (Rating("a", "b", 1, "", 0.0), "weight 0.0 must be"),
    ],
)
def test_a_rating_is_whole_or_refused(rating: Rating, why: str) -> None:
    """Neither empty nor infinite; a name of 2,000 characters is one, a longer one none."""
    with pytest.raises(ArtifactError, match=f"r.csv:2: {why}"):
        check(rating, "r.csv:2")
    check(Rating("a", "b", -1.0, "g" * MAX_GROUP, 1e-9), "r.csv:2")


def test_very_long_prompts_are_grouped_by_their_digest() -> None:
    """Up to 2,000 characters a group is the prompt itself, in small letters and single spaces."""
    assert normal_group(" A  Cat\n") == "a cat"
    assert normal_group("x" * MAX_GROUP) == "x" * 2_000
    assert len(normal_group("x" * 2_001)) == 64 != normal_group("y" * 2_001)
    assert normal_group("X" * 2_001) == normal_group("x" * 2_001)


def test_only_the_first_of_names_that_are_alike_is_named() -> None:
    """Each further spelling is a pair with it; the same spelling twice is none."""
    assert alike(["a b", "AB", "c", "a b", "ab", "C"]) == [("a b", "AB"), ("a b", "ab"), ("c", "C")]


def test_a_map_is_cut_where_it_names_a_model() -> None:
    """Keys may hold an equals sign on either side."""
    assert renamed(["a=b", "c"], ["a=b=x=1", "c = d"]) == {"a=b": "x=1", "c": "d"}
    assert renamed(["a", "a=b"], ["a=b=c"]) == {"a": "b=c", "a=b": "a=b"}
    with pytest.raises(ArtifactError, match="--map x: write OLD=NEW, such as a=sdxl"):
        renamed(["a"], ["x"])
    with pytest.raises(ArtifactError, match="no model 'b'"):
        renamed(["a"], ["b=c=d"])


@pytest.mark.parametrize(
    ("text", "scale", "why"),
    [
        ("prompt,model,score\na,x,0.99\n", Scale(1, 5), "r.csv:2: score 0.99 is outside 1..5"),
        ("prompt,model,score\na,x,5.01\n", Scale(1, 5), "r.csv:2: score 5.01 is outside 1..5"),
        ("prompt,model,score\na,x,1\nb,x,5\n", Scale(1, 5), ""),
        ("prompt,left,right,winner\na,x,y,x\n", Scale(0, 5), "on 0..1; leave the scale out"),
        ("prompt,left,right,winner\na,x,y,x\n", Scale(-1, 1), "on 0..1; leave the scale out"),
        ("prompt,left,right,winner\na,x,y,x\n", Scale(0, 1), ""),
    ],
)
def test_scores_lie_on_the_scale(tmp_path: Path, text: str, scale: Scale, why: str) -> None:
    """Both of its ends belong to it; votes are on 0..1 and nothing else."""
    file = save(tmp_path, text)
    if why:
        with pytest.raises(ArtifactError, match=why):
            read_ratings(file, scale)
    else:
        assert read_ratings(file, scale)


def test_what_may_not_be_meant_is_said_once_with_how_much_more(tmp_path: Path) -> None:
    """Of names that are alike the first pair, of pictures rated several times the first, each with the number of all;
    of one there is no more."""
    notes: list[str] = []
    text = "prompt,model,score\n" + "".join(f"{p},{m},1\n" for p in ("a", "b") for m in ("x", "X", "X "))
    read_ratings(save(tmp_path, text), tell=notes.append)
    assert notes[-2:] == [
        "warning: models 'x' and 'X' differ by case or spaces only; they stay apart; --map OLD=NEW makes them one",
        "pictures that are rated several times: 2, such as 'X' on 'a' (2 times); each counts as one, with the weighted "
        "mean",
    ]
    notes.clear()
    read_ratings(save(tmp_path, "prompt,model,score\n" + "".join(f"{p},x,1\n" for p in "aAbB")), tell=notes.append)
    assert notes[-1] == "warning: prompts 'a' and 'A' differ by case or spaces only, and 1 more; they stay apart"


def test_decimal_commas_are_said_where_there_are_any(tmp_path: Path) -> None:
    """Of scores in long and wide tables."""
    for text in ("prompt;model;score\na;x;1,5\n", "prompt;x;y\na;1,5;2\n"):
        notes: list[str] = []
        assert read_ratings(save(tmp_path, text), tell=notes.append)[0].score == 1.5
        assert "semicolon-separated, UTF-8, decimal comma; a " in notes[0]


def _rated(prompts: int, *columns: str) -> list[Rating]:
    return [Rating(f"p{k}", column, k / prompts) for k in range(prompts) for column in columns]


def test_twenty_prompts_are_enough_and_nineteen_are_not() -> None:
    """For the table and for each of its columns; the least of two recipes is two."""
    assert tabulate(_rated(MIN_PROMPTS, "a", "b")).scores.shape == (20, 2)
    with pytest.raises(ArtifactError, match="19 different prompts; at least 20"):
        tabulate(_rated(19, "a", "b"))
    with pytest.raises(ArtifactError, match="'b' is rated on 19 prompts; at least 20"):
        tabulate([*_rated(30, "a"), *_rated(19, "b")])
    with pytest.raises(ArtifactError, match="rates 1 recipe"):
        tabulate(_rated(30, "a"))


def test_a_table_holds_weighted_means_on_its_scale() -> None:
    """Several ratings of a picture are one; what was not rated has no score and no weight; without a scale the scores
    are the scale."""
    rows = [*_rated(30, "a"), *_rated(20, "b"), Rating("p3", "a", 1.0, weight=3.0), Rating("P3", "b", 0.5)]
    table = tabulate(rows, Scale(-1, 1))
    assert table.columns == ("a", "b") and len(table.prompts) == 31
    assert table.scores[3, 0] == pytest.approx((((0.1 + 3 * 1.0) / 4) + 1) / 2) and table.weights[3, 0] == 4
    assert np.isnan(table.scores[25, 1]) and table.weights[25, 1] == 0
    assert table.groups[3] == table.groups[30] == "p3" and len(set(table.groups)) == 30
    assert tabulate(_rated(20, "a", "b")).scale == Scale(0, 1)
    assert tabulate([*_rated(20, "a", "b"), Rating("p0", "a", -3.0)]).scale == Scale(-3, 0.95)


def test_pairs_need_twenty_groups_in_common() -> None:
    """Rows count, near-duplicates once."""
    table = tabulate([*_rated(30, "a"), *_rated(20, "b"), *_rated(25, "c")])
    assert common_prompts(table, "a", "b") == 20 and common_prompts(table, "a", "c") == 25
    table = tabulate([*_rated(25, "a"), *(Rating(f"p{k}" if k < 19 else f"q{k}", "b", 0.5) for k in range(25))])
    with pytest.raises(ArtifactError, match="rated together on 19 prompts; at least 20 are"):
        common_prompts(table, "a", "b")
    table = tabulate(
        [Rating(f"p{k}", name, 0.5, f"g{min(k, 18)}") for k in range(30) for name in "ab"]
        + [Rating(f"q{k}", name, 0.5) for k in range(9) for name in "ac"]
        + _rated(20, "c")
    )
    with pytest.raises(ArtifactError, match="together on 30 prompts of 19 groups; at least 20"):
        common_prompts(table, "a", "b")


@pytest.mark.parametrize(
    ("served", "why"),
    [
        ({"x": {"a": 0.5, "c": 0.5}}, "column 'x': 'c' is not rated"),
        ({"x": {"a": 1.5, "b": -0.5}}, "the share of 'b' is -0.5; it must be positive"),
        ({"x": {"a": 1.0, "b": 0.0}}, "the share of 'b' is 0; it must be positive"),
        ({"x": {"a": 0.5, "b": 0.4}}, "its shares add up to 0.9; they must be 1"),
        ({"x": {"a": 0.5, "b": 0.6}}, "its shares add up to 1.1; they must be 1"),
    ],
)
def test_shares_add_up_to_one(served: dict[str, dict[str, float]], why: str) -> None:
    """Of columns that are rated, each positive; rounding is forgiven."""
    with pytest.raises(ArtifactError, match=why):
        shares_of(["a", "b"], served)
    thirds = shares_of(["a", "b"], {"x": {"b": 1.0}, "y": {"a": 0.1 + 0.2, "b": 0.7}})
    assert thirds.tolist() == [[0.0, 0.1 + 0.2], [1.0, 0.7]]
