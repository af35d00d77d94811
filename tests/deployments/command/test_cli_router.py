"""The command group `triptych router`, called as a shell would call it, on a small table that the test makes."""

from __future__ import annotations

import gzip
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from deployments.cli import main as cli
from deployments.cli import router as cli_router
from models import load_card
from models.weights.revisions import revision
from router.errors import ArtifactError
from router.learning.pairs import named_pair
from router.registry.artifact import load_artifact
from router.verification.score_calibration import load_score_reading, score_reading_file
from tests.router.conftest import synthetic_prompts, synthetic_ratings

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def triptych(triptych: Run) -> Run:
    """Runs `triptych router ARGS`."""
    return lambda *args: triptych("router", *args)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ratings from 1 to 5 of four recipes, gzipped."""
    file = tmp_path_factory.mktemp("ratings") / "ratings.tsv.gz"
    rows = [
        f"{r.prompt}\t{r.recipe}\t{1 + 4 * r.score}\t{r.prompt}\t3" for r in synthetic_ratings(synthetic_prompts(60))
    ]
    file.write_bytes(gzip.compress("\n".join(["prompt\tmodel\tscore\tgroup\traters", *rows]).encode()))
    return file


@pytest.fixture(scope="module")
def folder(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artefact trained on the table by the command."""
    out = tmp_path_factory.mktemp("trained") / "artefact"
    argv, sys.argv = sys.argv, ["triptych", "router", "train", str(table), "--out", str(out), "--scale", "1", "5"]
    try:
        with pytest.raises(SystemExit) as left:
            cli.main()
    finally:
        sys.argv = argv
    assert left.value.code == 0
    return out


def test_train_writes_a_verified_artefact_with_its_card(folder: Path) -> None:
    """The folder loads, knows its scale, and its card reports every column."""
    artifact = load_artifact(folder)
    assert artifact.config["scale"] == {"low": 1.0, "high": 5.0}
    assert all(f"`{column}`" in artifact.card for column in artifact.config["columns"])


def test_predict_prints_one_object_a_prompt(triptych: Run, folder: Path, tmp_path: Path) -> None:
    """Every prompt of the file gets a JSON line with means and intervals on the scale of the ratings, and signals."""
    prompts = ["a red circle", "three small yellow stars above a large blue ring", "🎨 ein Kreis 圆", "x" * 1_000_000]
    (tmp_path / "prompts.txt").write_text("\n".join(prompts) + "\n\n", encoding="utf-8")
    code, out, err = triptych("predict", "--artefact", folder, "--prompts", tmp_path / "prompts.txt", "--json")
    assert code == 0, err
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer["prompt"] for answer in answers] == prompts
    for answer in answers:
        assert set(answer["quality"]) == set(answer["interval"]) == set(load_artifact(folder).config["columns"])
        assert all(1 <= low <= answer["quality"][m] <= high <= 5 for m, (low, high) in answer["interval"].items())
        assert all(0 <= value <= 1 for value in answer["signals"].values())
    assert answers[0]["quality"]["sd15"] > answers[1]["quality"]["sd15"]
    assert answers[3]["basis"] == "prior"
    code, out, _ = triptych("predict", "--artefact", folder, "--prompts", tmp_path / "prompts.txt")
    assert code == 0 and "unlike the training prompts" in out


def test_evaluate_stands_beside_its_baselines(triptych: Run, table: Path, tmp_path: Path) -> None:
    """Routing, hand rule, prompt length, oracle and the shuffled control are judged on the same held-out prompts."""
    args = ("evaluate", table, "--pair", "sd15:flux", "--folds", 3, "--control", "--plots", tmp_path, "--json")
    code, out, err = triptych(*args)
    assert code == 0, err
    figures = json.loads(out)["pairs"]["sd15 -> flux"]
    assert set(figures["rankings"]) == {"learned", "hand rule", "prompt length", "oracle", "shuffled labels"}
    found = {name: ranking["apgr"] for name, ranking in figures["rankings"].items()}
    assert 0.5 < found["learned"] <= found["oracle"]
    assert found["shuffled labels"] < found["learned"]
    assert [file.suffix for file in tmp_path.iterdir()] == [".svg"]


def test_every_figure_that_judges_a_router_is_printed(
    triptych: Run, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """APGR with intervals, cost for a share of the gap, AIQ, share of the oracle, correlations, coverage, Brier and ECE
    are all on the page, beside every baseline."""
    monkeypatch.setattr(cli_router, "out", Console(width=160))
    code, out, err = triptych("evaluate", table, "--pair", "sd15:flux", "--folds", 3)
    assert code == 0, err
    page = " ".join(out.split())
    for figure in (
        "APGR",
        "95 %",
        "50, 80, 95 % of the gap",
        "AIQ",
        "of oracle",
        "Pearson",
        "Spearman",
        "Brier",
        "ECE",
    ):
        assert figure in page, figure
    assert "coverage of 90 %" in page
    for baseline in ("always cheapest", "always best", "random mixing", "prompt length", "hand rule", "oracle"):
        assert f"{baseline} " in page, baseline


def test_an_artefact_is_judged_on_other_ratings(triptych: Run, table: Path, folder: Path) -> None:
    """`evaluate --artefact` trains nothing; a pair that the table or the artefact lacks is named."""
    code, out, err = triptych("evaluate", table, "--pair", "sd15:flux", "--artefact", folder)
    assert code == 0, err
    assert "random mixing" in out and "APGR" in out
    for pair, says in (
        ("sd15:fluks", "did you mean 'flux'"),
        ("sd15", "write cheap:expensive, such as"),
        ("flux:flux", "not compared with itself"),
    ):
        code, _, err = triptych("evaluate", table, "--pair", pair, "--artefact", folder)
        assert code == 2 and says in " ".join(err.split())


def test_a_pair_of_models_whose_names_have_colons_is_understood() -> None:
    """A pair is cut where both halves are models of the table."""
    assert named_pair("sd:1.5:flux:dev", ("sd:1.5", "flux:dev")) == ("sd:1.5", "flux:dev")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["train", "none.tsv", "--out", "x"], "none.tsv: there is no such ratings table"),
        (["train", "one.tsv", "--out", "x"], "at least two to choose between"),
        (["train", "far.tsv", "--out", "x", "--scale", "1", "5"], "far.tsv:3: score 16.667 is outside 1..5"),
        (["train", "far.tsv", "--out", "x", "--scale", "5", "1"], "must be below"),
        (["predict", "--artefact", "nowhere", "--prompts", "p.txt"], "nowhere holds no trained artefact"),
        (["predict", "--artefact", "nowhere", "--prompts", "none.txt"], "none.txt: there is no such file"),
        (["predict", "--artefact", "nowhere", "--prompts", "far.csv"], "far.csv:1: no column 'prompt'"),
    ],
)
def test_bad_input_is_one_clear_message(
    triptych: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], says: str
) -> None:
    """Bad input exits with 2 and says what, where and the remedy."""
    monkeypatch.chdir(tmp_path)
    Path("one.tsv").write_text("prompt\tmodel\tscore\n" + "".join(f"p{k}\tsd15\t0.5\n" for k in range(30)))
    Path("far.tsv").write_text("prompt\tmodel\tscore\na\tsd15\t4\nb\tsd15\t16.667\n")
    Path("far.csv").write_text("prompts\na\n")
    Path("p.txt").write_text("a red circle\n")
    code, out, err = triptych(*args)
    assert code == 2, err
    assert says in " ".join(err.split())
    assert "Traceback" not in err and out == ""


def test_a_tampered_artefact_is_refused(triptych: Run, folder: Path, tmp_path: Path) -> None:
    """A changed weight file exits with 2 and names the file."""
    import shutil

    copy = shutil.copytree(folder, tmp_path / "copy")
    data = bytearray((copy / "weights.safetensors").read_bytes())
    data[-1] ^= 1
    (copy / "weights.safetensors").write_bytes(data)
    (tmp_path / "p.txt").write_text("a red circle\n")
    code, out, _ = triptych("predict", "--artefact", copy, "--prompts", tmp_path / "p.txt", "--json")
    assert code == 2 and "changed after training" in json.loads(out)["error"]["message"]


def test_calibrating_a_scorer_gives_its_scores_a_meaning(triptych: Run, folder: Path, tmp_path: Path) -> None:
    """The command learns from judged pictures, and what it writes is read for this artefact and these weights only."""
    rng, card = random.Random(0), load_card("embedded/alignment")
    rows = ["prompt,recipe,score,right"]
    for rating in synthetic_ratings(synthetic_prompts(60)):
        right = rng.random() < rating.score
        score = min(0.98, max(0.02, rng.gauss(0.75 if right else 0.35, 0.2)))
        rows.append(f'"{rating.prompt}",{rating.recipe},{score:.3f},{int(right)}')
    judged = tmp_path / "judged.csv"
    judged.write_text("\n".join(rows))
    code, out, _ = triptych("calibrate-scorer", judged, "--artefact", folder, "--card", "embedded/alignment", "--json")
    assert code == 0
    report = json.loads(out)
    assert report["held_out"]["brier"] < report["held_out"]["brier_chance"]
    digest, weights = load_artifact(folder).digest, revision(card)
    found = load_score_reading(folder, digest, card, weights)
    assert found.calibrated
    assert found.score_model.verdict(0.5, 0.9) > 0.5 > found.score_model.verdict(0.5, 0.1)
    for other in (
        load_score_reading(folder, "another", card, weights),
        load_score_reading(folder, digest, card, "sha256:0"),
    ):
        assert not other.calibrated
        assert "not calibrated for this" in other.note
    file = score_reading_file(folder, card.id)
    file.write_text(file.read_text().replace('"strength"', '"strenght"'))
    with pytest.raises(ArtifactError, match="was changed after it was written"):
        load_score_reading(folder, digest, card, weights)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("prompt,recipe,score,rigth\na,sd15,0.5,1", "no column 'right'; did you mean 'rigth'"),
        ("prompt,recipe,score,right\na,sd15,1.5,1", "judged.csv:2: score 1.5 lies in 0..1"),
        ("prompt,recipe,score,right\na,sd15,0.5,maybe", "judged.csv:2: right is 'maybe', not a number"),
    ],
)
def test_a_judged_table_that_cannot_be_read_is_named_by_line(
    triptych: Run, folder: Path, tmp_path: Path, content: str, message: str
) -> None:
    """A missing column or a value that is no mark is refused with file and line."""
    (tmp_path / "judged.csv").write_text(content)
    code, _, err = triptych(
        "calibrate-scorer", tmp_path / "judged.csv", "--artefact", folder, "--card", "embedded/alignment"
    )
    assert code != 0
    assert message in " ".join(err.split())
