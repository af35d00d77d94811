"""Reading policy files: the presets, what a file means, and every way to be wrong."""

from __future__ import annotations

import pickle
import time
from pathlib import Path

import jsonschema
import pytest
import yaml

from policies import PRESETS, Known, json_schema, load_policy, load_policy_text
from policies.patterns import MAX_TEXT, check_pattern, matches
from router.errors import PolicyError
from router.types import Chain, Fuse, Generate, Refine, Upscale
from tests.policies.values import HEAD, MODELS, QUALITY, RECIPES, policy

KNOWN = Known(MODELS, signals=("text_rendering", "counting"), schedulers=("default", "dpmsolver++"))


def problems_of(text: str) -> tuple[str, ...]:
    with pytest.raises(PolicyError) as caught:
        load_policy_text(text, "test.yaml", known=KNOWN)
    return caught.value.problems


@pytest.mark.parametrize("name", ["fast", "balanced", "best"])
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
ONE = "recipes: {a: {generate: {model: sd15}}}\n"


def chain(*stages: str) -> str:
    return HEAD + "recipes:\n  a:\n    chain:\n" + "".join(f"    - {stage}\n" for stage in stages) + QUALITY


def rule(text: str) -> str:
    return HEAD + TAIL + "rules:\n- " + text + "\n"


GEN = "{generate: {model: sdxl}}"
BROKEN = {
    "unknown key at the top": (HEAD + TAIL + "limit: {}\n", 8, "unknown key 'limit'; did you mean 'limits'?"),
    "unknown key in a recipe": (
        HEAD + "recipes:\n  a: {generate: {model: sd15, stepz: 3}}\n" + QUALITY,
        4,
        "recipes.a.generate: unknown key 'stepz'; did you mean 'steps'?",
    ),
    "key of a later version": (HEAD + TAIL + "styles: {}\n", 8, "'styles' is not supported"),
    "key that stands twice": (HEAD + TAIL + "name: again\n", 8, "'name' stands here a second time (first in line 2)"),
    "key that is a number": (HEAD + "recipes:\n  1: {}\n" + QUALITY, 4, "a key must be text"),
    "missing name": ("version: 1\n" + TAIL, 1, "the key 'name' is missing"),
    "other version": ("version: 2\nname: test\n" + TAIL, 1, "version: should be 1, not 2"),
    "version that is true": ("version: true\nname: test\n" + TAIL, 1, "version: should be 1, not True"),
    "reserved name": ("version: 1\nname: auto\n" + TAIL, 2, "'auto' is reserved"),
    "name with a slash": ("version: 1\nname: a/b\n" + TAIL, 2, "letters, digits"),
    "no recipes": (HEAD + "recipes: {}\n" + QUALITY, 3, "recipes: "),
    "empty file": ("# nothing\n", 1, "the file is empty"),
    "a list": ("- version\n", 1, "should be a mapping"),
    "text for a number": (
        HEAD + 'recipes:\n  a: {generate: {model: sd15, steps: "12"}}\n' + QUALITY,
        4,
        "recipes.a.generate.steps: should be a valid integer, not '12'",
    ),
    "nan": (HEAD + ONE + "limits: {latency_s: .nan}\n" + QUALITY, 4, "finite number"),
    "infinity": (HEAD + ONE + "limits: {latency_s: .inf}\n" + QUALITY, 4, "finite number"),
    "number beyond all numbers": (HEAD + ONE + "limits: {latency_s: 1e999}\n" + QUALITY, 4, "finite number"),
    "number of many digits": (HEAD + ONE + f"limits: {{latency_s: {'9' * 500}}}\n" + QUALITY, 4, "500 characters"),
    "negative limit": (HEAD + ONE + "limits: {cost_usd: -1}\n" + QUALITY, 4, "greater than 0"),
    "limits left empty": (HEAD + ONE + "limits:\n" + QUALITY, 4, "limits: should be a mapping"),
    "recipe of two kinds": (
        HEAD + "recipes:\n  a: {generate: {model: sd15}, upscale: {}}\n" + QUALITY,
        4,
        "a recipe has exactly one of",
    ),
    "recipe that is empty": (HEAD + "recipes:\n  a: {}\n" + QUALITY, 4, "a recipe has exactly one of"),
    "unknown model": (chain("{generate: {model: sdlx}}"), 6, "unknown model 'sdlx'; did you mean 'sdxl'?"),
    "unknown scheduler": (
        chain("{generate: {model: sdxl, scheduler: dpmsolver}}"),
        6,
        "unknown scheduler 'dpmsolver'; did you mean 'dpmsolver++'?",
    ),
    "unknown recipe in a chain": (chain("aa"), 6, "unknown recipe 'aa'"),
    "unknown recipe in a fusion": (
        HEAD + RECIPES + "  f: {fuse: {with: average, of: [draft, premum]}}\n" + QUALITY,
        7,
        "unknown recipe 'premum'; did you mean 'premium'?",
    ),
    "circle": (
        HEAD + "recipes:\n  a: {chain: [b]}\n  b: {chain: [c]}\n  c: {chain: [a]}\n" + QUALITY,
        6,
        "in a circle: a → b → c → a",
    ),
    "recipe of itself": (HEAD + "recipes:\n  a: {chain: [a]}\n" + QUALITY, 4, "in a circle: a → a"),
    "doubling by reference": (
        HEAD
        + "recipes:\n  r0: {generate: {model: sd15}}\n"
        + "".join(f"  r{i}: {{fuse: {{with: average, of: [r{i - 1}, r{i - 1}]}}}}\n" for i in range(1, 31))
        + QUALITY,
        10,
        "recipe 'r6' takes 127 steps",
    ),
    "chain that starts with refine": (chain("{refine: {model: sdxl, strength: 0.5}}"), 6, "refine continues a picture"),
    "recipe that is a refine": (
        HEAD + "recipes:\n  a: {refine: {model: sdxl, strength: 0.5}}\n" + QUALITY,
        4,
        "refine continues a picture",
    ),
    "chain that starts with upscale": (chain("{upscale: {factor: 2}}", GEN), 6, "upscale continues a picture"),
    "generate in the middle": (chain(GEN, GEN), 7, "generate starts from noise"),
    "name in the middle": (
        HEAD + RECIPES + "  x: {chain: [draft, premium]}\n" + QUALITY,
        7,
        "recipe 'premium' starts from noise",
    ),
    "fuse in the middle": (
        chain(GEN, "{fuse: {with: average, of: [a, {generate: {model: flux}}]}}"),
        7,
        "fuse starts from noise",
    ),
    "refine with neither": (chain(GEN, "{refine: {model: sdxl}}"), 7, "refine has exactly one of from, strength; none"),
    "refine with both": (
        chain(GEN, "{refine: {model: sdxl, from: 0.8, strength: 0.2}}"),
        7,
        "refine has exactly one of from, strength; not from and strength together",
    ),
    "until above 1": (chain("{generate: {model: sdxl, until: 1.5}}"), 6, "should be less than 1, not 1.5"),
    "until that is 0": (chain("{generate: {model: sdxl, until: 0}}"), 6, "should be greater than 0"),
    "from that misses until": (
        chain("{generate: {model: sdxl, until: 0.8}}", "{refine: {model: sdxl, from: 0.7}}"),
        7,
        "from: 0.7 does not meet until: 0.8",
    ),
    "from after a finished picture": (chain(GEN, "{refine: {model: sdxl, from: 0.7}}"), 7, "use strength instead"),
    "strength on latents": (
        chain("{generate: {model: sdxl, until: 0.8}}", "{refine: {model: sdxl, strength: 0.7}}"),
        7,
        "refine with from: 0.8",
    ),
    "unfinished recipe": (chain("{generate: {model: sdxl, until: 0.8}}"), 5, "ends in unfinished latents"),
    "unknown fusion": (
        HEAD + RECIPES + "  f: {fuse: {with: bestof, of: [draft, premium]}}\n" + QUALITY,
        7,
        "did you mean 'best_of'?",
    ),
    "best_of without a scorer": (
        HEAD + RECIPES + "  f: {fuse: {with: best_of, of: [draft, premium]}}\n" + QUALITY,
        7,
        "fuse with best_of needs scorer",
    ),
    "average with a scorer": (
        HEAD + RECIPES + "  f: {fuse: {with: average, scorer: alignment, of: [draft, premium]}}\n" + QUALITY,
        7,
        "takes of, not scorer",
    ),
    "frequency with of": (
        HEAD + RECIPES + "  f: {fuse: {with: frequency, of: [draft, premium]}}\n" + QUALITY,
        7,
        "needs high and low",
    ),
    "fusion of one": (HEAD + RECIPES + "  f: {fuse: {with: average, of: [draft]}}\n" + QUALITY, 7, "at least 2"),
    "no objective": (HEAD + RECIPES, 1, "the key 'objective' is missing"),
    "objective of nothing": (HEAD + RECIPES + "objective: {}\n", 7, "objective has exactly one of"),
    "objective of two": (
        HEAD + RECIPES + "objective: {maximise: quality, minimise: cost_usd}\n",
        7,
        "not maximise and minimise together",
    ),
    "weight without quality": (
        HEAD + RECIPES + "objective: {minimise: cost_usd, weight: {latency_s: 1}}\n",
        7,
        "weight belongs to 'maximise: quality'",
    ),
    "objective misspelt": (HEAD + RECIPES + "objective: {minimise: cost}\n", 7, "did you mean 'cost_usd'?"),
    "unknown recipe in a rule": (
        rule("{name: r, when: {tag: x}, only: [premum]}"),
        9,
        "unknown recipe 'premum'; did you mean 'premium'?",
    ),
    "rule without action": (
        rule("{name: r, when: {tag: x}}"),
        9,
        "a rule has at least one of only, never, prefer, set",
    ),
    "rule without condition": (rule("{name: r, only: [draft]}"), 9, "rules[0]: the key 'when' is missing"),
    "two rules of one name": (
        rule("{name: r, when: {tag: x}, only: [draft]}\n- {name: r, when: {tag: y}, only: [draft]}"),
        10,
        "rules 1 and 2 are both named 'r'",
    ),
    "condition of two kinds": (
        rule("{name: r, when: {tag: x, min_side: 99}, only: [draft]}"),
        9,
        "not tag and min_side",
    ),
    "condition nested and misspelt": (
        rule("{name: r, when: {not: {any: [{tags: x}]}}, only: [draft]}"),
        9,
        "rules[0].when.not.any[0]: unknown key 'tags'; did you mean 'tag'?",
    ),
    "signal without a bound": (rule("{name: r, when: {signal: counting}, only: [draft]}"), 9, "needs above or below"),
    "bound without a signal": (rule("{name: r, when: {tag: x, above: 0.5}, only: [draft]}"), 9, "needs above or below"),
    "unknown signal": (
        rule("{name: r, when: {signal: text_redering, above: 0.5}, only: [draft]}"),
        9,
        "did you mean 'text_rendering'?",
    ),
    "broken pattern": (rule("{name: r, when: {prompt_matches: '('}, only: [draft]}"), 9, "not a regular expression"),
    "endless pattern": (rule("{name: r, when: {prompt_matches: '(a+)+$'}, only: [draft]}"), 9, "could take too long"),
    "not yaml": (HEAD + "recipes: {a: [}\n", 3, "not valid YAML"),
    "two documents": (HEAD + TAIL + "---\n" + HEAD + TAIL, 8, "another document"),
    "a Python object": (HEAD + TAIL + "description: !!python/object/apply:os.getcwd []\n", 8, "tag !!python/object"),
    "merge key": (HEAD + ONE + "limits: {<<: {latency_s: 1}}\n" + QUALITY, 4, "limits: unknown key '<<'"),
    "control character": (HEAD + TAIL + "description: a\x07b\n", 8, "U+0007"),
    "too deep": (HEAD + "recipes: " + "[" * 5000, 3, "nested deeper"),
    "an alias inside itself": (HEAD + "recipes: &r {a: *r}\n" + QUALITY, 3, "nested deeper"),
    "too large": ("# " + "x" * 300_000, 1, "larger than 256 kB"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_file_is_explained(case: str) -> None:
    """A broken file is refused with the line of the mistake and words that lead to the remedy."""
    text, line, message = BROKEN[case]
    found = problems_of(text)
    start = f"test.yaml:{line}:"
    assert any(problem.startswith(start) and message in problem for problem in found), found


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


def test_laughing_lines_are_refused_quickly() -> None:
    """Aliases that multiply are counted as often as they repeat, and refused before they cost time."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    started = time.process_time()
    assert "more than 20000 values" in problems_of("\n".join(lines))[0]
    assert time.process_time() - started < 10  # unbounded, it would be hours


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
    "pattern", [r"\b(poster|sign|banner)s?\b", "red.{0,40}ball", ".*x", "[a-z]+ly$", r"\d{4}-\d{2}"]
)
def test_useful_patterns_are_accepted(pattern: str) -> None:
    """The patterns that rules are written with pass the check and end on a hostile prompt."""
    assert check_pattern(pattern) == pattern
    matches(pattern, "a" * 40_000)


@pytest.mark.parametrize(
    "pattern", ["(a+)+$", "(a|aa)+b", "a?" * 30 + "b", "(?:(?:a?){30})b", r"(.)\1", ".*a.*b", "x" * 201]
)
def test_costly_patterns_are_refused(pattern: str) -> None:
    """A pattern that could take long on some prompt is refused, and never tried."""
    with pytest.raises(ValueError, match=r"too long|not supported|at most 200"):
        check_pattern(pattern)


def test_pattern_looks_at_a_bounded_text() -> None:
    """Upper and lower case are alike, and what lies beyond the bound is not looked at."""
    assert matches("poster", "A POSTER")
    assert not matches("poster", " " * MAX_TEXT + "poster")
