"""A person's labels of a study's pictures: which pair to ask about next, what was said, and how far it is worth.

Asked is which of two pictures of one prompt show it; each answer labels both. Every `AGAIN`-th question is an earlier
one with its sides turned: how often the same person says otherwise then is how far one answer can be believed.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deployments.bootstrap.ledger import Entry, Ledger
from deployments.bootstrap.study import Study
from router.bootstrap.labels import Calibrated, calibrate, calibration_error, slip_of
from router.errors import ArtifactError

FILE = "labels.jsonl"
AGAIN = 7
FEWEST = 20
"""Labels from which on they are used."""
WILSON_Z = 1.96


@dataclass(frozen=True)
class Pair:
    """Two pictures of one prompt, by the ids of their shots. again: it was shown before"""

    prompt: str
    left: str
    right: str
    again: bool = False


@dataclass(frozen=True)
class Answer:
    """Which of a pair's pictures show the prompt, and who said so."""

    left: str
    right: str
    left_shows: bool
    right_shows: bool
    rater: str = ""
    again: bool = False


@dataclass(frozen=True)
class Agreement:
    """answers, twice: how many, and how many pictures were labelled twice by one person;   same: share of these with
    the same label (1 without any);   slip: how often a label is wrong, as far as that tells"""

    answers: int
    twice: int
    same: float
    slip: float


class Labels:
    """The answers in a study's folder, appended one by one."""

    def __init__(self, folder: Path) -> None:
        """Raises `ArtifactError` for a file that holds something else."""
        self._file = folder / FILE
        self.answers: list[Answer] = []
        if self._file.is_file():
            for number, line in enumerate(self._file.read_text(encoding="utf-8").splitlines(), start=1):
                try:
                    self.answers.append(Answer(**json.loads(line)))
                except (ValueError, TypeError) as error:
                    raise ArtifactError(
                        f"{self._file}:{number} is no label ({error}); mend or remove the line"
                    ) from error

    def add(self, answer: Answer) -> None:
        """Keep an answer, at once."""
        self.answers.append(answer)
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(asdict(answer), ensure_ascii=False) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def by_picture(self) -> dict[str, list[bool]]:
        """The labels of each picture, in the order in which they were given."""
        found: dict[str, list[bool]] = {}
        for answer in self.answers:
            found.setdefault(answer.left, []).append(answer.left_shows)
            found.setdefault(answer.right, []).append(answer.right_shows)
        return found

    @property
    def agreement(self) -> Agreement:
        """Of each person with himself."""
        mine: dict[tuple[str, str], list[bool]] = {}
        for answer in self.answers:
            mine.setdefault((answer.rater, answer.left), []).append(answer.left_shows)
            mine.setdefault((answer.rater, answer.right), []).append(answer.right_shows)
        twice = [(said[0], said[1]) for said in mine.values() if len(said) > 1]
        same = float(np.mean([one == other for one, other in twice])) if twice else 1.0
        return Agreement(len(self.answers), len(twice), same, slip_of(twice))


def calibrated_by(study: Study, ledger: Ledger, labels: Labels) -> Calibrated:
    """What the labels so far say of the study's judge; several of one picture count as one each."""
    rows = [
        (ledger.entries[id].scores[study.judge], ledger.entries[id].shot.recipe, said)
        for id, several in labels.by_picture().items()
        if id in ledger.entries and study.judge in ledger.entries[id].scores
        for said in several
    ]
    scores, right = np.array([row[0] for row in rows]), np.array([row[2] for row in rows], np.bool_)
    return calibrate(scores, [row[1] for row in rows], right, study.keys, labels.agreement.slip)


def next_pair(study: Study, ledger: Ledger, labels: Labels) -> Pair | None:
    """The pair whose labels are expected to teach most of the judge; None if there is none left."""
    answers = len(labels.answers)
    if answers % AGAIN == AGAIN - 1:
        shown = Counter(frozenset((answer.left, answer.right)) for answer in labels.answers)
        once = [a for a in labels.answers if shown[frozenset((a.left, a.right))] == 1 and a.left in ledger.entries]
        if once:
            earlier = once[len(once) // 2]
            return Pair(ledger.entries[earlier.left].shot.prompt, earlier.right, earlier.left, again=True)
    known = labels.by_picture()
    free = [(id, e) for id, e in ledger.entries.items() if study.judge in e.scores and id not in known]
    if not free:
        return None
    calibrated = calibrated_by(study, ledger, labels)
    worth = calibrated.worth(
        np.array([entry.scores[study.judge] for _, entry in free]), [entry.shot.recipe for _, entry in free]
    )
    by_prompt: dict[str, list[tuple[float, str, Entry]]] = {}
    for value, (id, entry) in zip(worth, free, strict=True):
        by_prompt.setdefault(entry.shot.prompt, []).append((float(value), id, entry))
    pairs = {prompt: sorted(some, key=lambda one: -one[0])[:2] for prompt, some in by_prompt.items() if len(some) > 1}
    if not pairs:
        return None
    prompt = max(pairs, key=lambda name: sum(one[0] for one in pairs[name]))
    first, second = sorted(pairs[prompt], key=lambda one: one[1])  # by id, so that sides say nothing
    return Pair(prompt, first[1], second[1])


def report(study: Study, ledger: Ledger, labels: Labels) -> dict[str, float]:
    """How good the calibration is on labels that it did not see (prompts left out in turn): labels; brier and
    brier_before; calibration_error and calibration_error_before; coverage, the share of bins whose share of right
    ones is within the interval (95 %) that its number of labels allows; same, slip: see `Agreement`."""
    known = [
        (
            ledger.entries[id].shot.prompt,
            ledger.entries[id].scores[study.judge],
            ledger.entries[id].shot.recipe,
            said[0],
        )
        for id, said in labels.by_picture().items()
        if id in ledger.entries and study.judge in ledger.entries[id].scores
    ]
    agreement = labels.agreement
    scores = np.array([row[1] for row in known])
    recipes = [row[2] for row in known]
    right = np.array([row[3] for row in known], np.bool_)
    prompts = sorted({row[0] for row in known})
    fold = np.array([prompts.index(row[0]) % 5 for row in known])
    said = np.full(len(known), np.nan)
    for k in np.unique(fold):
        rest = fold != k
        fitted = calibrate(scores[rest], [r for r, keep in zip(recipes, rest, strict=True) if keep], right[rest],
                           study.keys, agreement.slip)  # fmt: skip
        out = ~rest
        said[out] = fitted.probability(scores[out], [r for r, keep in zip(recipes, out, strict=True) if keep])
    # What a label says, slips included, is what a label can be compared with.
    slip = agreement.slip
    expected, truth = slip + (1 - 2 * slip) * said, right.astype(float)
    return {
        "labels": float(len(known)),
        "brier": float(((expected - truth) ** 2).mean()),
        "brier_before": float(((scores - truth) ** 2).mean()),
        "calibration_error": calibration_error(expected, truth, 5),
        "calibration_error_before": calibration_error(scores, truth, 5),
        "coverage": _coverage(expected, truth),
        "same": agreement.same,
        "slip": slip,
    }


def _coverage(expected: NDArray[np.float64], truth: NDArray[np.float64], bins: int = 5) -> float:
    inside = []
    for rows in np.array_split(np.argsort(expected, kind="stable"), bins):
        if len(rows):
            n, z, share = len(rows), WILSON_Z, float(truth[rows].mean())
            centre = (share + z * z / (2 * n)) / (1 + z * z / n)
            half = z / (1 + z * z / n) * float(np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)))
            inside.append(abs(float(expected[rows].mean()) - centre) <= half)
    return float(np.mean(inside)) if inside else 1.0


def used(labels: Labels) -> bool:
    """Whether there are enough of them to be used, of both kinds."""
    said: Sequence[bool] = [one for several in labels.by_picture().values() for one in several]
    return len(said) >= FEWEST and 3 <= sum(said) <= len(said) - 3
