"""Every benchmark runs: with `--quick` in seconds, with `--help` not at all, and neither touches what is committed."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.command import is_full, parser, results
from benchmarks.router_evaluation.sets import SETS

ROOT = Path(__file__).resolve().parents[2]
FOUND = sorted(
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for file in (ROOT / "benchmarks").rglob("*.py")
    if '__name__ == "__main__"' in file.read_text(encoding="utf-8")
)
KEPT = ("benchmarks", "router/artifacts")
SERVING = ("chaos", "exactness", "load", "memory", "overhead", "tenants")
WITH_RAY = ("benchmarks.footprint", "benchmarks.gpu.served", *(f"benchmarks.serving.{name}" for name in SERVING))
LONG = ("benchmarks.gpu.run", "benchmarks.speed.memory_plan")  # their smallest case takes twenty seconds
WITH_TABLES = tuple(
    name for name in FOUND if name.split(".")[1] in ("leaderboard", "router_evaluation", "router_real", "router_skills")
)

benchmarks = pytest.mark.parametrize("name", FOUND)


def kept() -> dict[str, tuple[int, int]]:
    """Size and time of change of all that is committed as a result."""
    files = (file for folder in KEPT for file in (ROOT / folder).rglob("*") if "__pycache__" not in file.parts)
    return {str(file): (file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()}


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to run in, and one for temporary files: nothing of ours may stay there, nor results change."""
    work, scratch = tmp_path / "work", tmp_path / "scratch"
    for folder in (work, scratch):
        folder.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    before = kept()
    yield work
    assert kept() == before
    assert [*work.iterdir(), *scratch.glob("triptych-*")] == []


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=[
                *([pytest.mark.ray] if name in WITH_RAY else []),
                *([pytest.mark.slow] if name in (*WITH_RAY, *LONG) else []),
            ],
        )
        for name in FOUND
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::sklearn.exceptions.ConvergenceWarning")
def test_every_benchmark_has_a_quick_run_that_keeps_nothing(name: str, elsewhere: Path) -> None:
    """`--quick` runs to its end without tables, caches or results of its own, and leaves nothing behind."""
    if name in WITH_RAY:  # it starts a Ray of its own, and this process may have one
        done = subprocess.run([sys.executable, "-m", name, "--quick"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
    else:
        importlib.import_module(name).main(["--quick"])


@benchmarks
def test_help_starts_nothing(name: str, elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` says what a benchmark is for and that it has `--quick`, and exits."""
    with pytest.raises(SystemExit) as left:
        importlib.import_module(name).main(["--help"])
    told = capsys.readouterr().out
    assert left.value.code == 0
    assert f"python -m {name}" in told
    assert "--quick" in told


@pytest.mark.parametrize("name", WITH_TABLES)
def test_a_missing_table_is_named_with_its_source(
    name: str, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder without the tables, or none at all, ends the run with what is needed, and with its source."""
    module = importlib.import_module(name)
    keep = ["--keep", "kept"] if name.endswith("learners") else []
    for folder in (["nowhere"], []):
        with pytest.raises(SystemExit) as left:
            module.main([*folder, *keep])
        told = capsys.readouterr().err
        assert left.value.code == 2
        assert "not part of Triptych" in told or "none is part of Triptych" in told
        if folder:
            assert "github.com" in told and ".tsv.gz: a gzipped TSV" in told


@pytest.mark.parametrize("name", ["benchmarks.fusion.agreement", "benchmarks.fusion.voting"])
def test_missing_pictures_are_named_with_the_command_that_draws_them(name: str, elsewhere: Path) -> None:
    """Without the pictures of the outcomes, the run ends with how they are made."""
    with pytest.raises(SystemExit, match=r"nowhere lacks pictures of .*embedded_outcomes\.run --split test"):
        importlib.import_module(name).main(["--outcomes", "nowhere"])


def test_only_a_full_run_may_overwrite_what_is_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an option changed, results go to a temporary folder; with `--out`, there; in a full run, home."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    made, home = parser("python -m benchmarks.example"), tmp_path / "home"
    made.add_argument("--prompts", type=int, default=40)
    for words, wanted in (
        ([], home),
        (["--prompts", "40"], home),
        (["--prompts", "1"], None),
        (["--quick"], None),
        (["--prompts", "1", "--out", str(tmp_path / "own")], tmp_path / "own"),
    ):
        chosen = made.parse_args(words)
        with results(chosen, home, is_full(made, chosen)) as out:
            assert out.is_dir()
            assert out == wanted if wanted else out.parent == tmp_path
            (out / "figures.json").touch()
        assert out.exists() != chosen.quick


def test_a_small_run_of_wide_does_not_overwrite_its_results(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`wide --prompts 1` writes to where `--out` says and nowhere else."""
    wide: Any = importlib.import_module("benchmarks.fusion.wide")
    written: list[Path] = []
    monkeypatch.setattr(wide, "study", lambda count, out, ways: written.append(out))
    wide.main(["--prompts", "1", "--out", "own"])
    assert written == [Path("own")]
    Path("own").rmdir()


def test_made_up_tables_have_every_column_of_the_real_ones(tmp_path: Path) -> None:
    """What `--quick` reads has the form of the sets: every model rated, on the set's scale."""
    from benchmarks.router_evaluation.sets import made_up, rows_of

    made_up(tmp_path, SETS)
    for name, chosen in SETS.items():
        rows = rows_of(tmp_path, name)
        assert len(rows) == 96
        assert all(tuple(row.scores) == chosen.models for row in rows)
