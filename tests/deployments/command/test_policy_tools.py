"""`triptych policy`: explain, diff, eval, graph and schema; and the probes of the presets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deployments.cli.mermaid import mermaid
from deployments.offline.probes import load_probes, run_probes
from deployments.offline.rehearsal import Rehearsal, find_policy
from deployments.settings import DEFAULT_CONFIG, load_serve_config
from policies import PRESETS
from router.errors import NotFoundError, PolicyError


@pytest.fixture(scope="module")
def rehearsal() -> Rehearsal:
    return Rehearsal(load_serve_config(DEFAULT_CONFIG).settings)


@pytest.mark.shipped_weights
@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_preset_passes_its_probes(rehearsal: Rehearsal, path: Path) -> None:
    """Each preset does what its probes say. (Those of published checkpoints have their own, in test_real_presets.)"""
    verdicts = run_probes(PRESETS / "probes" / path.name, rehearsal)
    assert {verdict.probe: verdict.failures for verdict in verdicts if verdict.failures} == {}
    assert len(verdicts) >= 3


def test_a_folder_that_is_not_there_is_named(rehearsal: Rehearsal, tmp_path: Path) -> None:
    """A config whose folder of policies does not exist is an error with its path and a remedy, not a traceback."""
    settings = load_serve_config(DEFAULT_CONFIG).settings
    policies = settings.policies.model_copy(update={"directory": str(tmp_path / "nowhere")})
    with pytest.raises(NotFoundError, match=r"nowhere: .*; make it, or name another"):
        find_policy(settings.model_copy(update={"policies": policies}), rehearsal.known, "shop")


def test_eval_fails_with_reasons(triptych, tmp_path: Path) -> None:
    """A probe that does not hold exits with 1 and says what was decided instead, and all are run."""
    probes = tmp_path / "probes.yaml"
    probes.write_text("""policy: balanced
probes:
  - {name: right, request: {prompt: a red circle, recipe: draft}, expect: {recipe: draft}}
  - name: wrong
    request: {prompt: a red circle, recipe: draft}
    expect: {recipe: duel, one_of: [duel], not: [draft], open: [duel], out: {duel: rule}, rules: [x], verified: true}
  - {name: no error, request: {prompt: a red circle}, expect: {error: no_recipe}}
  - {name: refused, request: {prompt: a red circle, max_cost_usd: 0}, expect: {recipe: draft}}
""")
    code, out, err = triptych("policy", "eval", probes)
    assert code == 1
    assert "4 probes, 3 failed" in out
    assert "ok     " in out and "FAILED" in out
    said = " ".join(err.split())
    for words in (
        "draft was chosen, not duel",
        "draft was chosen, none of duel",
        "duel could not have been chosen",
        "duel was rejected by pinned, not by rule",
        "the rules none applied, not x",
        "the picture would not be checked",
        "but no_recipe was expected",
        "refused with no_recipe",
    ):
        assert words in said
    code, out, _ = triptych("policy", "eval", probes, "--json")
    assert code == 1
    assert json.loads(out)["files"][str(probes)]["right"] == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("policy: x\nprobes: []\n", "at least 1 item"),
        ("policy: x\nprobes: [{name: a, request: {}, expect: {}}]\n", "expect at least one thing"),
        ("policy: x\nprobes: [{name: a, request: {}, expect: {recip: a}}]\n", "recip"),
        ("policy: x\nprobes: [{name: a, request: {}, at: '2026-03-02', expect: {recipe: a}}]\n", "needs a zone"),
        ("policy: [", "not valid YAML"),
    ],
)
def test_broken_probes_are_named(tmp_path: Path, text: str, says: str) -> None:
    """A broken file of probes is refused with what is wrong in it."""
    path = tmp_path / "probes.yaml"
    path.write_text(text)
    with pytest.raises(PolicyError, match=says) as caught:
        load_probes(path)
    assert str(path) in str(caught.value)


def test_explain_shows_who_did_it(triptych) -> None:
    """`policy explain` lists every recipe with estimate and verdict, naming the rule that excluded it."""
    code, out, err = triptych("policy", "explain", "a red circle", "--request", '{"tags": ["print"]}', "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["rules"] == ["print work"]
    assert {r["recipe"] for r in report["rejected"]} == {"draft", "single", "direct", "polished", "standard"}
    code, out, _ = triptych("policy", "explain", "a red circle", "-p", PRESETS / "frugal.yaml")
    assert code == 0 and "chosen" in out and "objective: lowest cost_usd" in out
    assert triptych("policy", "explain", "a red circle", "-p", "ballanced")[0] == 2
    assert triptych("policy", "explain", "a red circle", "--request", "[]")[0] == 2


@pytest.mark.shipped_weights
def test_diff_counts_who_changes(triptych, tmp_path: Path) -> None:
    """`policy diff` shows the prompts whose recipe changes, with totals; requests may be JSON lines."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text('# three\na red circle\n\n{"prompt": "a mug", "recipe": "draft"}\na blue ring\n')
    code, out, err = triptych("policy", "diff", "frugal", "product-photo", prompts, "--json")
    assert code == 2 and "no recipe 'draft'" in json.loads(out)["error"]["message"]
    prompts.write_text('# three\na red circle\n\n{"prompt": "a mug", "max_cost_usd": 0}\na blue ring\n')
    code, out, err = triptych("policy", "diff", "frugal", "product-photo", prompts, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert (report["summary"]["prompts"], report["summary"]["changed"]) == (3, 2)
    assert (report["summary"]["refused_before"], report["summary"]["refused_after"]) == (1, 1)
    assert report["summary"]["cost_usd"]["difference"] > 0
    code, out, _ = triptych("policy", "diff", "frugal", "product-photo", prompts)
    assert code == 0 and "2 of 3 prompts change" in out
    prompts.write_text("{broken\n")
    code, _, err = triptych("policy", "diff", "fast", "fast", prompts)
    assert code == 2 and "prompts.txt:1: not valid JSON" in err


def test_graph_draws_the_plan(triptych) -> None:
    """`policy graph` prints a Mermaid chart with every step, what flows between them, and what may be left out."""
    code, out, err = triptych("policy", "graph", "campaign", "-p", "product-photo")
    assert code == 0, err
    assert out.startswith("flowchart LR\n")
    assert 's1["generate flux' in out and "-.->|below 0.9|" in out and "-->|scores|" in out
    code, _, err = triptych("policy", "graph", "campain", "-p", "product-photo")
    assert code == 2 and "did you mean 'campaign'" in err


def test_graph_marks_latents() -> None:
    """A hand-over of latents is drawn as one."""
    rehearsal = Rehearsal(load_serve_config(DEFAULT_CONFIG).settings)
    chart = mermaid(rehearsal.plan(rehearsal.policy("balanced"), "standard", {"prompt": "a cat"}))
    assert "s1 -->|latents| s2" in chart
    assert "%% sdxl hands latents to sdxl-refiner" in chart


def test_validate_shows_order_and_conversions(triptych) -> None:
    """`policy validate` lists the rules in the order in which they apply, and every conversion that is inserted."""
    code, out, err = triptych("policy", "validate", PRESETS / "product-photo.yaml")
    assert code == 0, err
    assert out.index("rule 1: thumbnail (priority 10)") < out.index("rule 2: campaign")
    assert "goes through pixels" in out


def test_schema_is_exported(triptych) -> None:
    """`policy schema` prints the JSON Schema, or its tables."""
    code, out, _ = triptych("policy", "schema")
    assert code == 0 and json.loads(out)["title"] == "Triptych policy"
    code, out, _ = triptych("policy", "schema", "--markdown")
    assert code == 0 and "| `accept_above` |" in out
