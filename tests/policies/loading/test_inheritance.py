"""`defaults` and `extends`: what a short file means in full."""

from __future__ import annotations

import pytest

from policies import Policy, load_policy_text
from router.errors import PolicyError
from router.types import Chain, Fuse, Generate, Refine
from tests.policies.values import HEAD, QUALITY


def load(text: str) -> Policy:
    return load_policy_text(HEAD + text + QUALITY, "test.yaml")


def test_extends_merges_key_by_key() -> None:
    """A recipe that extends another has its keys, with its own over them, through several generations."""
    recipes = load("""recipes:
  draft: {generate: {model: sd15, steps: 12, scheduler: dpmsolver++}}
  finer: {extends: draft, generate: {steps: 30}}
  finest: {extends: finer, generate: {guidance_scale: 5}}
  same: {extends: draft}
""").recipes
    assert recipes["finer"] == Generate("sd15", steps=30, scheduler="dpmsolver++")
    assert recipes["finest"] == Generate("sd15", steps=30, guidance_scale=5, scheduler="dpmsolver++")
    assert recipes["same"] == recipes["draft"]


def test_extends_works_for_every_kind_with_settings() -> None:
    """Fusions and best-of-n are extended like single models, and may stand before what they extend."""
    recipes = load("""recipes:
  sure: {extends: four, best_of: {accept_above: 0.9}}
  four: {best_of: {n: 4, of: draft, scorer: alignment}}
  draft: {generate: {model: sd15}}
  other: {generate: {model: sdxl}}
  duel: {fuse: {with: best_of, scorer: alignment, of: [draft, other]}}
  trio: {extends: duel, fuse: {of: [draft, other, {generate: {model: flux}}]}}
""").recipes
    assert recipes["sure"] == Fuse("best_of", ("draft",) * 4, "alignment", 0.9)
    assert recipes["trio"] == Fuse("best_of", ("draft", "other", Generate("flux")), "alignment")


def test_defaults_reach_every_stage() -> None:
    """Defaults stand under the settings of every recipe of their kind, also of those inside chains and fusions."""
    recipes = load("""defaults:
  generate: {steps: 9, scheduler: euler}
  refine: {model: sdxl-refiner, strength: 0.3}
  fuse: {scorer: alignment}
recipes:
  draft: {generate: {model: sd15}}
  polished: {chain: [{generate: {model: sdxl, steps: 40}}, {refine: {}}]}
  handed: {chain: [{generate: {model: sdxl, until: 0.8}}, {refine: {from: 0.8}}]}
  duel: {fuse: {with: best_of, of: [draft, {generate: {model: flux}}]}}
  mix: {fuse: {with: average, of: [draft, polished]}}
""").recipes
    assert recipes["draft"] == Generate("sd15", steps=9, scheduler="euler")
    assert recipes["polished"] == Chain(
        (Generate("sdxl", steps=40, scheduler="euler"), Refine("sdxl-refiner", strength=0.3))
    )
    assert recipes["handed"] == Chain(
        (Generate("sdxl", steps=9, scheduler="euler", until=0.8), Refine("sdxl-refiner", from_=0.8))
    )
    assert recipes["duel"] == Fuse("best_of", ("draft", Generate("flux", steps=9, scheduler="euler")), "alignment")
    assert recipes["mix"] == Fuse("average", ("draft", "polished"))


def test_the_digest_follows_what_a_file_means() -> None:
    """A file that says the same with and without inheritance has the same digest."""
    short = "defaults: {generate: {steps: 9}}\nrecipes:\n  a: {generate: {model: sd15}}\n  b: {extends: a}\n"
    long = "recipes:\n  a: {generate: {model: sd15, steps: 9}}\n  b: {generate: {steps: 9, model: sd15}}\n"
    assert load(short).digest == load(long).digest


def test_inherited_mistakes_are_shown_where_they_stand() -> None:
    """A wrong value that came by inheritance is reported at its own line, not at the recipe that inherits it."""
    with pytest.raises(PolicyError) as caught:
        load("defaults: {generate: {steps: many}}\nrecipes:\n  a: {generate: {model: sd15}}\n")
    assert caught.value.problems == ("test.yaml:3:30: recipes.a.generate.steps: should be a valid integer, not 'many'",)
