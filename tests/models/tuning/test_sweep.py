"""Sweeps: halving keeps what may still be the best, nothing is drawn twice, and what is chosen keeps its promise."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.schedulers import schedulers_for
from models.sweep import sweep as sweeping
from models.sweep.journal import Journal
from models.sweep.outcome import entry, plot
from models.sweep.similarity import SAME_DB, psnr, ssim
from models.sweep.standings import Aim, Look, Standing, better_half, chosen, front, standing
from models.sweep.sweep import sweep
from models.sweep.ways import Build, Way, as_it_is, builds_of, steps_of, ways_of
from models.tuning.settings import Tuning
from router.errors import LoadError, RequestError, StepError
from router.types import ModelCard

ABOUT = {"model": "sd15", "seed": 0}
CARD = ModelCard(id="sd15", family="sd15", role="base", source={"local": "nowhere"}, steps=10)


def stood(way: str, seconds: float, change: float, prompts: int = 8, doubt: float = 0.0) -> Standing:
    return Standing(way, prompts, seconds, 0.9 + change, change, doubt, 1.0, 50.0, 0.0)


standings = st.lists(
    st.tuples(st.floats(0.01, 10), st.floats(-1, 1)), min_size=1, max_size=20
).map(lambda found: [stood(str(n), *one) for n, one in enumerate(found)])  # fmt: skip


@given(standings)
def test_nothing_beats_the_front(found: list[Standing]) -> None:
    """Of each way that is not on the front, one on it is as fast and as good; of those on it, none is both."""
    best = front(found)
    for one in found:
        assert any(other.seconds <= one.seconds and other.change >= one.change for other in best)
    for one in best:
        assert not any(other.seconds < one.seconds and other.change >= one.change for other in best)


@given(standings, st.sampled_from([None, 0.5]), st.integers(1, 6))
def test_the_better_half_holds_what_would_be_chosen(found: list[Standing], latency: float | None, least: int) -> None:
    """The way that is best now is never left out while others stay, and half of the ways go on."""
    aim = Aim(latency)
    kept = better_half(found, aim, least, now_s=1.0)
    assert len(kept) == min(len(found), max(least, -(-len(found) // 2)))
    if (best := chosen(found, aim)) is not None and latency is None:
        assert best.way in kept


def test_what_is_sure_goes_on_beside_what_promises_more() -> None:
    """A way that is all but certainly good enough is never left out for faster ones that may be."""
    hopes = [stood(f"hope {n}", 0.1, 0.0, doubt=0.02) for n in range(9)]
    assert "sure" in better_half([*hopes, stood("sure", 0.5, 0.0, doubt=0.001)], Aim(), 4, now_s=1.0)


def test_the_fastest_that_is_as_good_is_chosen() -> None:
    """Without a latency seconds decide, among the ways that keep the score up to `within`."""
    found = [stood("as it is", 1.0, 0.0), stood("half", 0.5, -0.008), stood("worse", 0.2, -0.05)]
    assert chosen(found, Aim()).way == "half"  # type: ignore[union-attr]
    assert chosen(found, Aim(within=0.1)).way == "worse"  # type: ignore[union-attr]
    doubtful = [*found, stood("lucky", 0.1, 0.0, doubt=0.1)]
    assert chosen(doubtful, Aim()).way == "half"  # type: ignore[union-attr]


def test_what_makes_other_pictures_is_taken_only_if_that_is_welcome() -> None:
    """A scorer that sees no loss does not excuse pictures that became others, unless nobody minds or time presses."""
    found = [
        stood("as it is", 1.0, 0.0),
        stood("same", 0.5, 0.0),
        replace(stood("fewer steps", 0.3, 0.0), ssim=0.99),
    ]
    assert chosen(found, Aim(alike=0.998)).way == "same"  # type: ignore[union-attr]
    assert chosen(found, Aim(alike=0.0)).way == "fewer steps"  # type: ignore[union-attr]
    assert chosen(found, Aim(0.4, alike=0.998)).way == "fewer steps"  # type: ignore[union-attr]
    aim = Aim(alike=0.998)
    assert aim.promise(found[1], 1.0) > aim.promise(found[0], 1.0) > aim.promise(found[2], 1.0)


def test_a_latency_is_kept_or_nothing_is_chosen() -> None:
    """With one, the best within it is taken, the faster of equals; if none is that fast, none is chosen."""
    found = [
        stood("as it is", 3.0, 0.0),
        stood("good", 1.9, -0.02),
        stood("good too", 1.5, -0.025),
        stood("bad", 1, -1),
    ]
    assert chosen(found, Aim(2.0)).way == "good too"  # type: ignore[union-attr]
    assert chosen(found, Aim(2.0, within=0.001)).way == "good"  # type: ignore[union-attr]
    assert chosen(found, Aim(0.5)) is None


def test_what_was_seen_less_often_is_not_chosen() -> None:
    """A way that was left out early does not win by its few prompts."""
    found = [stood("as it is", 1.0, 0.0), stood("seen", 0.9, 0.0), stood("early", 0.1, 0.3, prompts=2)]
    assert chosen(found, Aim()).way == "seen"  # type: ignore[union-attr]


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30))
def test_a_way_is_compared_on_the_same_prompts(scores: list[tuple[float, float]]) -> None:
    """Its change is the mean difference to the present way, prompt by prompt; more prompts leave less doubt."""
    own = {n: Look(1.0, score, 1.0, 50.0) for n, (score, _) in enumerate(scores)}
    present = {n: Look(1.0, score, 1.0, 50.0) for n, (_, score) in enumerate(scores)}
    found = standing("way", own, present)
    assert found.change == pytest.approx(np.mean([a - b for a, b in scores]), abs=1e-9)
    assert 0 < found.doubt <= 0.7
    assert standing("way", present, present).doubt == 0


def test_pictures_that_are_alike_leave_less_doubt() -> None:
    """Of two ways with the same scores, the one whose pictures are nearly those of the present way is surer."""
    scores = (1.0, 1.0, 0.0, 1.0)
    present = {n: Look(1.0, score, 1.0, 50.0) for n, score in enumerate(scores)}
    alike, unlike = (
        standing("way", {n: Look(1.0, score, ssim, 30.0) for n, score in enumerate(scores)}, present)
        for ssim in (0.9999, 0.85)
    )
    assert alike.doubt < unlike.doubt / 5 and alike.change == unlike.change == 0


def test_pictures_are_the_less_alike_the_more_they_differ() -> None:
    """SSIM and PSNR are highest for the same picture, symmetric, and fall with noise."""
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
    noisy = [np.clip(picture + rng.normal(0, sigma, picture.shape), 0, 255).astype(np.uint8) for sigma in (5, 20, 60)]
    assert ssim(picture, picture) == pytest.approx(1.0)
    assert psnr(picture, picture) == SAME_DB
    for measure in (ssim, psnr):
        values = [measure(picture, one) for one in noisy]
        assert values == sorted(values, reverse=True)
        assert measure(noisy[0], picture) == pytest.approx(values[0])


class FakeStudio:
    """Draws nothing: what each way is like is known, and which prompts it was asked for is noted. Fewer steps are worse
    but by euler, and graphs take half the time."""

    def __init__(self, prompts: int, ends: int | None = None) -> None:
        self.prompts = ["a circle"] * prompts
        self.looked: list[tuple[str, int]] = []
        self.left = False
        self._ends = ends

    def enter(self, build: Build) -> None:
        if dict(build.tuning).get("compile"):
            raise LoadError("no compiler")

    def leave(self) -> None:
        self.left = True

    def look(self, way: Way, number: int, journal: Journal, present: bool) -> Look:
        if self._ends is not None and len(self.looked) >= self._ends:
            raise KeyboardInterrupt
        if way.steps == 1:
            raise StepError("too few steps")
        self.looked.append((way.name, number))
        seconds = way.steps / (20 if way.build.exported else 10)
        return Look(seconds, 1.0 if way.scheduler == "euler" else way.steps / 10, 1.0, 50.0)


WAYS = [
    Way(build, steps, name)
    for build in (Build(), Build("", {"compile": "regional"}), Build("fp32"))
    for steps, name in ((10, "default"), *itertools.product((8, 5, 1), ("ddim", "euler")))
]
GOOD = Way(Build("fp32"), 5, "euler").name


def swept(studio: FakeStudio, folder: Path, minutes: float = 1.0, ways: Sequence[Way] = WAYS) -> sweeping.Found:
    return sweep(ways, studio, Journal(folder, ABOUT), Aim(), minutes)  # type: ignore[arg-type]


def test_a_sweep_finds_what_is_faster_and_as_good(tmp_path: Path) -> None:
    """Two changes that are good by themselves are tried together, and the way that keeps the score in a quarter of the
    time is chosen; what failed is named with the reason; the rest drew few prompts or, if they promised less, none."""
    studio = FakeStudio(32)
    found = swept(studio, tmp_path / "s")
    assert found.whole and studio.left
    assert chosen(found.standings, Aim()).way == GOOD  # type: ignore[union-attr]
    reasons = set(found.left_out.values())
    assert reasons == {"no compiler", "too few steps"}
    seen = {one.way: one.prompts for one in found.standings}
    assert seen[GOOD] == seen[WAYS[0].name] == 32
    assert sum(prompts == 32 for prompts in seen.values()) == 5  # the least that go on, and the present way


def test_what_promises_less_is_not_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two changes together only the most promising are drawn, and the others are left out with that reason."""
    monkeypatch.setattr(sweeping, "PROMISING", 4)
    studio = FakeStudio(32)
    found = swept(studio, tmp_path / "s")
    assert chosen(found.standings, Aim()).way == GOOD  # type: ignore[union-attr]
    assert sweeping.SCREENED in found.left_out.values()
    assert not {name for name, reason in found.left_out.items() if reason == sweeping.SCREENED} & {
        name for name, _ in studio.looked
    }


def test_a_sweep_that_was_ended_goes_on_where_it_was(tmp_path: Path) -> None:
    """After an interrupt it tells what it knows, and the next run draws only what is missing."""
    first = FakeStudio(32, ends=20)
    half = swept(first, tmp_path / "s")
    assert not half.whole and first.left
    second = FakeStudio(32)
    whole = swept(second, tmp_path / "s")
    assert whole.whole
    assert not set(first.looked) & set(second.looked)
    once = FakeStudio(32)
    assert swept(once, tmp_path / "other").standings == whole.standings


def test_a_line_that_was_being_written_is_dropped(tmp_path: Path) -> None:
    """A journal whose last line is cut goes on before it."""
    swept(FakeStudio(4), tmp_path / "s")
    file = tmp_path / "s" / "looks.jsonl"
    text = file.read_text()
    file.write_text(text[:-10])
    again = FakeStudio(4)
    swept(again, tmp_path / "s")
    assert len(again.looked) <= 1
    assert file.read_text() == text


def test_a_budget_ends_a_sweep_with_what_is_known(tmp_path: Path) -> None:
    """When the minutes are over only the present way has certainly been drawn, and the others are named."""
    found = swept(FakeStudio(32), tmp_path / "s", minutes=0)
    assert [one.way for one in found.standings] == [WAYS[0].name]
    assert not found.whole
    assert len(found.left_out) == len(WAYS) - 1


def test_a_folder_of_another_sweep_is_refused(tmp_path: Path) -> None:
    """Looks of other prompts, models or seeds are not comparable; a folder with other things is not written to."""
    Journal(tmp_path / "s", ABOUT)
    with pytest.raises(RequestError, match="another seed"):
        Journal(tmp_path / "s", {**ABOUT, "seed": 1})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(RequestError, match="not an empty folder"):
        Journal(tmp_path / "mine", ABOUT)


def test_every_way_is_a_change_of_what_the_config_says() -> None:
    """The present way comes first and once; a tuning of the config stays in all; steps never rise."""
    card = replace(CARD, tuning=Tuning.model_validate({"vae_slicing": True, "quantize": "int8"}).said())
    ways, _ = ways_of(card, "cpu")
    assert ways[0] == as_it_is(card)
    assert len({way.name for way in ways}) == len(ways)
    assert all(way.build.tuning["quantize"] == "int8" and way.build.tuning["vae_slicing"] for way in ways)
    assert {way.scheduler for way in ways} == set(schedulers_for(card))
    assert steps_of(card) == [10, 8, 6, 5, 4, 3, 2]
    assert not any(way.build.exported for way in ways)  # int8 of torch cannot be followed by a graph


def test_what_a_machine_lacks_is_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a compiler no way is compiled, and that is said once."""
    monkeypatch.setenv("CXX", "no-such-compiler")
    builds, missing = builds_of(CARD, "cpu")
    assert builds and not any("compile" in build.tuning for build in builds)
    assert len(missing) == 1 and "C++ compiler" in missing[0]
    assert {build.exported for build in builds} == {"", "fp32", "int8"}


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        (Way(Build(), 10, "default"), {"card": "mine.yaml", "overrides": {"dtype": "float16"}}),
        (
            Way(Build("int8", {"vae_slicing": True}), 5, "ddim"),
            {"overrides": {"dtype": "float16", "steps": 5, "scheduler": "ddim"}, "tuning": {"vae_slicing": True}},
        ),
    ],
)
def test_the_entry_changes_what_was_chosen_and_keeps_the_rest(
    way: Way, expected: dict[str, Any], tmp_path: Path
) -> None:
    """The YAML is the model's entry as it was, with steps, scheduler, source and tuning of the way."""
    given = {"card": "mine.yaml", "overrides": {"dtype": "float16"}, "worker": "cpu"}
    made = entry(given, CARD, way, tmp_path if way.build.exported else None)
    assert made["worker"] == "cpu"
    if way.build.exported:
        assert made["overrides"].pop("source") == {"onnx": str(tmp_path)}
    assert {**made, **expected} == made


def test_the_plot_is_a_file_that_does_not_depend_on_the_day(tmp_path: Path) -> None:
    """Two plots of the same are the same bytes."""
    found = [stood("as it is", 1.0, 0.0), stood("half", 0.5, -0.008), stood("early", 0.4, -0.3, prompts=4)]
    files = [tmp_path / f"{n}.svg" for n in range(2)]
    for file in files:
        plot(found, found[1], Aim(2.0), file, "sd15", "wall")
    assert files[0].read_bytes() == files[1].read_bytes()
    assert b"half" in files[0].read_bytes()


def test_a_journal_is_json(tmp_path: Path) -> None:
    """Every line can be read by whoever wants to."""
    swept(FakeStudio(4), tmp_path / "s")
    rows = [json.loads(line) for line in (tmp_path / "s" / "looks.jsonl").read_text().splitlines()]
    assert rows[0] == {"about": ABOUT}
    assert all("way" in row for row in rows[1:])
