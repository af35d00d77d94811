"""A table of ratings: how good the picture of one recipe was on one prompt. Read, checked, made a matrix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from router.errors import ArtifactError, did_you_mean
from router.learning.tables.rating import Rating, alike, check, normal_group
from router.learning.tables.shapes import SPOKEN, Layout, layout_of, left_out, ratings_of
from router.learning.tables.table import Table, read_table
from router.quality.ratings_table import RatingsTable, Scale

MIN_PROMPTS = 20


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


def read_ratings(
    path: str | Path,
    scale: Scale | None = None,
    tell: Callable[[str], None] = lambda note: None,
    rename: Sequence[str] = (),
) -> list[Rating]:
    """The ratings of a file: text of any dialect, JSON Lines or Parquet (`router.learning.tables.table`), with a row a
    prompt and model (prompt, model or recipe, score), a column a model, or a row a vote between two models, and perhaps
    group, raters and weight; a row weighs `raters` times `weight`. Scores of votes are on 0..1.

    tell: is called with each thing that a person should know: first how the file was read;
    rename: "OLD=NEW", for models

    Raises `ArtifactError` with file, line and column for anything that is missing, not a number, or outside `scale`.
    """
    file = Path(path)
    table = read_table(file, "ratings table")
    layout = layout_of(table)
    if layout.shape == "votes" and scale and (scale.low, scale.high) != (0.0, 1.0):
        raise ArtifactError(f"{file} holds votes, whose scores are on 0..1; leave the scale out")
    name_of = renamed(layout.models, rename)
    comma = ", decimal comma" if layout.shape != "votes" and _has_commas(table, layout) else ""
    tell(f"read as: {table.read_as}{comma}; {SPOKEN[layout.shape]}: {', '.join(dict.fromkeys(name_of.values()))}")
    for note in table.notes:
        tell(note)
    if others := left_out(table, layout):
        tell(f"not looked at: {', '.join(others)}")
    ratings = []
    for where, rating in ratings_of(table, layout, name_of):
        if scale and not scale.low <= rating.score <= scale.high:
            raise ArtifactError(f"{where}: score {rating.score:g} is outside {scale.low:g}..{scale.high:g}")
        ratings.append(rating)
    if not ratings:
        raise ArtifactError(f"{file} holds no rating; write a row for each picture: {', '.join(table.header)}")
    for note in _to_be_looked_at(ratings):
        tell(note)
    return ratings


def renamed(models: Sequence[str], rename: Sequence[str]) -> dict[str, str]:
    """What each model is called after "OLD=NEW" for some. Raises `ArtifactError` for one that there is not."""
    names = {model: model for model in models}
    for text in rename:
        cuts = [(text[:k].strip(), text[k + 1 :].strip()) for k, character in enumerate(text) if character == "="]
        old, new = next((cut for cut in cuts if cut[0] in names), cuts[0] if cuts else (text, ""))
        if not new:
            raise ArtifactError(f"--map {text}: write OLD=NEW, such as {next(iter(models), 'sdxl_base')}=sdxl")
        if old not in names:
            raise ArtifactError(f"--map {text}: the table has no model {old!r}{did_you_mean(old, models)}")
        names[old] = new
    return names


def _has_commas(table: Table, layout: Layout) -> bool:
    return table.decimals(layout.places if layout.shape == "wide" else [table.place("score")]).comma


def _to_be_looked_at(ratings: Sequence[Rating]) -> Iterator[str]:
    """What is read, but may not be meant."""
    for kind, names in (("models", [r.recipe for r in ratings]), ("prompts", [r.prompt for r in ratings])):
        if pairs := alike(names):
            (one, other), more = pairs[0], f", and {len(pairs) - 1} more" if len(pairs) > 1 else ""
            yield (
                f"warning: {kind} {one[:60]!r} and {other[:60]!r} differ by case or spaces only{more}; they stay apart"
                + ("; --map OLD=NEW makes them one" if kind == "models" else "")
            )
    times = Counter((rating.prompt, rating.recipe) for rating in ratings)
    if again := [(key, count) for key, count in times.items() if count > 1]:
        (prompt, recipe), count = again[0]
        yield (
            f"pictures that are rated several times: {len(again)}, such as {recipe!r} on {prompt[:60]!r} "
            f"({count} times); each counts as one, with the weighted mean"
        )


def tabulate(ratings: Iterable[Rating], scale: Scale | None = None) -> RatingsTable:
    """Arrange ratings as a matrix; several ratings of one prompt and recipe become their weighted mean. Without
    `scale`, the scores themselves show their range.

    Raises `ArtifactError` if there is nothing to learn from: bad values, fewer than two recipes, too few prompts.
    """
    rows = list(ratings)
    sums: dict[tuple[str, str], tuple[float, float]] = {}
    groups: dict[str, str] = {}
    for number, rating in enumerate(rows, start=1):
        check(rating, f"rating {number}")
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


def common_prompts(table: RatingsTable, cheap: str, strong: str) -> int:
    """On how many prompts both are rated. Raises `ArtifactError` if they are too few to say which prompts are worth it,
    counting near-duplicates once."""
    one, other = table.columns.index(cheap), table.columns.index(strong)
    rows = np.flatnonzero(np.isfinite(table.scores[:, one] + table.scores[:, other]))
    groups = len({table.groups[row] for row in rows})
    if groups < MIN_PROMPTS:
        of_groups = f" of {groups} groups" if groups != len(rows) else ""
        raise ArtifactError(
            f"{cheap!r} and {strong!r} are rated together on {len(rows)} prompts{of_groups}; at least {MIN_PROMPTS} "
            "are needed to evaluate routing between them"
        )
    return len(rows)
