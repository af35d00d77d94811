"""One rating, and what prompts and names that are nearly the same have in common."""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from router.errors import ArtifactError

MAX_GROUP = 2_000  # characters of a group's name


@dataclass(frozen=True, slots=True)
class Rating:
    """score: on any scale, the same for all; recipe: its key (router/planning/recipes.py), a model's name being
    the simplest; group: prompts that must not be split between training and test (near-duplicates);
    weight: > 0, such as raters;   seed, rater: which picture it is of and who rated, where that is told."""

    prompt: str
    recipe: str
    score: float
    group: str = ""
    weight: float = 1.0
    seed: str = ""
    rater: str = ""


def check(rating: Rating, where: str) -> None:
    """Raises `ArtifactError` for what is empty, not finite, or not positive. where: its file and line."""
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


def alike(names: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of names that differ by case, spaces or the coding of their characters only."""
    first: dict[str, str] = {}
    pairs = []
    for name in dict.fromkeys(names):
        bare = "".join(unicodedata.normalize("NFKC", name).casefold().split())
        if first.setdefault(bare, name) != name:
            pairs.append((first[bare], name))
    return pairs
