"""One picture's search by itself: what is looked at, what is tried next, when it ends, and what the answer says."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deployments.orchestration.results import Check, Decided, Made, VerificationChoice, likely, unlikely
from deployments.orchestration.verifier import verified
from router.errors import StepError
from router.types import Picture, Prices, Resources, Verification
from router.verification.options import Options
from router.verification.score_reading import ScoreModel, ScoreReading
from router.verification.value_of_information import Option

SHARP = ScoreReading(ScoreModel(1.0, 1.0, 0.0, (3.0, 4.0), (-3.0, -4.0)), 2.0, True, "for this test")
LADDER = Verification("alignment", accept_above=0.9, escalate_to=("fine",))
TAKES = Resources(1.0, 1.0, 0.25)


def picture(recipe: str, seed: int = 0) -> Made:
    return Made(Picture(np.zeros((1, 1, 3), np.uint8)), seed, "", (), recipe, notes=("first",))


class Bench:
    """Scores and pictures as they are written down. scores: by recipe, one for each picture, an error if it fails"""

    def __init__(self, verify: Verification, late: tuple[str, ...] = (), **scores: list[float | str]) -> None:
        self.verify, self.late, self.scores = verify, late, {name: list(said) for name, said in scores.items()}
        self.told: list[Check | VerificationChoice] = []
        self.asked: list[tuple[str, int]] = []

    async def score(self, made: Made, scorer: str) -> Check:
        assert scorer == "alignment"
        score = self.scores[made.recipe].pop(0)
        if isinstance(score, str):
            raise StepError(score)
        return Check(made.recipe, score, (), seed=made.seed)

    async def make(self, recipe: str, again: int) -> Made:
        self.asked.append((recipe, again))
        if self.scores[recipe] and self.scores[recipe][0] == "broken":
            self.scores[recipe].pop(0)
            raise StepError("it broke")
        return picture(recipe, 100 + again)

    def next_options(self) -> Options:
        names = dict.fromkeys(("draft", *self.verify.tries("draft")))
        options = {name: Option(name, 0.5, 2.0, TAKES) for name in names}
        tries = tuple(options[name] for name in dict.fromkeys(self.verify.tries("draft")))
        return Options(options["draft"], tries, dict.fromkeys(names, TAKES), Resources(0.1, 0.1, 0.01))

    def in_time(self, timing: Resources) -> bool:
        assert timing == TAKES
        return not self.late

    def tell(self, found: Check | VerificationChoice) -> None:
        self.told.append(found)


async def search(bench: Bench, share: int = 1) -> Made:
    return await verified(picture("draft"), bench.verify, SHARP, bench, share)


def chosen(made: Made) -> list[tuple[str, str, str]]:
    return [(choice.action, choice.recipe, choice.reason) for choice in made.choices]


async def test_a_ladder_ends_at_the_first_score_that_reaches_the_bar() -> None:
    """Exactly the bar is enough, and the answer says from where the picture is taken."""
    bench = Bench(LADDER, draft=[0.2], fine=[0.9])
    made = await search(bench)
    assert (made.recipe, [check.accepted for check in made.checks]) == ("fine", [False, True])
    assert chosen(made) == [
        ("escalate", "fine", "no score reached the bar yet"),
        ("stop", "fine", "a score reached 0.9"),
    ]
    assert made.notes == ("first", "draft had 0.20, so fine was taken with 0.90")
    assert bench.asked == [("fine", 0)]
    assert bench.told == [made.checks[0], made.choices[0], made.checks[1], made.choices[1]]
    assert made.choices[-1].best == max(check.probability for check in made.checks)
    at_once = await search(Bench(LADDER, draft=[0.9], fine=[]))
    assert (at_once.notes, chosen(at_once)) == (("first",), [("stop", "draft", "a score reached 0.9")])


async def test_a_ladder_that_reaches_no_bar_keeps_the_highest_score() -> None:
    """The first of equal ones, whatever probability they stand for; the note has the best score and its recipe."""
    made = await search(Bench(LADDER, draft=[0.6], fine=[0.6]))
    assert (made.recipe, chosen(made)[-1][2]) == ("draft", "there is nothing left to try")
    assert made.notes == ("first", "no picture reached 0.9; the best has 0.60, by draft")
    made = await search(Bench(LADDER, draft=[0.6], fine=[0.61]))
    assert made.recipe == "fine" and made.notes[-1] == "no picture reached 0.9; the best has 0.61, by fine"


@pytest.mark.parametrize("retry", [0, 1, 3])
async def test_each_recipe_is_tried_again_as_often_as_is_allowed(retry: int) -> None:
    """The chosen one `retry` times more, another once and `retry` times more, each with its own number; in turn."""
    bench = Bench(replace(LADDER, retry=retry), draft=[0.1] * 9, fine=[0.1] * 9)
    made = await search(bench)
    assert bench.asked == [("draft", k + 1) for k in range(retry)] + [("fine", k) for k in range(retry + 1)]
    assert [choice.action for choice in made.choices[:-1]] == ["retry"] * retry + ["escalate"] + ["retry"] * retry
    assert [check.seed for check in made.checks] == [0, *(100 + again for _, again in bench.asked)]


async def test_another_seed_of_the_same_recipe_is_called_so() -> None:
    """If the kept picture is of the recipe of the first."""
    made = await search(Bench(replace(LADDER, retry=1), draft=[0.2, 0.95], fine=[]))
    assert made.notes == ("first", "draft had 0.20, so draft of another seed was taken with 0.95")


@pytest.mark.parametrize(("most", "pictures"), [(1, 1), (2, 2), (3, 3), (None, 4)])
async def test_no_more_pictures_are_made_than_most(most: int | None, pictures: int) -> None:
    """The first and those that failed included."""
    bench = Bench(replace(LADDER, retry=1, most=most), draft=[0.1, "broken"], fine=[0.1, 0.1])
    made = await search(bench)
    assert 1 + len(bench.asked) == (pictures if most is not None else 3 + 1)
    last = chosen(made)[-1]
    assert last[2] == (
        f"{most} pictures are the most that the policy allows" if most else "there is nothing left to try"
    )


async def test_a_recipe_that_failed_is_not_tried_again() -> None:
    """The answer says why, the others are, and a picture that cannot be looked at is no reason to lose it."""
    bench = Bench(replace(LADDER, retry=2), draft=[0.1, "broken"], fine=[0.1, "no memory", 0.1])
    made = await search(bench)
    assert bench.asked == [("draft", 1), ("fine", 0), ("fine", 1)]
    assert made.notes[1:3] == ("draft was tried and failed: it broke", "fine was tried and failed: no memory")
    made = await search(Bench(LADDER, draft=["the scorer is away"]))
    assert made.notes == ("first", "the picture could not be verified: the scorer is away")
    assert (made.checks, made.choices) == ((), ())


async def test_what_would_end_too_late_is_not_tried() -> None:
    """Said once for each recipe; the search ends."""
    made = await search(Bench(replace(LADDER, retry=1), ("all",), draft=[0.1], fine=[]))
    assert made.notes[1:3] == tuple(
        f"{name} was not tried: it would end after the deadline" for name in ("draft", "fine")
    )
    assert chosen(made) == [("stop", "draft", "there is nothing left to try")]


@pytest.mark.parametrize(
    ("bounds", "share", "tries"),
    [
        ({"work_s": 2.0}, 1, 2), ({"work_s": 1.999}, 1, 1), ({"work_s": 2.0}, 2, 1), ({"work_s": 1.999}, 2, 0),
        ({"cost_usd": 0.5}, 1, 2), ({"cost_usd": 0.499}, 1, 1), ({"cost_usd": 0.75}, 3, 1), ({"cost_usd": 0.74}, 3, 0),
        ({"work_s": 2.0, "cost_usd": 0.25}, 1, 1), ({}, 1, 4), ({"work_s": 0.0}, 1, 0),
    ],
)  # fmt: skip
async def test_tries_stay_within_what_the_request_may_use(bounds: dict[str, float], share: int, tries: int) -> None:
    """Exactly all of the seconds and dollars may be used, of which each picture of the request has its part."""
    bench = Bench(replace(LADDER, retry=4, escalate_to=(), **bounds), draft=[0.1] * 9)
    made = await search(bench, share)
    assert len(bench.asked) == tries
    assert ("draft was not tried: it would go beyond a limit or budget" in made.notes) is (tries < 4)


GAIN = Verification("alignment", by="expected_gain", escalate_to=("fine",), prices=Prices(0.0, 0.0))


async def test_by_gain_a_picture_is_good_if_it_is_more_likely_right_than_not() -> None:
    """Pictures are compared by their probability; without prices, whatever may gain is tried."""
    bench = Bench(GAIN, draft=[0.5], fine=[0.97])
    made = await search(bench)
    assert [check.accepted for check in made.checks] == [check.probability >= 0.5 for check in made.checks]
    even = next(check for check in made.checks if check.score == 0.5)
    assert (even.probability, even.accepted) == (0.5, True)
    assert made.recipe == "fine" and chosen(made)[0][:2] == ("check", "draft")
    assert chosen(made)[0][2] == "a look is worth its price" and made.choices[0].best == 0.5
    assert chosen(made)[1] == ("escalate", "fine", "it is expected to gain more than it costs")
    assert chosen(made)[-1][:2] == ("stop", "fine")


async def test_by_gain_what_costs_more_than_it_gains_is_left() -> None:
    """First the look itself, later a further try, each with gain and price."""
    dear = await search(Bench(replace(GAIN, prices=Prices(1.0, 1.0)), draft=[], fine=[]))
    (choice,) = dear.choices
    assert (choice.action, choice.reason) == ("keep", "a look would cost more than it is expected to gain")
    assert choice.gain is not None and choice.price == pytest.approx(0.1 + 0.01) and choice.gain <= choice.price
    fair = await search(Bench(replace(GAIN, prices=Prices(0.05, 0.0)), draft=[0.97], fine=[]))
    last = fair.choices[-1]
    assert last.reason == "fine, the best try, is expected to gain less than it costs"
    assert last.gain is not None and last.price == pytest.approx(0.05) and fair.recipe == "draft"


async def test_by_gain_a_bar_still_ends_the_search() -> None:
    """Where a policy has one, a score that reaches it is good enough, and only such a one is accepted."""
    made = await search(Bench(replace(GAIN, accept_above=0.4), draft=[0.4], fine=[]))
    assert chosen(made)[-1] == ("stop", "draft", "a score reached 0.4") and made.checks[0].accepted
    made = await search(Bench(replace(GAIN, accept_above=0.99), draft=[0.98], fine=[0.98]))
    assert not any(check.accepted for check in made.checks) and made.notes == ("first",)


async def test_by_gain_a_recipe_is_tried_again_as_often_as_is_allowed() -> None:
    """Then there is nothing left."""
    bench = Bench(replace(GAIN, retry=2, escalate_to=()), draft=[0.03] * 9)
    made = await search(bench)
    assert len(made.checks) == 3 and chosen(made)[-1][2] == "there is nothing left to try"


# ------------------------------------------------------------------------------------------------- what is said of it


def checked(*probabilities: float, accepted: bool = False) -> Made:
    checks = tuple(Check("draft", 0.5, (), accepted, probability=value) for value in probabilities)
    return replace(picture("draft"), checks=checks)


@pytest.mark.parametrize(
    ("made", "is_likely"),
    [(checked(), True), (checked(0.5), True), (checked(0.49), False), (checked(0.1, 0.6), True),
     (checked(0.1, accepted=True), True), (checked(0.1, 0.2), False)],
)  # fmt: skip
def test_a_picture_is_likely_right_from_one_half_on(made: Made, is_likely: bool) -> None:
    """Or as its policy asks, or where nobody looked."""
    assert likely(made) is is_likely


def test_a_warning_names_the_picture_and_how_probable_it_is() -> None:
    """Only those that were looked at and are not likely; of several by number, from 1; two digits, never 0."""
    head = "is probably not what the prompt says: it is right with a probability of"
    assert unlikely([checked(0.25)]) == (f"the picture {head} 0.25 (one was made and checked)",)
    assert unlikely([checked(0.9), checked(0.0123, 0.001), checked(), checked(0.004)]) == (
        f"picture 2 {head} 0.01 (the best of 2 checked ones)",
        f"picture 4 {head} 0.004 (one was made and checked)",
    )
    assert unlikely([checked(0.01)]) == (f"the picture {head} 0.01 (one was made and checked)",)
    assert unlikely([]) == ()


def expected(verify: Verification | None) -> tuple[float, float]:
    estimates = {"draft": Resources(1.0, 1.0, 0.1), "fine": Resources(3.0, 3.0, 0.5), "best": Resources(9.0, 9.0, 0.2)}
    route: Any = SimpleNamespace(decision=SimpleNamespace(recipe="draft", verify=verify), estimates=estimates)
    policy: Any = None
    return Decided(policy, route).expected()


@pytest.mark.parametrize(
    ("changes", "work_s", "cost_usd"),
    [
        ({}, 4.0, 0.6), ({"escalate_to": ("fine", "best")}, 13.0, 0.8), ({"retry": 1}, 8.0, 1.2),
        ({"escalate_to": ("fine", "best"), "most": 2}, 4.0, 0.6),  # the dearest of them
        ({"escalate_to": ("fine", "best"), "most": 3}, 13.0, 0.8), ({"most": 1}, 1.0, 0.1),
        ({"work_s": 2.0}, 3.0, 0.6), ({"cost_usd": 0.25}, 4.0, 0.35), ({"work_s": 5.0, "cost_usd": 1.0}, 4.0, 0.6),
    ],
)  # fmt: skip
def test_what_is_charged_is_what_may_be_needed(changes: dict[str, Any], work_s: float, cost_usd: float) -> None:
    """The chosen recipe and every try that the verification allows, the dearest first, within its limits."""
    assert expected(replace(LADDER, **changes)) == (pytest.approx(work_s), pytest.approx(cost_usd))
    assert expected(None) == (1.0, 0.1)
