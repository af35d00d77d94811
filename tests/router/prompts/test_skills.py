"""The trained skill heads: shipped, verified, and better than the rules where their card says so."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks.router_skills.training import Labelled, train_skills
from router.errors import ArtifactError
from router.prompts.embedding import MiniLMEmbedder
from router.prompts.lexical import SIGNALS, lexical_features
from router.prompts.skills import FOLDER, SKILLS, complexity, load_skills


def signals(prompt: str, embedder: MiniLMEmbedder) -> dict[str, float]:
    return load_skills().signals(lexical_features(prompt), embedder.embed([prompt])[0])


@pytest.mark.shipped_weights
@pytest.mark.parametrize(
    ("prompt", "skill"),
    [
        ('a shop with a sign that says "OPEN"', "text_rendering"),
        ("three cats", "counting"),
        ("a red cube and a blue sphere", "attribute_binding"),
        ("a cat to the left of a dog", "spatial_relation"),
        ("a street without cars", "negation"),
        ("a dog, a cat and a horse", "several_objects"),
    ],
)
def test_a_skill_that_is_asked_for_is_seen(embedder: MiniLMEmbedder, prompt: str, skill: str) -> None:
    """The head of the skill in question says yes, and says no of a plain prompt."""
    found = signals(prompt, embedder)
    assert tuple(found) == SIGNALS
    assert found[skill] > 0.5
    assert signals("a quiet forest", embedder)[skill] < 0.5


@pytest.mark.parametrize("prompt", ["", "🎨" * 50, "红色的圆 два", "x" * 1_000_000])
def test_any_text_has_signals(embedder: MiniLMEmbedder, prompt: str) -> None:
    """Every text gets every signal within 0..1."""
    assert all(0 <= value <= 1 for value in signals(prompt, embedder).values())


def test_complexity_adds_up_what_is_asked() -> None:
    """Each further skill, and each further word, makes a prompt more complex."""
    nothing = dict.fromkeys(SKILLS, 0.0)
    grades = [complexity(nothing | dict.fromkeys(SKILLS[:k], 1.0), 5) for k in range(len(SKILLS) + 1)]
    assert grades == sorted(grades)
    assert 0 < grades[0] < 0.15 < 0.9 < grades[-1] < 1
    assert complexity(nothing, 100) > complexity(nothing, 10)


def test_heads_learn_from_labelled_prompts_only(embedder: MiniLMEmbedder, tmp_path: Path) -> None:
    """A set that is silent on a skill neither teaches nor judges it, and the card reports what was held out."""
    one = [Labelled(f"{n} {thing}", "a", dict.fromkeys(SKILLS, True)) for n in ("two", "six") for thing in "abcdefghij"]
    none = [Labelled(f"a {thing}", "b", dict.fromkeys(SKILLS, False)) for thing in "abcdefghijklmnopqrst"]
    judged = [Labelled("three x", "c", {"counting": True}), Labelled("an x", "c", {"counting": False})]
    _, reports = train_skills([*one, *none], tmp_path / "heads", "made up", "CC0", embedder, judged)
    assert [r.skill for r in reports if r.held_out == "c"] == ["counting"]
    assert all(r.accuracy > 0.9 for r in reports if r.held_out == "folds")
    load_skills(tmp_path / "heads")


def test_changed_heads_are_refused(tmp_path: Path) -> None:
    """Skill heads are verified like any artefact, and a predictor is not taken for them."""
    copy = Path(shutil.copytree(FOLDER, tmp_path / "heads"))
    (copy / "config.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"config.json was changed"):
        load_skills(copy)
    with pytest.raises(ArtifactError, match="this Triptych reads 'triptych-skill-heads'"):
        load_skills(FOLDER.parent / "embedded")
