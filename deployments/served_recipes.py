"""What is served: the recipes of all policies by their keys, and what an artefact knows of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from policies import PolicyBook
from router.planning.recipes import recipe_key
from router.quality.predictor import QualityPredictor
from router.types import Catalogue, PromptView, Quality

SHOWN = 5  # names in a warning


@dataclass(frozen=True)
class ServedRecipe:
    """evidence: "rated" itself, "composed" from what is rated, or "none": its estimate is the mean of all ratings."""

    policy: str
    name: str
    key: str
    evidence: str


def served_recipes(book: PolicyBook, catalogue: Catalogue, predictor: QualityPredictor) -> list[ServedRecipe]:
    """Each recipe of each policy, the default policy first."""
    known = {column: Quality(0.5, 0.1, "learned") for column in predictor.columns}
    view = PromptView("", {}, {}, np.zeros(predictor.width, np.float32))
    found = []
    for policy in map(book.get, book.names()):
        qualities = predictor.predict(view, policy.recipes, known=known)
        for name, recipe in policy.recipes.items():
            key = recipe_key(recipe, policy.recipes, catalogue)
            basis = {"learned": "rated", "rule": "rated", "composed": "composed"}.get(qualities[name].basis, "none")
            found.append(ServedRecipe(policy.name, name, key, basis))
    return found


def stranger(columns: Sequence[str], recipes: Sequence[ServedRecipe]) -> str:
    """What to say of an artefact that knows nothing of what is served, or of all that one policy has; else nothing."""
    known = {recipe.policy for recipe in recipes if recipe.evidence != "none"}
    unknown = [policy for policy in dict.fromkeys(recipe.policy for recipe in recipes) if policy not in known]
    if not unknown:
        return ""
    whose = "the served policies" if not known else ", ".join(map(repr, unknown[:SHOWN]))
    example = next(recipe.key for recipe in recipes if recipe.policy in unknown)
    return (
        f"no recipe of {whose} follows from a column of the artefact ({_some(columns)}): their estimates are all the "
        f"mean of its ratings. `triptych router keys` prints their keys; train with --map {columns[0]}={example}, or "
        "the like"
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
