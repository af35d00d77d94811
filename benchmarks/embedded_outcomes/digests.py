"""Which weights and settings stored marks are of, so that those of other recipes need not be drawn again.

Beside a table with rows by recipe lies `drawn.json`: for each recipe a digest over its key and over what makes its
pictures, the weights of its models and styles and what their cards fill in. Rows whose recipe has another digest now
are stale.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from models.catalogue import Catalogue
from models.weights.revisions import digest, revision
from models.weights.style_files import file_of
from router.planning.recipes import models_of, stages_of
from router.types import Fuse, Generate, Recipe, Refine

FILE = "drawn.json"


def made_of(recipe: Recipe, catalogue: Catalogue, beside: Collection[str] = ()) -> list[list[object]]:
    """What a recipe's pictures are made of: models, `beside` among them, and styles, each with its revision.

    Of models also the steps, guidance and scheduler of their cards, which a recipe's key does not name.
    """
    found: list[list[object]] = []
    for model in sorted({*models_of(recipe), *beside}):
        card = catalogue[model]
        found.append([model, revision(card), card.steps, card.guidance_scale, card.scheduler])
    for name, model in sorted(set(_worn(recipe))):
        style = catalogue[model].styles[name]
        weights = digest(file_of(style)) if "file" in style.source else ""
        rest = [
            style.kind,
            style.weight,
            sorted(style.source.items() if not weights else ()),
            sorted(style.settings.items()),
        ]
        found.append([name, weights, *rest])
    return found


def _worn(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Styles of a resolved recipe, each with the model that wears it."""
    if isinstance(recipe, Fuse):
        for branch in recipe.branches:
            if not isinstance(branch, str):
                yield from _worn(branch)
        return
    for stage in stages_of(recipe):
        if isinstance(stage, Generate | Refine):
            yield from ((name, stage.model) for name, _ in stage.style)
        elif stage is not recipe:
            yield from _worn(stage)


def digests(
    recipes: Mapping[str, Recipe], catalogue: Catalogue, beside: Collection[str] = (), of: object = None
) -> dict[str, str]:
    """A digest of each recipe by its key; of: what else rows depend on, such as the number of prompts."""
    found = {}
    for key, recipe in recipes.items():
        body = json.dumps([key, made_of(recipe, catalogue, beside), of], sort_keys=True)
        found[key] = hashlib.sha256(body.encode()).hexdigest()[:16]
    return found


def known(table: Path) -> dict[str, str]:
    """The digests that the rows of a table were drawn with, by recipe."""
    file = table.with_name(FILE)
    told = json.loads(file.read_text(encoding="utf-8")) if table.exists() and file.exists() else {}
    return dict(told.get(table.stem, {}))


def note(table: Path, found: Mapping[str, str]) -> None:
    """Say of a table which digests its rows were drawn with; what is said of other tables stays."""
    file = table.with_name(FILE)
    told = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    file.write_text(json.dumps({**told, table.stem: dict(found)}, indent=1, sort_keys=True) + "\n", encoding="utf-8")
