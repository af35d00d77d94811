"""Look at a picture after it was made; while more is to be gained than it costs, make others, and keep the best."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from deployments.orchestration.results import Action, Check, Made, VerificationChoice
from router.errors import TriptychError
from router.types import Resources, Verification
from router.verification.options import Options
from router.verification.score_reading import ScoreReading
from router.verification.value_of_information import Option, weigh


class Bench(Protocol):
    """Where pictures of one request are scored and made."""

    async def score(self, made: Made, scorer: str) -> Check: ...

    async def make(self, recipe: str, again: int) -> Made:
        """Another picture of `recipe`; `again` pictures of it were begun before, and each has its own seed."""
        ...

    def next_options(self) -> Options: ...

    def in_time(self, timing: Resources) -> bool: ...

    def tell(self, found: Check | VerificationChoice) -> None:
        """Hear of a check or of a choice as soon as it is made."""
        ...


async def verified(made: Made, verify: Verification, score_reading: ScoreReading, bench: Bench, share: int = 1) -> Made:
    """The best picture found, with every check and choice, and a note for whatever was not tried.

    Only fails if cancelled.
    A picture that was made is never lost: a try that fails or comes too late leaves the best one so far.
    share: pictures of the request, each of which may use one part of what `verify` allows
    """
    found = Verifier(made, verify, score_reading, bench, share)
    if not found.value_of_a_look():
        return found.result()
    try:
        await found.look(made)
    except TriptychError as error:
        return replace(made, notes=(*made.notes, f"the picture could not be verified: {error.message}"))
    while (name := found.next()) is not None:
        try:
            await found.look(await bench.make(name, found.begun[name] - 1))
        except TriptychError as error:
            found.out[name] = f"{name} was tried and failed: {error.message}"
    return found.result()


@dataclass
class Verifier:
    """One picture's search. best: the picture to keep;   begun: pictures of each recipe, failed ones too;
    out: recipes that are no longer tried, with the reason in words;   used: seconds of work and dollars of the tries"""

    made: Made
    verify: Verification
    score_reading: ScoreReading
    bench: Bench
    share: int = 1
    best: Made = field(init=False)
    checks: list[Check] = field(default_factory=list)
    choices: list[VerificationChoice] = field(default_factory=list)
    begun: dict[str, int] = field(default_factory=dict)
    out: dict[str, str] = field(default_factory=dict)
    used_s: float = 0.0
    used_usd: float = 0.0

    def __post_init__(self) -> None:
        self.best = self.made
        self.begun = {self.made.recipe: 1}

    @property
    def verdicts(self) -> dict[str, list[float]]:
        """Of the pictures that were looked at, by recipe."""
        seen: dict[str, list[float]] = {}
        for check in self.checks:
            seen.setdefault(check.recipe, []).append(check.probability)
        return seen

    def value_of_a_look(self) -> bool:
        """Whether the first picture is checked at all. A ladder always looks."""
        if self.verify.by == "ladder":
            return True
        ahead = self.ahead()
        gain = ahead.gain(self.score_reading.score_model, self.verify.prices)
        price = self.verify.prices.of(ahead.look)
        action: Action = "check" if gain > price else "keep"
        reason = "a look is worth its price" if gain > price else "a look would cost more than it is expected to gain"
        self._choose(VerificationChoice(action, self.made.recipe, reason, gain, price, ahead.made.chance))
        return gain > price

    async def look(self, made: Made) -> None:
        """Score a picture, and keep it if it is the best. Raises what scoring may raise."""
        check = await self.bench.score(made, self.verify.scorer)
        chance = self._option(made.recipe).after(self.verdicts.get(made.recipe, []))
        probability = self.score_reading.score_model.verdict(chance, check.score)
        bar = self.verify.accept_above
        accepted = probability >= 0.5 if bar is None else check.score >= bar
        check = replace(check, probability=probability, accepted=accepted)
        if not self.checks or self._worth(check) > max(map(self._worth, self.checks)):
            self.best = made
        self.checks.append(check)
        self.bench.tell(check)

    def next(self) -> str | None:
        """The recipe of the next picture, or None to end; the choice is remembered with its reason."""
        most = self.verify.most
        if most is not None and sum(self.begun.values()) >= most:
            self.stop(f"{most} pictures are the most that the policy allows")
            return None
        bar = self.verify.accept_above
        if bar is not None and any(check.score >= bar for check in self.checks):
            self.stop(f"a score reached {bar:g}")
            return None
        name = CHOOSERS[self.verify.by](self)
        if name is not None:
            self.begun[name] = self.begun.get(name, 0) + 1
        return name

    def result(self) -> Made:
        """The best picture, with everything about the others."""
        notes = [*self.out.values()]
        bar, first = self.verify.accept_above, self.checks[0] if self.checks else None
        top = max(self.checks, key=self._worth, default=None)
        if first is not None and top is not None:
            if bar is not None and self.verify.by == "ladder" and not any(check.accepted for check in self.checks):
                notes.append(f"no picture reached {bar:g}; the best has {top.score:.2f}, by {top.recipe}")
            elif top is not first:
                again = " of another seed" if top.recipe == first.recipe else ""
                what = f"{self.made.recipe} had {first.score:.2f}"
                notes.append(f"{what}, so {top.recipe}{again} was taken with {top.score:.2f}")
        made = (*self.made.notes, *notes)
        return replace(self.best, checks=tuple(self.checks), choices=tuple(self.choices), notes=made)

    # -------------------------------------------------------------------------------------------- what may be tried

    def _worth(self, check: Check) -> float:
        """What pictures are compared by: a ladder trusts the score alone."""
        return check.score if self.verify.by == "ladder" else check.probability

    def ahead(self) -> Options:
        """What can be tried within deadline and budget, at its price now."""
        ahead = self.bench.next_options()
        return replace(ahead, tries=tuple(o for o in ahead.tries if self._allowed(o.recipe, ahead.timings[o.recipe])))

    def _option(self, recipe: str) -> Option:
        ahead = self.bench.next_options()
        return next(option for option in (ahead.made, *ahead.tries) if option.recipe == recipe)

    def _allowed(self, recipe: str, timing: Resources) -> bool:
        """Whether another picture of a recipe may still be made; a reason to leave it out is remembered."""
        if recipe in self.out:
            return False
        if self.begun.get(recipe, 0) > self.verify.retry:
            return False
        if not self.bench.in_time(timing):
            self.out[recipe] = f"{recipe} was not tried: it would end after the deadline"
        for bound, used, more in (
            (self.verify.cost_usd, self.used_usd, timing.cost_usd),
            (self.verify.work_s, self.used_s, timing.work_s),
        ):
            if bound is not None and used + more > bound / self.share * (1 + 1e-9):
                self.out.setdefault(recipe, f"{recipe} was not tried: it would go beyond a limit or budget")
        return recipe not in self.out

    def take(self, recipe: str, ahead: Options, reason: str, gain: float | None, price: float | None) -> str:
        timing = ahead.timings[recipe]
        self.used_s, self.used_usd = self.used_s + timing.work_s, self.used_usd + timing.cost_usd
        action: Action = "retry" if self.begun.get(recipe) else "escalate"
        self._choose(VerificationChoice(action, recipe, reason, gain, price, self._best_value()))
        return recipe

    def stop(self, reason: str, gain: float | None = None, price: float | None = None) -> None:
        self._choose(VerificationChoice("stop", self.best.recipe, reason, gain, price, self._best_value()))

    def _choose(self, choice: VerificationChoice) -> None:
        self.choices.append(choice)
        self.bench.tell(choice)

    def _best_value(self) -> float | None:
        return max((check.probability for check in self.checks), default=None)


def _ladder(search: Verifier) -> str | None:
    """The recipes in turn, each as often as `retry` allows."""
    ahead = search.ahead()
    if ahead.tries:
        return search.take(ahead.tries[0].recipe, ahead, "no score reached the bar yet", None, None)
    search.stop("there is nothing left to try")
    return None


def _expected_gain(search: Verifier) -> str | None:
    """Weitzman's rule: the option with the highest reservation value, while that is above the best so far."""
    ahead = search.ahead()
    found = weigh(
        ahead.tries, search.verdicts, search.score_reading.score_model, search.verify.prices, search.verify.retry + 1
    )
    if found is None:
        search.stop("there is nothing left to try")
        return None
    if not found.worth_it:
        reason = f"{found.recipe}, the best try, is expected to gain less than it costs"
        search.stop(reason, found.gain, found.price)
        return None
    return search.take(found.recipe, ahead, "it is expected to gain more than it costs", found.gain, found.price)


CHOOSERS: dict[str, Callable[[Verifier], str | None]] = {"ladder": _ladder, "expected_gain": _expected_gain}
