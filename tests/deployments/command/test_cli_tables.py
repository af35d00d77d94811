"""`triptych router` on tables as people have them, and where there is nothing good to say of them."""

from __future__ import annotations

import csv
import importlib.util
import json
import logging
import math
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.assembly import build_orchestrator
from deployments.cli import artefacts
from deployments.cli.artefacts import Notes, pearson_interval
from deployments.settings import AppSettings, parse_settings
from router.errors import ArtifactError
from router.learning import plots
from router.learning.evaluation import evaluate, evaluate_pair, pair_of
from router.learning.new_model import anchor_prompts
from router.learning.ratings import Rating, tabulate
from router.learning.training import HeldOutScores
from router.registry.artifact import load_artifact
from router.registry.versions import former, roll_back
from tests.router.conftest import synthetic_prompts, synthetic_ratings

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def triptych(triptych: Run) -> Run:
    """Runs `triptych router ARGS`."""
    return lambda *args: triptych("router", *args)


def csv_of(folder: Path, rows: list[Rating], name: str = "r.csv") -> Path:
    file = folder / name
    with file.open("w", newline="") as target:
        csv.writer(target).writerows([("prompt", "model", "score"), *((r.prompt, r.recipe, r.score) for r in rows)])
    return file


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ratings of four recipes on 40 prompts."""
    return csv_of(tmp_path_factory.mktemp("ratings"), synthetic_ratings(synthetic_prompts(40)))


@pytest.fixture(scope="module")
def folder(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artefact that was trained on it."""
    from router.learning.ratings import read_ratings
    from router.learning.training import train

    out = tmp_path_factory.mktemp("trained") / "artefact"
    train(read_ratings(table), out, "small", "a formula", "CC0", folds=3)
    return out


def words(text: str) -> str:
    return " ".join(text.split())


# ------------------------------------------------------------------------------------------------------------- evaluate


def half(prompts: list[str], model: str, score: float = 3.0) -> list[Rating]:
    return [Rating(prompt, model, score + k % 2) for k, prompt in enumerate(prompts)]


def test_models_that_were_never_rated_together_are_not_compared(triptych: Run, tmp_path: Path) -> None:
    """A pair with no common prompt, or with six, is refused with their number and the least that is needed."""
    prompts = synthetic_prompts(56)
    for common in (0, 6):
        rows = half(prompts[:28], "sdxl") + half(prompts[28 - common : 56 - common], "flux")
        file = csv_of(tmp_path, rows)
        for pair in (("--pair", "sdxl:flux"), ()):
            code, out, err = triptych("evaluate", file, *pair)
            assert (code, out) == (2, "")
            assert f"are rated together on {common} prompts; at least 20 are needed" in words(err)


def test_near_duplicates_do_not_make_a_pair_comparable() -> None:
    """Twenty prompts of three groups say as much as three."""
    rows = [Rating(f"p{k}", m, k % 3, f"g{k % 3}") for k in range(30) for m in ("a", "b")]
    rows += [Rating(f"q{k}", m, k % 3) for m in ("a", "c") for k in range(30)]
    table = tabulate(rows)
    said = HeldOutScores(table.scores * 0.9, np.full_like(table.scores, 0.1), np.arange(len(table.prompts)) % 3)
    with pytest.raises(ArtifactError, match="'a' and 'b' are rated together on 30 prompts of 3 groups; at least 20"):
        evaluate(table, said, [("a", "b")])


def test_the_default_pair_is_one_that_can_be_compared(triptych: Run, tmp_path: Path) -> None:
    """Without --pair, the worst and the best of those that are rated on enough prompts together."""
    prompts = synthetic_prompts(60)
    rows = half(prompts[:30], "worst", 1) + half(prompts[30:], "good", 3) + half(prompts[30:], "best", 4)
    code, out, err = triptych("evaluate", csv_of(tmp_path, rows), "--folds", 2, "--json")
    assert code == 0, err
    assert list(json.loads(out)["pairs"]) == ["good -> best"]


def test_where_the_expensive_one_is_no_better_that_is_said(triptych: Run, tmp_path: Path) -> None:
    """All ties: no gap to close, which the table says in words and JSON by null; NaN is nowhere."""
    rows = [Rating(p, m, 3) for p in synthetic_prompts(30) for m in ("sdxl", "flux")]
    file = csv_of(tmp_path, rows)
    code, out, err = triptych("evaluate", file, "--pair", "sdxl:flux", "--folds", 2)
    assert code == 0, err
    assert "the expensive one is not better here" in words(out) and "nan" not in out.lower()
    code, out, err = triptych("evaluate", file, "--pair", "sdxl:flux", "--folds", 2, "--json", "--control")
    assert code == 0 and "NaN" not in out and "nan" not in err
    figures = json.loads(out)["pairs"]["sdxl -> flux"]
    assert figures["prompts"] == 30 and "not better here" in figures["note"]
    learned = figures["rankings"]["learned"]
    assert learned["apgr"] is None and learned["apgr_95"] == [None, None] and learned["calls_at"] == [None] * 3
    assert json.loads(out)["columns"]["sdxl"]["pearson"] is None


def test_a_worse_expensive_model_has_no_gap() -> None:
    """If the expensive model loses everywhere, no share of calls closes the gap, and the note says why."""
    rows = [Rating(f"p{k}", m, score) for k in range(25) for m, score in (("a", 4 + k % 2), ("b", 2 + k % 2))]
    table = tabulate(rows)
    said = HeldOutScores(table.scores * 0.9, np.full_like(table.scores, 0.1), np.arange(25) % 3)
    figures = evaluate_pair(pair_of(table, said, "a", "b"))
    assert figures["note"].startswith("the expensive one is not better here")
    assert all(math.isnan(share) for share in figures["rankings"]["oracle"]["calls_at"])
    assert evaluate_pair(pair_of(table, said, "b", "a"))["note"] == ""


def test_plots_are_asked_for_before_the_work(
    triptych: Run, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without matplotlib, --plots is refused at once with the extra that brings it; nothing is trained before."""
    find = importlib.util.find_spec
    monkeypatch.setattr(plots.importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find(name))
    code, out, err = triptych("evaluate", tmp_path / "not_even_read.csv", "--plots", tmp_path / "plots")
    assert (code, out) == (2, "")
    assert "pip install -c constraints.txt -e '.[plots]'" in words(err)


def test_the_table_is_printed_though_the_plots_fail(triptych: Run, table: Path, tmp_path: Path) -> None:
    """Whatever happens to the plots, the figures that took the time are printed."""
    (tmp_path / "plots").write_text("in the way")
    code, out, err = triptych("evaluate", table, "--pair", "sd15:flux", "--folds", 2, "--plots", tmp_path / "plots")
    assert code == 2 and "no plots, since this folder cannot be made" in words(err)
    assert "APGR" in out and "random mixing" in out


# ------------------------------------------------------------------------------------------ what was read, and renaming


def test_how_the_table_was_read_is_said(triptych: Run, tmp_path: Path) -> None:
    """train, evaluate and add-model say the dialect on stderr, and in their JSON."""
    rows = synthetic_ratings(synthetic_prompts(30))
    lines = [
        "prompt\tmodel\tscore",
        *(f'"{r.prompt}, ""so"""\t{r.recipe}\t{str(r.score).replace(".", ",")}' for r in rows),
    ]
    file = tmp_path / "r.tsv"
    file.write_bytes(("\r\n".join(lines)).encode("utf-16"))
    code, out, err = triptych("evaluate", file, "--pair", "sd15:flux", "--folds", 2, "--json")
    assert code == 0, err
    assert "read as: tab-separated with quotes, UTF-16, decimal comma; a row a prompt and model: sd15" in words(err)
    assert json.loads(out)["notes"][0].startswith("read as: tab-separated with quotes, UTF-16, decimal comma")


def test_votes_and_wide_tables_train(triptych: Run, tmp_path: Path) -> None:
    """A table of votes and one with a column a model give artefacts like any other."""
    rng = random.Random(0)
    rows = synthetic_ratings(synthetic_prompts(30))
    scores: dict[str, dict[str, float]] = {}
    for r in rows:
        scores.setdefault(r.prompt, {})[r.recipe] = r.score
    votes, wide = ["prompt,model_a,model_b,winner"], ["prompt,sd15,sdxl,flux"]
    for prompt, of in scores.items():
        wide.append(
            f"{prompt},{of['sd15']},,{of['flux']}"
            if rng.random() < 0.1
            else f"{prompt},{of['sd15']},{of['sdxl']},{of['flux']}"
        )
        for one, other in (("sd15", "flux"), ("sdxl", "flux"), ("sd15", "sdxl")):
            votes.append(f"{prompt},{one},{other},{'model_a' if of[one] > of[other] else 'model_b'}")
    for name, lines in (("votes", votes), ("wide", wide)):
        (tmp_path / f"{name}.csv").write_text("\n".join(lines))
        code, out, err = triptych("train", tmp_path / f"{name}.csv", "--out", tmp_path / name, "--folds", 2, "--json")
        assert code == 0, err
        assert {column["recipe"] for column in json.loads(out)["held_out"]} == {"sd15", "sdxl", "flux"}
        assert load_artifact(tmp_path / name).config["scale"] == {"low": 0.0, "high": 1.0}


def test_models_are_called_by_their_keys(triptych: Run, tmp_path: Path) -> None:
    """--map on train, evaluate and add-model; a model that the table lacks is named."""
    names = {"sd15": "sd_v1_5", "sdxl": "sdxl_base"}
    rows = [
        Rating(r.prompt, names[r.recipe], r.score)
        for r in synthetic_ratings(synthetic_prompts(30))
        if r.recipe in names
    ]
    file, maps = csv_of(tmp_path, rows), ("--map", "sd_v1_5=sd15", "--map", "sdxl_base=sdxl")
    code, _, err = triptych("train", file, "--out", tmp_path / "a", "--folds", 2, *maps)
    assert code == 0, err
    assert load_artifact(tmp_path / "a").config["columns"] == ["sd15", "sdxl"]
    code, out, err = triptych("evaluate", file, "--artefact", tmp_path / "a", *maps, "--pair", "sd15:sdxl", "--json")
    assert code == 0 and "sd15 -> sdxl" in json.loads(out)["pairs"], err
    new = csv_of(
        tmp_path, [Rating(p, "FLUX.1", 0.5 + k % 2 / 2) for k, p in enumerate(anchor_prompts()[:24])], "new.csv"
    )
    code, _, err = triptych(
        "add-model", new, "--artefact", tmp_path / "a", "--out", tmp_path / "b", "--map", "FLUX.1=flux"
    )
    assert code == 0, err
    assert load_artifact(tmp_path / "b").config["columns"] == ["sd15", "sdxl", "flux"]
    code, _, err = triptych("train", file, "--out", tmp_path / "c", "--map", "sdxl_bass=sdxl")
    assert code == 2 and "did you mean 'sdxl_base'" in words(err)


def test_prompts_in_json_lines_are_predicted(triptych: Run, folder: Path, tmp_path: Path) -> None:
    """`predict --prompts p.jsonl` predicts the prompts, not the lines."""
    (tmp_path / "p.jsonl").write_text('{"prompt": "a red circle"}\n{"prompt": "two blue stars"}\n')
    code, out, err = triptych("predict", "--artefact", folder, "--prompts", tmp_path / "p.jsonl", "--json")
    assert code == 0, err
    assert [json.loads(line)["prompt"] for line in out.splitlines()] == ["a red circle", "two blue stars"]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("a,sd15,0.5", "judged.csv:2: 3 fields where the header has 4"),
        ("a", "judged.csv:2: 1 fields where the header has 4"),
        ("a,sd15,0.5,1,1", "judged.csv:2: 5 fields where the header has 4"),
        ("a,sd15,,1", "judged.csv:2: score is '', not a number (column 3)"),
        ("a,sd15,0_5,1", "judged.csv:2: score is '0_5', not a number (column 3)"),
        ("a,sd15,nan,1", "judged.csv:2: score is 'nan', not a number (column 3)"),
        ("a,sd15,0.5,yes", "judged.csv:2: right is 'yes', not a number (column 4)"),
        (" ,sd15,0.5,1", "judged.csv:2: the prompt is empty"),
    ],
)
def test_a_broken_row_of_judged_pictures_is_named(
    triptych: Run, folder: Path, tmp_path: Path, row: str, says: str
) -> None:
    """calibrate-scorer reads by the same rules: short rows and what is no number give line and column."""
    (tmp_path / "judged.csv").write_text(f"prompt,recipe,score,right\n{row}\n")
    code, _, err = triptych(
        "calibrate-scorer", tmp_path / "judged.csv", "--artefact", folder, "--card", "embedded/alignment"
    )
    assert code == 2 and says in words(err)


# ----------------------------------------------------------------------------------- what is there, served, or doubtful


def test_an_artefact_is_not_replaced_unasked(
    triptych: Run, table: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """train and add-model onto an artefact need --force, or a person who says so; what was there can be put back."""
    there = shutil.copytree(folder, tmp_path / "there")
    before = load_artifact(there).digest
    train = ("train", table, "--out", there, "--folds", 2, "--seed", 5)
    new = csv_of(tmp_path, [Rating(p, "new", k % 2) for k, p in enumerate(anchor_prompts()[:24])], "new.csv")
    for args in (train, ("add-model", new, "--artefact", folder, "--out", there)):
        code, out, err = triptych(*args)
        assert (code, out) == (2, "") and "holds a trained artefact already; add --force" in words(err)
    monkeypatch.setattr(artefacts.sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(artefacts.sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(artefacts.typer, "confirm", lambda *_, **__: False)
    code, _, err = triptych(*train)
    assert code == 2 and "left as it was" in words(err)
    assert load_artifact(there).digest == before and former(there) == []
    code, _, err = triptych(*train, "--force")
    assert code == 0, err
    assert load_artifact(there).digest != before
    assert roll_back(there).digest == before


def test_a_folder_of_other_things_is_refused_before_the_work(triptych: Run, table: Path, tmp_path: Path) -> None:
    """--out at a file, or at a folder with other files, is refused at once, with and without --force."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    for out_folder, says in ((tmp_path / "mine", "holds other files"), (table, "this is a file")):
        for force in ((), ("--force",)):
            code, _, err = triptych("train", tmp_path / "not_even_read.csv", "--out", out_folder, *force)
            assert code == 2 and says in words(err)


def test_a_training_that_fails_leaves_no_copy(triptych: Run, folder: Path, tmp_path: Path) -> None:
    """What was kept for a replacement that did not come is taken away."""
    there = shutil.copytree(folder, tmp_path / "there")
    code, _, err = triptych("train", csv_of(tmp_path, half(["a", "b"], "sd15")), "--out", there, "--force")
    assert code == 2 and "at least two" in words(err)
    assert former(there) == []


@pytest.mark.parametrize(
    ("pearson", "prompts", "says"),
    [(-0.35, 40, "runs against"), (0.05, 40, "does not follow"), (0.0, 96, "does not follow"), (0.4, 20, "does not"),
     (0.5, 40, ""), (float("nan"), 40, "does not follow")],
)  # fmt: skip
def test_a_column_that_does_not_follow_its_ratings_is_doubted(pearson: float, prompts: int, says: str) -> None:
    """A held-out Pearson whose 95 % interval holds zero, or lies below, is a warning in plain words."""
    notes = Notes()
    notes.doubt("new", pearson, prompts)
    assert (says in " ".join(notes.told)) if says else notes.told == []


def test_the_interval_of_a_correlation_is_fishers() -> None:
    """r = .5 on 28 pairs: z = .549 ± .392, so from .156 to .736."""
    assert pearson_interval(0.5, 28) == pytest.approx((0.156, 0.736), abs=0.001)


def test_add_model_warns_of_ratings_that_nothing_foresees(triptych: Run, folder: Path, tmp_path: Path) -> None:
    """Ratings drawn by chance: the column is added, and the warning says what it is worth."""
    rng = random.Random(3)
    new = csv_of(tmp_path, [Rating(p, "new", rng.random()) for p in anchor_prompts()[:24]])
    code, out, err = triptych("add-model", new, "--artefact", folder, "--out", tmp_path / "wider", "--json")
    assert code == 0, err
    assert "which prompts suit it is not known" in words(err)
    assert any("which prompts suit it" in note for note in json.loads(out)["notes"])


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artefact whose columns nobody serves."""
    from router.learning.training import train

    out = tmp_path_factory.mktemp("strange") / "artefact"
    rows = [Rating(r.prompt, {"sd15": "sd_v1_5", "flux": "dalle3"}[r.recipe], r.score)
            for r in synthetic_ratings(synthetic_prompts(30)) if r.recipe in ("sd15", "flux")]  # fmt: skip
    train(rows, out, "strange", "a formula", "CC0", folds=2)
    return out


def test_an_artefact_that_knows_nothing_of_what_is_served_is_said_at_load(
    tiny_settings: dict[str, Any], settings: AppSettings, strange: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log names its columns and the remedy; of one that knows the recipes, there is no such line."""
    for artefact, expected in ((str(strange), True), (str(settings.artifact_path), False)):
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="triptych.router"):
            build_orchestrator(parse_settings({**tiny_settings, "artifact": artefact}), {}, lambda: {})  # type: ignore[arg-type, return-value]
        said = [r.getMessage() for r in caplog.records if "follows from a column of the artefact" in r.getMessage()]
        assert bool(said) is expected
        assert all("(sd_v1_5, dalle3)" in line and "triptych router keys" in line for line in said)


def test_train_says_that_nobody_serves_its_columns(triptych: Run, tmp_path: Path, table: Path) -> None:
    """The output of train warns of columns that no recipe of the config has, and is silent where one has."""
    rows = [Rating(r.prompt, r.recipe + "_x", r.score) for r in synthetic_ratings(synthetic_prompts(25))]
    code, _, err = triptych("train", csv_of(tmp_path, rows), "--out", tmp_path / "a", "--folds", 2)
    assert code == 0, err
    assert "warning: no recipe of the served policies follows from a column of the artefact (sd15_x" in words(err)
    code, _, err = triptych("train", table, "--out", tmp_path / "b", "--folds", 2)
    assert code == 0 and "follows from a column" not in err


def test_keys_of_the_served_recipes_are_printed(triptych: Run) -> None:
    """`triptych router keys` lists what a table calls the recipes, and what the artefact knows of each."""
    code, out, err = triptych("keys", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert {"key", "policy", "recipe", "evidence"} == set(found[0])
    assert found[0]["policy"] == "balanced" and {one["evidence"] for one in found} <= {"rated", "composed", "none"}
    assert any(one["evidence"] == "rated" for one in found)
    code, out, _ = triptych("keys")
    assert code == 0 and all(f"{one['key']}: {one['evidence']}" in out.splitlines() for one in found)
