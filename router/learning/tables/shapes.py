"""The shape of a ratings table, told by its header: a row a prompt and model, a column a model, or a row a vote."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from router.errors import ArtifactError
from router.learning.tables.dialects import Row
from router.learning.tables.numbers import Decimals
from router.learning.tables.rating import Rating, check, normal_group
from router.learning.tables.table import Table
from router.learning.tables.votes import Vote, apart, scores_of

Shape = Literal["long", "wide", "votes"]
SPOKEN = {"long": "a row a prompt and model", "wide": "a column a model", "votes": "a row a vote between two models"}
GROUPS = ("group", "prompt_group")
WEIGHTS = ("raters", "weight")
SEEDS = ("seed", "image_id", "picture")
RATERS = ("rater", "rater_id", "annotator", "annotator_id")
SIDES = (
    ("model_a", "model_b"), ("model_1", "model_2"), ("model1", "model2"), ("recipe_a", "recipe_b"),
    ("modela", "modelb"), ("system_a", "system_b"), ("left", "right"), ("a", "b"), ("winner", "loser"),
)  # fmt: skip
WINNERS = ("winner", "preference", "preferred", "choice", "vote")
TIES = frozenset({"tie", "ties", "tied", "draw", "equal", "same", "both", "neither", "bothbad", "both_bad", "both bad",
                  "tie (bothbad)", "tie(bothbad)", "both good", "both_good"})  # fmt: skip
NO_MODELS = frozenset({
    "", "id", "index", "idx", "prompt_id", "image_id", "row", "line", "seed", "split", "metric", "category",
    "categories", "complexity", "length", "date", "time", "created", "timestamp", "mean", "average", "avg", "std", "n",
    "count", "unnamed: 0", "__index_level_0__",
})  # fmt: skip
"""Columns of a wide table that are about prompts, though they may hold numbers."""
_SCORE = re.compile(r"[-+]?[0-9]+(?:[.,][0-9]+)?")
_LIKE_A_SCORE = re.compile(r"[-+−]?[\d.,½¼¾]|(?:nan|na|n/a|inf|null|none)$", re.IGNORECASE)


@dataclass(frozen=True)
class Layout:
    """shape;   models: in the order in which they come;   places: of the columns that hold them or their scores"""

    shape: Shape
    models: tuple[str, ...]
    places: tuple[int, ...]


def layout_of(table: Table) -> Layout:
    """What a table looks like. Raises `ArtifactError` that says which columns it lacks for what it seems to be."""
    table.place("prompt")
    pair = next((pair for pair in SIDES if all(map(table.has, pair))), None)
    model = next((name for name in ("model", "recipe") if table.has(name)), None)
    where = f"{table.file}:{table.line}"
    if pair is not None and model is None and not table.has("score"):
        left, right = map(table.place, pair)
        _winner(table, pair)
        return Layout("votes", _unique(row[k] for _, row in table.rows for k in (left, right)), (left, right))
    if model is not None:
        if table.has("model") and table.has("recipe"):
            raise ArtifactError(f"{where}: the column 'recipe' is there twice, once as 'model'; keep one of them")
        at = table.place(model)
        table.place("score")
        return Layout("long", _unique(row[at] for _, row in table.rows), (at,))
    if table.has("score"):
        raise ArtifactError(f"{where}: no column 'model' (or 'recipe'){table.hint('model')}")
    places = tuple(k for k in range(len(table.header)) if _holds_scores(table, k))
    if not places:
        raise ArtifactError(
            f"{where}: no column 'model' (or 'recipe') and 'score', none with a model's scores, and no votes (model_a, "
            f"model_b, winner){table.hint('model')}"
        )
    return Layout("wide", tuple(table.header[k] for k in places), places)


def ratings_of(table: Table, layout: Layout, name_of: Mapping[str, str]) -> Iterator[tuple[str, Rating]]:
    """(file and line, rating) of each rating, models called by `name_of`; of votes, of each prompt and model.

    Raises `ArtifactError` with line and column.
    """
    return {"long": _long, "wide": _wide, "votes": _voted}[layout.shape](table, layout, name_of)


def left_out(table: Table, layout: Layout) -> list[str]:
    """Names of columns that are not looked at."""
    used = {
        "prompt",
        *GROUPS,
        *WEIGHTS,
        *(() if layout.shape == "votes" else (*SEEDS, *RATERS)),
        *({"score"} if layout.shape == "long" else ()),
    }
    used |= set(WINNERS) if layout.shape == "votes" else set()
    return [name for k, name in enumerate(table.header) if name and name.lower() not in used and k not in layout.places]


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _holds_scores(table: Table, place: int) -> bool:
    name = table.header[place].lower()
    if name in NO_MODELS or name in ("prompt", *GROUPS, *WEIGHTS, *SEEDS, *RATERS):
        return False
    given = [row[place] for _, row in table.rows if row[place]]
    # A column of nothing but misspelt numbers is one of scores, too: its line is named, instead of leaving it out.
    return any(map(_SCORE.fullmatch, given)) or (bool(given) and all(map(_LIKE_A_SCORE.match, given)))


def _common(table: Table, numbers: Iterable[int]) -> tuple[Decimals, Callable[[Row], tuple[str, float]]]:
    """How numbers are written, and a function from a row to its group and weight."""
    weights = [table.place(name) for name in WEIGHTS if table.has(name)]
    group = next((table.place(name) for name in GROUPS if table.has(name)), None)
    decimals = table.decimals([*numbers, *weights])

    def common(row: Row) -> tuple[str, float]:
        weight = math.prod((table.number(row, place, decimals) for place in weights), start=1.0)
        return row[1][group] if group is not None else "", weight

    return decimals, common


def _apart(table: Table) -> Callable[[Row], tuple[str, str]]:
    """A function from a row to the picture that it is of and the person who rated, "" where that is not told."""
    seed, rater = (next((table.place(n) for n in names if table.has(n)), None) for names in (SEEDS, RATERS))
    return lambda row: ("" if seed is None else row[1][seed], "" if rater is None else row[1][rater])


def _long(table: Table, layout: Layout, name_of: Mapping[str, str]) -> Iterator[tuple[str, Rating]]:
    prompt, model, score = table.place("prompt"), layout.places[0], table.place("score")
    decimals, common = _common(table, [score])
    apart_of = _apart(table)
    for row in table.rows:
        where = f"{table.file}:{row[0]}"
        group, weight = common(row)
        name = name_of[row[1][model]]
        rating = Rating(row[1][prompt], name, table.number(row, score, decimals), group, weight, *apart_of(row))
        check(rating, where)
        yield where, rating


def _wide(table: Table, layout: Layout, name_of: Mapping[str, str]) -> Iterator[tuple[str, Rating]]:
    """An empty cell is a picture that was not rated."""
    if table.has("metric"):
        metrics = _unique(row[table.place("metric")] for _, row in table.rows)
        if len(metrics) > 1:
            shown = ", ".join(map(repr, metrics[:4]))
            raise ArtifactError(f"{table.file} has rows of {len(metrics)} metrics ({shown}); keep those of one of them")
    prompt = table.place("prompt")
    decimals, common = _common(table, layout.places)
    apart_of = _apart(table)
    for row in table.rows:
        where = f"{table.file}:{row[0]}"
        group, weight = common(row)
        for place in layout.places:
            if row[1][place]:
                score = table.number(row, place, decimals)
                rating = Rating(row[1][prompt], name_of[table.header[place]], score, group, weight, *apart_of(row))
                check(rating, where)
                yield where, rating


def _voted(table: Table, layout: Layout, name_of: Mapping[str, str]) -> Iterator[tuple[str, Rating]]:
    votes = list(_votes(table, layout, name_of))
    if not votes:
        return
    first, *others = apart(votes)
    if others:
        raise ArtifactError(
            f"{table.file}: {', '.join(sorted(first)[:5])} and {', '.join(sorted(others[0])[:5])} were never compared, "
            "not even through others; nothing says which are better"
        )
    groups = {vote.prompt: vote.group for vote in votes}
    for (prompt, model), (score, weight) in scores_of(votes).items():
        yield str(table.file), Rating(prompt, model, score, groups[prompt], weight)


def _votes(table: Table, layout: Layout, name_of: Mapping[str, str]) -> Iterator[Vote]:
    prompt, (left, right) = table.place("prompt"), layout.places
    pair = (table.header[left].lower(), table.header[right].lower())
    winner = _winner(table, pair)
    _, common = _common(table, [])
    for row in table.rows:
        where, fields = f"{table.file}:{row[0]}", row[1]
        group, weight = common(row)
        one, other = name_of[fields[left]], name_of[fields[right]]
        for name in (one, other):
            check(Rating(fields[prompt], name, 0.0, group, weight), where)
        if one == other:
            raise ArtifactError(f"{where}: {one!r} is compared with itself")
        won = 1 if winner is None else _won(fields[winner], pair, (fields[left], fields[right]), where)
        yield Vote(fields[prompt], group or normal_group(fields[prompt]), one, other, won, weight)


def _winner(table: Table, pair: tuple[str, str]) -> int | None:
    """The column that says who won; None where the two columns do."""
    if pair == ("winner", "loser"):
        return None
    name = next((name for name in WINNERS if table.has(name)), None)
    if name is None:
        raise ArtifactError(
            f"{table.file}:{table.line}: no column 'winner' ({pair[0]}, {pair[1]}, tie, or the model's name), which a "
            "table of votes needs; a table of scores has a row a prompt and model: prompt, model, score"
        )
    return table.place(name)


def _won(said: str, columns: tuple[str, str], models: tuple[str, str], where: str) -> int:
    word = said.lower()
    if word in TIES:
        return 0
    short = [{name, re.sub(r"^(model|recipe|system)_?", "", name)} for name in columns]
    by_name = {sign for sign, model in zip((1, -1), models, strict=True) if word == model.lower()}
    by_place = {sign for sign, names in zip((1, -1), short, strict=True) if word in names}
    if len(found := by_name | by_place) == 1:
        return found.pop()
    if found:
        raise ArtifactError(f"{where}: winner is {said!r}, which may be either; write {columns[0]} or {columns[1]}")
    known = ", ".join((*columns, "tie", *models))
    raise ArtifactError(f"{where}: winner is {said!r}; write one of {known}")
