"""Renewing what follows from changed weights: only what is stale, in order, and where it stopped."""

from __future__ import annotations

import csv
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import renew
from benchmarks.embedded_outcomes import run as outcomes
from benchmarks.embedded_outcomes.digests import FILE, digests, known
from benchmarks.renew import Renewal, chosen_of, expected
from benchmarks.stages import STAGES, Stage
from models.catalogue import Catalogue
from router.types import Recipe

COPY = """
import pathlib, sys
source, target = map(pathlib.Path, sys.argv[1:])
target.write_text(source.read_text() + "!")
with open("ran.txt", "a") as file:
    file.write(target.name + " ")
"""


@pytest.fixture
def renewal(tmp_path: Path) -> Renewal:
    """A folder with an input, and a module that copies one file to another."""
    (tmp_path / "copy_one.py").write_text(COPY)
    (tmp_path / "a").write_text("weights")
    return Renewal(tmp_path, tmp_path / "renewed.json", jobs=2)


def copying(source: str, target: str, beside: bool = False) -> Stage:
    return Stage(target, (("copy_one", source, target),), (source,), (target,), beside=beside)


def ran(renewal: Renewal) -> list[str]:
    file = renewal.root / "ran.txt"
    names = file.read_text().split() if file.exists() else []
    file.unlink(missing_ok=True)
    return names


def test_only_what_is_stale_is_made_and_what_follows_from_it(renewal: Renewal) -> None:
    """Twice is once; another input makes its readers, and theirs, again; what is missing is made."""
    stages = [copying("a", "b"), copying("b", "c")]
    assert renewal.make(stages) == ["b", "c"] == ran(renewal)
    assert renewal.make(stages) == [] == ran(renewal)
    (renewal.root / "a").write_text("other weights")
    assert [stage.name for stage in stages if renewal.stale(stage)] == ["b"]
    assert renewal.make(stages) == ["b", "c"] == ran(renewal)
    (renewal.root / "c").unlink()
    assert renewal.make(stages) == ["c"] == ran(renewal)
    assert renewal.make(stages, again=True) == ["b", "c"] == ran(renewal)


def test_a_renewal_that_failed_goes_on_where_it_stopped(renewal: Renewal) -> None:
    """What was done before a failure is not done again; neighbours of what failed are noted, too."""
    broken = Stage("broken", (("copy_one", "nothing", "x"),), ("a",), ("x",), beside=True)
    stages = [copying("a", "b"), broken, copying("a", "d", beside=True), copying("b", "c")]
    with pytest.raises(SystemExit, match="failed: broken"):
        renewal.make(stages)
    assert sorted(ran(renewal)) == ["b", "d"]
    stages[1] = replace(broken, commands=(("copy_one", "a", "x"),))
    assert renewal.make(stages) == ["broken", "c"]
    assert ran(renewal) == ["x", "c"]


def test_what_cannot_be_read_is_named(renewal: Renewal) -> None:
    """A stage that would read nothing ends the run, with the pattern."""
    (renewal.root / "b").touch()
    with pytest.raises(SystemExit, match=r"stage b: there is no weights/\* to read"):
        renewal.make([Stage("b", (("copy_one", "a", "b"),), ("weights/*",), ("b",))])


def test_every_stage_names_commands_and_files_that_are_there() -> None:
    """Modules exist, what is read is there, results have a folder to go to, and no two stages have one name."""
    here = Renewal(renew.ROOT, renew.STATE)
    assert len({stage.name for stage in STAGES}) == len(STAGES)
    for stage in STAGES:
        for module, *_ in stage.commands:
            assert importlib.util.find_spec(module) is not None, stage.name
        assert here.inputs(stage), stage.name
        for pattern in stage.writes:
            assert (renew.ROOT / pattern).parent.is_dir(), (stage.name, pattern)


def test_stages_are_chosen_by_name_and_group() -> None:
    """Without names all that is usual; an unknown name is refused with those that there are."""
    assert {stage.name for stage in chosen_of([], None)} == {stage.name for stage in STAGES if stage.usual}
    assert all(stage.name.startswith("card-") for stage in chosen_of(["cards"], None))
    first, *_ = chosen_of([], 12)
    assert first.name == "verifier" and first.commands[0][-2:] == ("--minutes", "12")
    with pytest.raises(SystemExit, match="no stage frontiers; there are"):
        chosen_of(["frontiers"], None)


def test_the_time_is_told_by_the_last_run() -> None:
    """Minutes are those of the stages that were run before, and the others are counted."""
    assert expected(STAGES[:3], {STAGES[0].name: {"seconds": 120}}) == "2 min last time, and 2 of unknown length"


@pytest.fixture(scope="module")
def shipped() -> tuple[Catalogue, dict[str, Recipe]]:
    return outcomes.shipped()


def test_a_digest_is_of_the_recipes_own_models(shipped: tuple[Catalogue, dict[str, Recipe]]) -> None:
    """Other steps of a card, or another revision of a model, change the digests of the recipes of it and no others."""
    catalogue, recipes = shipped
    before = digests(recipes, catalogue)
    source = {**catalogue["flux"].source, "revision": "another"}
    for other in (replace(catalogue["flux"], steps=3), replace(catalogue["flux"], source=source)):
        now = digests(recipes, Catalogue({**catalogue.cards, "flux": other}))
        assert {key for key in recipes if now[key] != before[key]} == {key for key in recipes if "flux" in key}
    style = replace(catalogue["sd15"].styles["lcm"], weight=0.5)
    dressed = replace(catalogue["sd15"], styles={**catalogue["sd15"].styles, "lcm": style})
    now = digests(recipes, Catalogue({**catalogue.cards, "sd15": dressed}))
    assert {key for key in recipes if now[key] != before[key]} == {key for key in recipes if "lcm" in key}


def test_outcomes_are_renewed_by_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shipped: tuple[Catalogue, dict[str, Recipe]]
) -> None:
    """Rows of a recipe with another digest are drawn and judged anew; those of the others stay, in the same order."""
    catalogue, recipes = shipped
    some = {key: recipes[key] for key in ("sd15", "sdxl", "sdxl-turbo")}
    table, asked = tmp_path / "outcomes_test.csv", []
    monkeypatch.setattr(outcomes, "shipped", lambda: (catalogue, some))

    def draw(pairs: object, wanted: Mapping[str, Recipe], folder: Path) -> None:
        asked.append(list(wanted))

    def judge(pairs: list[outcomes.Pair], wanted: object, folder: Path, keys: list[str]) -> list[dict[str, object]]:
        return [
            {
                "tier": tier,
                "prompt": prompt.text,
                "recipe": key,
                "seed": seed,
                "exact": 1,
                "partial": len(asked),
                "score": 1,
            }
            for tier, prompt, seed in pairs
            for key in keys
        ]

    monkeypatch.setattr(outcomes, "draw", draw)
    monkeypatch.setattr(outcomes, "score_model", judge)

    def drawn() -> list[tuple[str, str, str]]:
        outcomes.run("test", 1, 2, table, tmp_path, processes=0, most=3, keep=table)
        with table.open(newline="") as file:
            return [(row["recipe"], row["seed"], row["partial"]) for row in csv.DictReader(file)]

    first = drawn()
    told = json.loads((tmp_path / FILE).read_text())
    told[table.stem]["sdxl"] = "of other weights"
    (tmp_path / FILE).write_text(json.dumps(told))
    second = drawn()
    assert asked == [list(some), ["sdxl"]]
    assert second == [(key, seed, "2" if key == "sdxl" else "1") for key, seed, _ in first]
    assert drawn() == second and len(asked) == 2
    assert known(table).keys() == some.keys()
