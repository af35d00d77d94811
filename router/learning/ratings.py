"""A table of ratings: how good the picture of one recipe was on one prompt. Read, checked, made a matrix."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from router.errors import ArtifactError, did_you_mean
from router.learning.tables import read_table
from router.quality.ratings_table import RatingsTable, Scale

COLUMNS = ("prompt", "recipe", "score", "group", "raters", "weight")
REQUIRED = COLUMNS[:3]
ALIASES = {"model": "recipe"}
MIN_PROMPTS = 20
MAX_GROUP = 2_000  # characters of a group's name


@dataclass(frozen=True, slots=True)
class Rating:
    """score: on any scale, the same for all; recipe: its key (router/planning/recipes.py), a model's name being
    the simplest; group: prompts that must not be split between training and test (near-duplicates);
    weight: > 0, such as raters."""

    prompt: str
    recipe: str
    score: float
    group: str = ""
    weight: float = 1.0


def shares_of(columns: Sequence[str], served: Mapping[str, Mapping[str, float]]) -> NDArray[np.float64]:
    """The shares (len(columns), len(served)) of rated columns in those that are served.

    Raises `ArtifactError` for a part that is no column, a share that is not positive, and shares that do not add up to
    one.
    """
    shares = np.zeros((len(columns), len(served)))
    for k, (name, parts) in enumerate(served.items()):
        for part, share in parts.items():
            if part not in columns:
                raise ArtifactError(f"column {name!r}: {part!r} is not rated{did_you_mean(part, columns)}")
            if not share > 0:
                raise ArtifactError(f"column {name!r}: the share of {part!r} is {share:g}; it must be positive")
            shares[columns.index(part), k] = share
        if abs(shares[:, k].sum() - 1) > 1e-9:
            raise ArtifactError(f"column {name!r}: its shares add up to {shares[:, k].sum():g}; they must be 1")
    return shares


def read_ratings(path: str | Path, scale: Scale | None = None) -> list[Rating]:
    """Rows of a .tsv, .csv (perhaps .gz) or .parquet file whose header names prompt, recipe (or model), score and
    perhaps group, raters and weight; a row weighs `raters` times `weight`.

    Raises `ArtifactError` with file and line for anything that is missing, not a number, or outside `scale`.
    """
    file = Path(path)
    if not file.is_file():
        raise ArtifactError(f"{file}: there is no such ratings table")
    rows = read_table(file)
    _, header = next(rows, (1, []))
    names = [ALIASES.get(name, name) for name in header]
    for name in REQUIRED:
        if name not in names:
            spoken = "'model' (or 'recipe')" if name == "recipe" else repr(name)
            raise ArtifactError(f"{file}:1: no column {spoken}{did_you_mean(name, header)}")
        if names.count(name) > 1:
            raise ArtifactError(f"{file}:1: the column {name!r} is there twice; keep one of them")
    place = {name: names.index(name) for name in COLUMNS if name in names}
    ratings = []
    for line, row in rows:
        if any(row):
            ratings.append(rating := _rating(row, place, len(header), f"{file}:{line}"))
            if scale and not scale.low <= rating.score <= scale.high:
                raise ArtifactError(f"{file}:{line}: score {rating.score:g} is outside {scale.low:g}..{scale.high:g}")
    return ratings


def tabulate(ratings: Iterable[Rating], scale: Scale | None = None) -> RatingsTable:
    """Arrange ratings as a matrix; several ratings of one prompt and recipe become their weighted mean. Without
    `scale`, the scores themselves show their range.

    Raises `ArtifactError` if there is nothing to learn from: bad values, fewer than two recipes, too few prompts.
    """
    rows = list(ratings)
    sums: dict[tuple[str, str], tuple[float, float]] = {}
    groups: dict[str, str] = {}
    for number, rating in enumerate(rows, start=1):
        _check(rating, f"rating {number}")
        key = (rating.prompt, rating.recipe)
        total, weight = sums.get(key, (0.0, 0.0))
        sums[key] = (total + rating.weight * rating.score, weight + rating.weight)
        group = groups.setdefault(rating.prompt, rating.group or normal_group(rating.prompt))
        if rating.group and rating.group != group:
            raise ArtifactError(
                f"rating {number}: prompt {rating.prompt[:60]!r} is in groups {group[:60]!r} and {rating.group[:60]!r}"
            )
    prompts = tuple(groups)
    columns = tuple(dict.fromkeys(rating.recipe for rating in rows))
    if len(columns) < 2:
        raise ArtifactError(f"the table rates {len(columns)} recipe(s); routing needs at least two to choose between")
    if len(set(groups.values())) < MIN_PROMPTS:
        raise ArtifactError(
            f"the table has {len(set(groups.values()))} different prompts; at least {MIN_PROMPTS} are needed"
        )
    scale = scale or Scale.of([rating.score for rating in rows])
    scores = np.full((len(prompts), len(columns)), np.nan)
    weights = np.zeros_like(scores)
    row_of, column_of = ({name: k for k, name in enumerate(names)} for names in (prompts, columns))
    for (prompt, recipe), (total, weight) in sums.items():
        place = (row_of[prompt], column_of[recipe])
        scores[place], weights[place] = scale.unit(total / weight), weight
    for column, rated in zip(columns, (~np.isnan(scores)).sum(axis=0), strict=True):
        if rated < MIN_PROMPTS:
            raise ArtifactError(f"recipe {column!r} is rated on {rated} prompts; at least {MIN_PROMPTS} are needed")
    return RatingsTable(prompts, tuple(groups.values()), columns, scores, weights, scale)


def _rating(row: Sequence[str], place: dict[str, int], width: int, where: str) -> Rating:
    if len(row) != width:
        raise ArtifactError(f"{where}: {len(row)} fields where the header has {width}")
    rating = Rating(
        prompt=row[place["prompt"]],
        recipe=row[place["recipe"]],
        score=_number(row[place["score"]], "score", where),
        group=row[place["group"]] if "group" in place else "",
        weight=math.prod(_number(row[place[n]], n, where) for n in ("raters", "weight") if n in place),
    )
    _check(rating, where)
    return rating


def _number(text: str, name: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ArtifactError(f"{where}: {name} is {text!r}, not a number; leave the row out if it is missing") from None


def _check(rating: Rating, where: str) -> None:
    if not rating.prompt.strip() or not rating.recipe.strip():
        raise ArtifactError(f"{where}: the {'prompt' if rating.recipe.strip() else 'recipe'} is empty")
    if not math.isfinite(rating.score):
        raise ArtifactError(f"{where}: score {rating.score} is not a finite number; leave the row out if it is missing")
    if len(rating.group) > MAX_GROUP:
        raise ArtifactError(f"{where}: a group of {len(rating.group)} characters; name it in at most {MAX_GROUP}")
    if not (math.isfinite(rating.weight) and rating.weight > 0):
        raise ArtifactError(f"{where}: weight {rating.weight} must be a positive number")


def normal_group(prompt: str) -> str:
    """The group of a prompt that names none: itself, but for case and spaces; if it is very long, its digest, since an
    array of names takes as much for each as for the longest."""
    name = " ".join(prompt.casefold().split())
    return name if len(name) <= MAX_GROUP else hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()
