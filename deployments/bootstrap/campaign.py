"""The run of a bootstrap: survey, learn, prove. It can be stopped at any moment, and goes on from the ledger.

survey    every recipe on the same few prompts: what each costs and is worth on average
learn     the pictures that are expected to better decisions most per second, until the budget's share is used or
          no further ones would change decisions
prove     what decisions may come to (the contenders), on prompts that nothing is learned from
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from deployments.bootstrap.ledger import PICTURES, Ledger, Shot
from deployments.bootstrap.making import Maker
from deployments.bootstrap.study import Study
from models.judging.judges import Judge
from router.bootstrap.beliefs import Beliefs, Seen, Variances, fit_variances
from router.bootstrap.choosing import Cell, bettered, contenders, swept, valuable
from router.errors import LoadError, PolicyError, StepError, TriptychError

Array = NDArray[np.float64]
Choose = Literal["value", "uniform"]
SURVEYED = 24  # prompts; the least that a recipe must be rated on, and a few that a judge may fail on
ROUND = 32  # pictures between two looks at what is known
FIRST = 60  # proof prompts that are drawn before any second seed
TWICE = 24  # of them, which get a second seed: it tells chance from prompt
GIVE_UP = 8  # pictures in a row that fail
UNTIL = 0.001
"""Quality (0..1) by which the later half of the pictures has bettered decisions, on average, below which they stop: as
many again would hardly do more."""
EARLIEST = 12  # prompts with every recipe, beyond the survey, before which nothing stops


@dataclass(frozen=True)
class Budget:
    """What may be used in all, earlier runs included; None: no such limit."""

    pictures: int | None = None
    minutes: float | None = None
    usd: float | None = None

    def used(self, ledger: Ledger, under_way: int = 0) -> float:
        """The share of it, by the limit that is nearest. under_way: pictures that were begun"""
        parts = [
            (len(ledger) + under_way) / self.pictures if self.pictures else 0.0,
            ledger.elapsed_s / 60 / self.minutes if self.minutes else 0.0,
            ledger.cost_usd / self.usd if self.usd else 0.0,
        ]
        return max(parts)

    def words(self, ledger: Ledger) -> str:
        """What is left of each limit."""
        left = []
        if self.pictures:
            left.append(f"{max(0, self.pictures - len(ledger))} pictures")
        if self.minutes:
            left.append(f"{max(0.0, self.minutes - ledger.elapsed_s / 60):.1f} min")
        if self.usd:
            left.append(f"{max(0.0, self.usd - ledger.cost_usd):.2f} USD")
        return ", ".join(left) + " left"


@dataclass(frozen=True)
class Standing:
    """How far it is. phase: in a word;   used: share of the budget;   left: in words;   recent: of which recipe"""

    phase: str
    pictures: int
    used: float
    left: str
    recent: str = ""


@dataclass
class Campaign:
    """inputs (prompts, d): as the predictor's kernel sees them;   tell: hears how far it is;   note: hears what a
    person should know;   at_once: pictures under way at the same time"""

    study: Study
    ledger: Ledger
    maker: Maker
    judge: Judge
    budget: Budget
    inputs: Array
    choose: Choose = "value"
    at_once: int = 4
    until: float = UNTIL
    tell: Callable[[Standing], None] = lambda standing: None
    note: Callable[[str], None] = lambda text: None
    out: dict[int, str] = field(default_factory=dict)
    _variances: Variances | None = None
    _fitted_on: int = 0
    _in_a_row: int = 0
    _under_way: int = 0
    _judged: Counter[bool] = field(default_factory=Counter)
    _phase: str = ""
    _began: float = 0.0

    async def run(self) -> str:
        """Everything that the budget allows; why it ended, in words. Raises `TriptychError` if nothing can be drawn or
        judged."""
        self._began = time.monotonic() - self.ledger.elapsed_s
        learning, proof = self.study.split()
        self._phase = "judging"
        await self._pick_up()
        self._phase = "survey"
        survey = swept(learning[:SURVEYED], len(self.study.keys), 1, self.study.seed)
        await self._make(survey, 1.0)
        self._phase = "learning"
        why = await self._learn(learning, 1 - self.study.proof)
        self._phase = "proof"
        # What learning left over is not spent on the proof: it has its share.
        await self._make(self._proof_cells(proof), min(1.0, self.budget.used(self.ledger) + self.study.proof))
        return why

    async def refresh(self, cells: Sequence[Cell]) -> None:
        """Draw and judge these, and nothing else."""
        self._began = time.monotonic() - self.ledger.elapsed_s
        self._phase = "fresh"
        self._fresh = {self.study.shot(cell).id: self.study.shot(cell) for cell in cells}
        await self._pick_up()
        await self._make(cells, 1.0)

    # ------------------------------------------------------------------------------------------------------- learning

    async def _learn(self, prompts: NDArray[np.int64], share: float) -> str:
        recipes = len(self.study.keys)
        sweep = swept(prompts, recipes, self.study.seeds, self.study.seed) if self.choose == "uniform" else []
        while self.budget.used(self.ledger) < share:
            taken = self._taken()
            if self.choose == "uniform":
                cells = [cell for cell in sweep if cell not in taken and cell.recipe not in self.out][:ROUND]
            else:
                cells, lately = await asyncio.to_thread(self._next, prompts, taken)
                if lately < self.until:
                    return (
                        "more pictures would hardly change decisions: the later half of them bettered them by "
                        f"{100 * lately:.2f} points"
                    )
            if not cells:
                return "every picture of every prompt is made"
            await self._make(cells, share)
        return "the budget is used"

    def _next(self, prompts: NDArray[np.int64], taken: set[Cell]) -> tuple[list[Cell], float]:
        """Cells to make next, and by how much the later half of the pictures bettered decisions."""
        beliefs, kept = self.beliefs()
        if beliefs is None:
            rest = [cell for cell in swept(prompts, len(kept), 1, self.study.seed) if cell not in taken]
            return rest[:ROUND], math.inf
        seconds = self.seconds()[kept]
        place = {k: number for number, k in enumerate(kept)}
        known = {Cell(c.prompt, place[c.recipe], c.seed) for c in taken if c.recipe in place}
        most = self.study.seeds
        lately, pictures = math.inf, int(beliefs.seen.count.sum())
        if pictures >= (SURVEYED + EARLIEST) * len(kept):
            before, _ = self.beliefs(pictures // 2)
            lately = math.inf if before is None else bettered(beliefs, before, prompts, seconds)
        cells = valuable(beliefs, prompts, seconds, known, ROUND, most, len(taken))
        return [Cell(c.prompt, kept[c.recipe], c.seed) for c in cells], lately

    def beliefs(self, first: int | None = None) -> tuple[Beliefs | None, list[int]]:
        """What is believed of the recipes that can be drawn, and their numbers; None before anything was judged.
        first: by so many pictures"""
        kept = [k for k in range(len(self.study.keys)) if k not in self.out]
        place = {k: number for number, k in enumerate(kept)}
        learning = set(self.study.split()[0].tolist())
        rows = [row for row in self._scored() if row[1] in place and row[0] in learning][:first]
        if len(rows) < 10:
            return None, kept
        prompt, recipe = (np.array([row[i] for row in rows]) for i in (0, 1))
        seen = Seen.of(prompt, np.array([place[int(k)] for k in recipe]), self._quality(rows))
        if self._variances is None or len(rows) > 1.5 * self._fitted_on:
            self._variances, self._fitted_on = fit_variances(self.inputs, seen), len(rows)
        return Beliefs.of(self.inputs, seen, self._variances), kept

    def _quality(self, rows: Sequence[tuple[int, int, float]]) -> Array:
        """Scores that are no probabilities as their places among all of them, 0..1."""
        scores = np.array([row[2] for row in rows])
        return scores if self.judge.probability else (np.argsort(np.argsort(scores, kind="stable")) + 0.5) / len(scores)

    def seconds(self) -> Array:
        """Median seconds of a picture of each recipe; of one that was not drawn yet, those of the others."""
        found = [
            [e.seconds for e in self.ledger.entries.values() if e.shot.recipe == key and e.seconds is not None]
            for key in self.study.keys
        ]
        medians = np.array([float(np.median(some)) if some else np.nan for some in found])
        usual = float(np.nanmedian(medians)) if np.isfinite(medians).any() else 1.0
        return np.maximum(np.where(np.isnan(medians), usual, medians), 1e-4)

    def _proof_cells(self, prompts: NDArray[np.int64]) -> list[Cell]:
        beliefs, kept = self.beliefs()
        if beliefs is None or not len(prompts):
            return []
        runners = [kept[k] for k in contenders(beliefs, prompts, self.seconds()[kept])]
        first = [Cell(int(p), k) for p in prompts[:FIRST] for k in runners]
        again = [Cell(int(p), k, 1) for p in prompts[:TWICE] for k in runners if self.study.seeds > 1]
        return [*first, *again, *(Cell(int(p), k) for p in prompts[FIRST:] for k in runners)]

    # --------------------------------------------------------------------------------------------------------- making

    async def _make(self, cells: Sequence[Cell], share: float) -> None:
        """Draw and judge cells that are not there yet, while less than a share of the budget is used."""
        waiting = iter([cell for cell in cells if self.study.shot(cell) not in self.ledger])

        async def work() -> None:
            for cell in waiting:
                if cell.recipe in self.out:
                    continue
                if self.budget.used(self.ledger, self._under_way) >= share:
                    return
                self._under_way += 1
                try:
                    await self._one(cell)
                finally:
                    self._under_way -= 1

        tasks = [asyncio.create_task(work()) for _ in range(self.at_once)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _one(self, cell: Cell) -> None:
        shot, key = self.study.shot(cell), self.study.keys[cell.recipe]
        try:
            drawn = await self.maker.draw(shot, self.study.recipes[key])
        except PolicyError:  # the server measures something else
            raise
        except TriptychError as error:
            self._fail(cell, shot, error)
            return
        self._in_a_row = 0
        self._clock()
        self.ledger.made(shot, drawn.pixels, drawn.seconds, drawn.cost_usd)
        await self._look(shot, drawn.pixels)
        self.tell(
            Standing(
                self._phase, len(self.ledger), self.budget.used(self.ledger), self.budget.words(self.ledger),
                self.study.recipes[key],
            )
        )  # fmt: skip

    def _fail(self, cell: Cell, shot: Shot, error: TriptychError) -> None:
        self._clock()
        self.ledger.failed(shot, error.message)
        self._in_a_row += 1
        key = self.study.keys[cell.recipe]
        mine = [entry for entry in self.ledger.entries.values() if entry.shot.recipe == key]
        if len(mine) >= 4 and all(entry.failed for entry in mine):
            self.out[cell.recipe] = error.message
            self.note(f"warning: {self.study.recipes[key]} is left out, since it cannot be drawn: {error.message}")
        if self._in_a_row >= GIVE_UP * max(1, len(self.study.keys) // 2) or len(self.out) == len(self.study.keys):
            raise error

    async def _look(self, shot: Shot, pixels: NDArray[np.uint8]) -> None:
        try:
            score = await asyncio.to_thread(self.judge.score, pixels, shot.prompt)
        except LoadError:  # there is no judge
            raise
        except Exception as error:  # whatever a judge stumbles over, the picture is made and the others go on
            self._judged[False] += 1
            self._clock()
            self.ledger.unjudged(shot, str(error) or type(error).__name__)
            if not self._judged[True] and self._judged[False] >= GIVE_UP:
                raise StepError(f"the judge {self.judge.name} fails on every picture: {error}") from error
            return
        self._judged[True] += 1
        self._clock()
        self.ledger.judged(shot, {self.judge.name: score})

    async def _pick_up(self) -> None:
        """What earlier runs left: pictures that were drawn, but the process died before that was written down; and
        those without a score of this judge."""
        there = {file.stem for file in (self.ledger.folder / PICTURES).glob("*.png")} - self.ledger.entries.keys()
        for shot in (*(shot for _, shot in self._known()), *self._fresh.values()) if there else ():
            if shot.id in there and (pixels := self.ledger.pixels(shot)) is not None:
                self.ledger.made(shot, pixels, None, 0.0)
        for entry in list(self.ledger.entries.values()):
            if not entry.failed and self.judge.name not in entry.scores:
                pixels = self.ledger.pixels(entry.shot)
                if pixels is not None:
                    await self._look(entry.shot, pixels)

    def _clock(self) -> None:
        self.ledger.elapsed_s = time.monotonic() - self._began

    def _cells(self) -> Iterator[tuple[Cell, Shot]]:
        for prompt in range(len(self.study.prompts)):
            for recipe in range(len(self.study.keys)):
                for seed in range(self.study.seeds):
                    cell = Cell(prompt, recipe, seed)
                    yield cell, self.study.shot(cell)

    def _taken(self) -> set[Cell]:
        return {cell for cell, shot in self._known() if shot in self.ledger}

    def _scored(self) -> list[tuple[int, int, float]]:
        """(prompt, recipe, score) of each picture that was judged, in the order in which they were made."""
        cells = {shot.id: cell for cell, shot in self._known()}
        return [
            (cells[id].prompt, cells[id].recipe, entry.scores[self.judge.name])
            for id, entry in self.ledger.entries.items()
            if self.judge.name in entry.scores and id in cells and not entry.aside
        ]

    def _known(self) -> list[tuple[Cell, Shot]]:
        if not self._all:
            self._all.extend(self._cells())
        return self._all

    _all: list[tuple[Cell, Shot]] = field(default_factory=list)
    _fresh: dict[str, Shot] = field(default_factory=dict)
