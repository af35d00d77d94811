"""A table of ratings: how good the picture of one recipe was on one prompt. Read, checked, arranged as a matrix."""

from __future__ import annotations

import csv
import gzip
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from router.errors import ArtifactError, did_you_mean

COLUMNS = ("prompt", "recipe", "score", "group", "weight")
REQUIRED = COLUMNS[:3]
MIN_PROMPTS = 20


@dataclass(frozen=True, slots=True)
class Rating:
    """score: 0..1, the mean over seeds where there are several; recipe: its key (router/recipes.py);
    group: prompts that must not be split between training and test (near-duplicates); weight: > 0."""

    prompt: str
    recipe: str
    score: float
    group: str = ""
    weight: float = 1.0


@dataclass(frozen=True)
class RatingsTable:
    """prompts (n,), groups (n,) and columns (c,); scores and weights (n, c), NaN and 0 where not rated."""

    prompts: tuple[str, ...]
    groups: tuple[str, ...]
    columns: tuple[str, ...]
    scores: NDArray[np.float64] = field(repr=False)
    weights: NDArray[np.float64] = field(repr=False)


def read_ratings(path: str | Path) -> list[Rating]:
    """Rows of a .tsv or .csv file (perhaps .gz) whose header names prompt, recipe, score and perhaps group and weight.

    Raises `ArtifactError` with file and line for anything that is missing or not a number.
    """
    file = Path(path)
    if not file.is_file():
        raise ArtifactError(f"{file}: there is no such ratings table")
    data = file.read_bytes()
    try:
        text = (gzip.decompress(data) if file.suffix == ".gz" else data).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ArtifactError(
            f"{file} cannot be read ({error}); it must be UTF-8 text, gzipped only if called .gz"
        ) from error
    comma = ".csv" in file.suffixes
    # In TSV, a quotation mark is a character of the prompt like any other.
    reader = csv.reader(
        io.StringIO(text), delimiter="," if comma else "\t", quoting=csv.QUOTE_MINIMAL if comma else csv.QUOTE_NONE
    )
    header = next(reader, [])
    for name in REQUIRED:
        if name not in header:
            raise ArtifactError(f"{file}:1: no column {name!r}{did_you_mean(name, header)}")
    place = {name: header.index(name) for name in COLUMNS if name in header}
    try:
        return [_rating(row, place, len(header), f"{file}:{reader.line_num}") for row in reader if any(row)]
    except csv.Error as error:
        raise ArtifactError(f"{file}:{reader.line_num}: {error}") from error


def tabulate(ratings: Iterable[Rating]) -> RatingsTable:
    """Arrange ratings as a matrix; several ratings of one prompt and recipe become their weighted mean.

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
        group = groups.setdefault(rating.prompt, rating.group or _normal(rating.prompt))
        if rating.group and rating.group != group:
            raise ArtifactError(
                f"rating {number}: prompt {rating.prompt[:60]!r} is in groups {group!r} and {rating.group!r}"
            )
    prompts = tuple(groups)
    columns = tuple(dict.fromkeys(rating.recipe for rating in rows))
    if len(columns) < 2:
        raise ArtifactError(f"the table rates {len(columns)} recipe(s); routing needs at least two to choose between")
    if len(set(groups.values())) < MIN_PROMPTS:
        raise ArtifactError(
            f"the table has {len(set(groups.values()))} different prompts; at least {MIN_PROMPTS} are needed"
        )
    scores = np.full((len(prompts), len(columns)), np.nan)
    weights = np.zeros_like(scores)
    row_of = {prompt: k for k, prompt in enumerate(prompts)}
    for (prompt, recipe), (total, weight) in sums.items():
        place = (row_of[prompt], columns.index(recipe))
        scores[place], weights[place] = total / weight, weight
    for column, rated in zip(columns, (~np.isnan(scores)).sum(axis=0), strict=True):
        if rated < MIN_PROMPTS:
            raise ArtifactError(f"recipe {column!r} is rated on {rated} prompts; at least {MIN_PROMPTS} are needed")
    return RatingsTable(prompts, tuple(groups.values()), columns, scores, weights)


def _rating(row: Sequence[str], place: dict[str, int], width: int, where: str) -> Rating:
    if len(row) != width:
        raise ArtifactError(f"{where}: {len(row)} fields where the header has {width}")
    rating = Rating(
        prompt=row[place["prompt"]],
        recipe=row[place["recipe"]],
        score=_number(row[place["score"]], "score", where),
        group=row[place["group"]] if "group" in place else "",
        weight=_number(row[place["weight"]], "weight", where) if "weight" in place else 1.0,
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
    if not (math.isfinite(rating.score) and 0 <= rating.score <= 1):
        raise ArtifactError(f"{where}: score {rating.score} is outside 0..1; rescale the marks, e.g. (mark - 1) / 4")
    if not (math.isfinite(rating.weight) and rating.weight > 0):
        raise ArtifactError(f"{where}: weight {rating.weight} must be a positive number")


def _normal(prompt: str) -> str:
    return " ".join(prompt.casefold().split())
