"""The leaderboard says what its results say, and its examples run."""

from __future__ import annotations

import json
import re
import types
from pathlib import Path

import numpy as np
import pytest

from benchmarks.leaderboard.run import EXAMPLE, OWN, PAGE, RESULTS, entries_there, judged, kept, page
from tests.router.conftest import synthetic_prompts
from tests.router.learning.test_bench import task


def test_the_page_is_what_the_results_say() -> None:
    """The committed page is made of the committed results, each of which is an entry's."""
    judged_ones = {file.stem for file in RESULTS.glob("*.json")}
    assert {"hand_rule", "length", "ridge", "knn"} <= judged_ones <= set(entries_there())
    assert PAGE.read_text(encoding="utf-8") == page(kept(RESULTS))


def test_what_one_adds_is_one_file() -> None:
    """The example of the page, as it stands, is judged like any other entry."""
    module = types.ModuleType("shouting")
    exec(EXAMPLE, module.__dict__)
    found = judged(module, [task("drawbench"), task("tifa160", seed=1)])
    assert set(found["within"]) == set(found["left out"]) == {"drawbench", "tifa160"}
    assert "mean lift, within" in found
    assert "shouting" in page([json.loads(json.dumps(found))])


def test_the_kit_judges_a_table_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second example of the page runs on a file of ratings, and prints figures with intervals."""
    rng = np.random.default_rng(0)
    rows = [f'"{p}",{m},{rng.random():.3f}' for p in synthetic_prompts(60) for m in ("sdxl", "flux")]
    (tmp_path / "ratings.csv").write_text("prompt,model,score\n" + "\n".join(rows))
    monkeypatch.chdir(tmp_path)
    exec(OWN, {})
    assert len(re.findall(r"Figure\(value=", capsys.readouterr().out)) == 5
