"""Reading policy files: the presets, what a file means, and every way to be wrong."""

from __future__ import annotations

import pickle
from pathlib import Path

import jsonschema
import pytest
import yaml

from policies import PRESETS, Known, json_schema, load_policy, load_policy_text
from policies.language.patterns import MAX_TEXT, check_pattern, matches
from router.errors import PolicyError
from router.types import Chain, Fuse, Generate, Refine, Upscale
from tests.policies.values import HEAD, MODELS, QUALITY, RECIPES, policy

KNOWN = Known(MODELS, signals=("text_rendering", "counting", "complexity"), schedulers=("default", "dpmsolver++"))


def problems_of(text: str) -> tuple[str, ...]:
    with pytest.raises(PolicyError) as caught:
        load_policy_text(text, "test.yaml", known=KNOWN)
    return caught.value.problems


@pytest.mark.parametrize("name", ["fast", "balanced", "best", "frugal", "product-photo"])
def test_preset_loads(name: str) -> None:
    """Every preset loads against the catalogue ids, the known signals and the known schedulers."""
    loaded = load_policy(PRESETS / f"{name}.yaml", known=KNOWN)
    assert loaded.name == name
    assert loaded.recipes
    assert loaded.description


def test_presets_share_recipes() -> None:
    """The same name means the same recipe in every preset, so that what is learned about one holds for all."""
    meanings: dict[str, set[str]] = {}
    for path in PRESETS.glob("*.yaml"):
        for name, recipe in load_policy(path).recipes.items():
            meanings.setdefault(name, set()).add(repr(recipe))
    assert {name: found for name, found in meanings.items() if len(found) > 1} == {}


def test_json_schema_accepts_presets() -> None:
    """The exported JSON Schema is valid, accepts the presets and refuses an unknown key."""
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for path in PRESETS.glob("*.yaml"):
        assert list(validator.iter_errors(yaml.safe_load(path.read_text()))) == []
    short = {"version": 1, "name": "x", "objective": {"maximise": "quality"}, "defaults": {"generate": {"steps": 9}}}
    short["recipes"] = {"a": {"generate": {"model": "sd15"}}, "b": {"extends": "a", "generate": {"steps": 3}}}
    assert list(validator.iter_errors(short)) == []
    broken = yaml.safe_load((PRESETS / "fast.yaml").read_text()) | {"verifyy": {}}
    assert not validator.is_valid(broken)


def test_recipes_become_values() -> None:
    """Chains, fusions, inline recipes and names become the recipe values that the router plans."""
    text = RECIPES + "  big: {chain: [premium, {upscale: {factor: 2}}]}\n"
    text += "  duel: {fuse: {with: best_of, scorer: alignment, of: [standard, {generate: {model: flux, steps: 4}}]}}\n"
    text += "  studio: {fuse: {with: frequency, high: standard, low: premium}}\n"
    recipes = policy(recipes=text).recipes
    assert recipes["draft"] == Generate("sd15", steps=12)
    assert recipes["standard"] == Chain((Generate("sdxl", until=0.8), Refine("sdxl-refiner", from_=0.8)))
    assert recipes["big"] == Chain((Generate("flux"), Refine("sdxl-refiner", strength=0.25), Upscale(2.0)))
    assert recipes["duel"] == Fuse("best_of", ("standard", Generate("flux", steps=4)), "alignment")
    assert recipes["studio"] == Fuse("frequency", ("premium", "standard"))


def test_digest_follows_content() -> None:
    """The digest ignores comments, layout, description and the order of keys, and follows a changed weight."""
    first = load_policy_text(HEAD + RECIPES + "objective: {maximise: quality, weight: {cost_usd: 8}}\n")
    same = load_policy_text(
        "# a comment\nobjective:\n  weight: {cost_usd: 8.0}\n  maximise: quality\n"
        + RECIPES
        + HEAD
        + "description: x\n"
    )
    other = load_policy_text(HEAD + RECIPES + "objective: {maximise: quality, weight: {cost_usd: 9}}\n")
    assert first.digest == same.digest != other.digest
    assert len(first.digest) == 12
    assert int(first.digest, 16) >= 0


def test_policy_crosses_processes() -> None:
    """A policy survives being sent to another process."""
    sent = policy()
    assert pickle.loads(pickle.dumps(sent)) == sent  # noqa: S301


def test_scalars_of_yaml_12() -> None:
    """`1e-4` is a number, and `no` is a name and not a truth value."""
    loaded = policy("limits: {cost_usd: 1e-4}\n" + QUALITY, "recipes: {no: {generate: {model: sd15}}}\n")
    assert loaded.limits.cost_usd == 1e-4
    assert list(loaded.recipes) == ["no"]


def test_anchors_may_be_used() -> None:
    """Anchors and aliases in moderation mean what they mean in YAML."""
    recipes = "recipes:\n  a: {generate: &g {model: sd15}}\n  b: {generate: *g}\n"
    loaded = policy(recipes=recipes)
    assert loaded.recipes["a"] == loaded.recipes["b"]


TAIL = RECIPES + QUALITY


def rule(text: str) -> str:
    return HEAD + TAIL + "rules:\n- " + text + "\n"


def test_all_problems_at_once() -> None:
    """One reading reports every mistake, in the order of the file, each exactly once."""
    text = """version: 1
name: test
recipes:
  a: {generate: {model: sd15, stepz: 3, steps: 0}}
  b: {chain: [a, {refine: {model: flx, strength: 0.3}}]}
limits: {latency: 3}
objective: {maximise: speed}
rules:
  - {name: r, when: {tag: x}, never: [c]}
"""
    found = problems_of(text)
    assert [int(problem.split(":")[1]) for problem in found] == [4, 4, 5, 6, 7, 9]
    with pytest.raises(PolicyError, match="6 problems") as caught:
        load_policy_text(text, "test.yaml", known=KNOWN)
    assert all(problem in str(caught.value) for problem in found)


def test_names_outside_are_checked_only_if_known() -> None:
    """Without a catalogue at hand, model ids, signals and schedulers are taken as they are."""
    text = rule("{name: r, when: {signal: anything, above: 0.5}, only: [draft]}").replace("sd15", "some-model")
    assert load_policy_text(text).recipes["draft"] == Generate("some-model", steps=12)


def test_file_problems(tmp_path: Path) -> None:
    """A missing file, a folder, a wrong encoding and a file of another name are problems of that file."""
    (tmp_path / "dir.yaml").mkdir()
    (tmp_path / "latin.yaml").write_bytes(HEAD.encode() + b"description: caf\xe9\n")
    (tmp_path / "other.yaml").write_text(HEAD + TAIL)
    (tmp_path / "bom.yaml").write_text("\ufeff" + (HEAD + TAIL).replace("name: test", "name: bom"), encoding="utf-8")
    for name, message in {
        "none": "none.yaml:1:1: cannot be read: no such file",
        "dir": "dir.yaml:1:1: cannot be read: no such file",
        "latin": "latin.yaml:3:17: byte 0xe9 is not UTF-8",
        "other": "other.yaml:2:7: the policy is named 'test' but its file 'other'",
    }.items():
        with pytest.raises(PolicyError) as caught:
            load_policy(tmp_path / f"{name}.yaml")
        assert message in caught.value.problems[0]
    assert load_policy(tmp_path / "bom.yaml").name == "bom"


def test_error_survives_pickling() -> None:
    """A policy error keeps message and problems when it crosses a process border."""
    with pytest.raises(PolicyError) as caught:
        load_policy_text("version: 1\n", "x.yaml")
    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301
    assert (str(copy), copy.problems) == (str(caught.value), caught.value.problems)


@pytest.mark.parametrize(
    "pattern",
    [r"\b(poster|sign|banner)s?\b", "red.{0,40}ball", ".*x", "[a-z]+ly$", r"\d{4}-\d{2}", "(a+)+$", ".*a.*b"],
)
def test_useful_patterns_are_accepted(pattern: str) -> None:
    """The patterns that rules are written with pass the check and end on a hostile prompt, nested repeats included."""
    assert check_pattern(pattern) == pattern
    matches(pattern, "a" * 40_000)


@pytest.mark.parametrize(
    "pattern", [r"(.)\1", "(?=x)red", "(?<!x)red", "a++", "(.{0,99}){0,9}x", r"\pL{1,1000}", r"\bübung", "x" * 201]
)
def test_costly_patterns_are_refused(pattern: str) -> None:
    """A pattern that needs backtracking, is too large, or would silently miss letters is refused."""
    with pytest.raises(ValueError, match=r"not supported|too large|letters a to z|at most 200"):
        check_pattern(pattern)


def test_pattern_looks_at_a_bounded_text() -> None:
    """Upper and lower case are alike, in every script, and what lies beyond the bound is not looked at."""
    assert matches("poster", "A POSTER")
    assert matches("größe", "DIE GRÖSSE, DIE GRÖẞE")
    assert matches("red", "\ud800 a red circle")
    assert not matches("poster", " " * MAX_TEXT + "poster")
