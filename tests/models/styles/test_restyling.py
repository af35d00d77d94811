"""docs/restyling-sd15.md: what it says in diffusers and in YAML is the same picture, and nothing stays behind."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import Engine, load_card, load_engine
from models.styles.cards import load_styles
from policies import load_policy_text
from router.planning.plan import make_plan
from router.types import GenerationRequest, ModelCard, Picture
from tests.router.cards import Cards

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/restyling-sd15.md").read_text(encoding="utf-8")
SECTIONS = {part.split("\n", 1)[0]: part for part in PAGE.split("\n## ")}
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CHANGES = (
    *("Scheduler", "Guidance rescale", "FreeU", "Perturbed attention", "Words that count more"),
    *("Another prompt's places", "CLIP skip", "Embedding mix", "Textual inversion", "LoRA", "LCM"),
)
SUMMED = ("LoRA", "LCM")
PROMPT = GenerationRequest("a red circle above a blue square", seed=3)


def blocks(section: str, language: str) -> list[str]:
    return [body for found, body in FENCE.findall(SECTIONS[section]) if found == language]


@pytest.fixture(scope="module")
def card() -> ModelCard:
    """The embedded SD1.5 under the name of the page."""
    return replace(load_card("embedded/sd15"), id="sd15", styles=load_styles())


@pytest.fixture(scope="module")
def sd15(card: ModelCard) -> Engine:
    return load_engine(card, threads=1)


@pytest.fixture(scope="module")
def space() -> Iterator[dict[str, Any]]:
    """What the page's Python has defined at its beginning."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        names: dict[str, Any] = {}
        exec(blocks(next(iter(SECTIONS)), "python")[0], names)
        names["pipe"].set_progress_bar_config(disable=True)
        yield names


def drawn(sd15: Engine, card: ModelCard, yaml: str) -> np.ndarray:
    """The picture of the only recipe of a block of YAML."""
    recipes = load_policy_text(f"version: 1\nname: page\n{yaml}objective: {{maximise: quality}}\n").recipes
    (name,) = recipes
    plan = make_plan(name, recipes[name], PROMPT, Cards({"sd15": card}), recipes)
    value = sd15.run(plan.steps[0]).value
    assert isinstance(value, Picture)
    return value.pixels


@pytest.mark.parametrize("section", CHANGES)
def test_yaml_and_diffusers_draw_the_same(sd15: Engine, card: ModelCard, space: dict[str, Any], section: str) -> None:
    """The Python of a section and its YAML give one picture, which is not the first one; that one comes back after.

    A LoRA is summed with the weights here and stands beside them in diffusers, so the last bits are rounded apart.
    """
    (python,), (yaml,) = blocks(section, "python"), blocks(section, "yaml")
    known = set(space)
    exec(python, space)
    (made,) = (
        name for name in re.findall(r"^(\w+) = (?:draw|pipe|other)\(", python, re.MULTILINE) if name not in known
    )
    picture = np.asarray(space[made])
    apart = np.abs(picture.astype(int) - drawn(sd15, card, yaml).astype(int)).max()
    assert apart <= (2 if section in SUMMED else 0)
    assert not np.array_equal(picture, np.asarray(space["before"]))
    assert np.array_equal(np.asarray(space["draw"]()), np.asarray(space["before"]))


def test_every_recipe_of_the_page_can_be_arranged(card: ModelCard) -> None:
    """All YAML of the page is a policy's, and its styles are there."""
    for yaml in (body for language, body in FENCE.findall(PAGE) if language == "yaml"):
        recipes = load_policy_text(f"version: 1\nname: page\n{yaml}objective: {{maximise: quality}}\n").recipes
        for name, recipe in recipes.items():
            assert any(
                "style" in step.settings
                for step in make_plan(name, recipe, PROMPT, Cards({"sd15": card}), recipes).steps
            )


def test_every_style_that_is_shipped_is_on_the_page(card: ModelCard) -> None:
    """The page changes a picture by each kind of style there is."""
    worn = {
        name for yaml in (b for s in CHANGES for b in blocks(s, "yaml")) for name in re.findall(r"style: {(\w+)", yaml)
    }
    assert worn == set(card.styles)
