"""Makes the checks of a policy's `safety`, one after the other, and says what was found."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

from deployments.safety.blur import blurred
from deployments.safety.moderation import Moderator, UnavailableError, Verdict
from deployments.safety.nsfw import Nsfw
from deployments.safety.words import found_in
from deployments.settings import ModeratorSettings
from policies.language.schema_safety import ImageCheckSpec, SafetySpec, TextCheckSpec
from router.errors import SafetyError
from router.types import Picture
from router.types.safety import Finding, SafetyReport, Stage

logger = logging.getLogger("triptych.safety")

NSFW_ABOVE = 0.8
"""From which score a picture counts as not safe for work, unless the policy says otherwise."""

Check = TypeVar("Check", TextCheckSpec, ImageCheckSpec)
Seen = tuple[tuple[str, ...], float | None] | None
"""(what was found, score); None: nothing."""


@dataclass(frozen=True)
class Screened:
    """A picture after its checks. picture: blurred, if a check said so;   report: with the index of the picture"""

    picture: Picture
    report: SafetyReport


class Guard:
    """moderators: endpoints by name; anything with `text` and `picture`, as `Moderator` has them
    nsfw: scores a picture; loaded when it is first asked"""

    def __init__(self, moderators: Mapping[str, Moderator] | None = None, nsfw: Nsfw | None = None) -> None:
        self._moderators = dict(moderators or {})
        self._nsfw = nsfw or Nsfw()
        # One picture at a time, and not on the threads that decisions are made on.
        self._thread = ThreadPoolExecutor(1, "triptych-safety")

    @classmethod
    def of(cls, moderators: Mapping[str, ModeratorSettings]) -> Guard:
        """With the endpoints of a config."""
        return cls({name: Moderator(settings) for name, settings in moderators.items()})

    async def prompt(self, safety: SafetySpec, prompt: str, lenient: bool) -> SafetyReport:
        """What was found of a prompt; the last finding may block. Raises `UnavailableError`."""

        async def look(check: TextCheckSpec) -> Seen:
            if check.check == "words":
                words = found_in(prompt, check.words or (), check.unless or ())
                return (words, None) if words else None
            return counted(check, await self._moderator(check.moderator).text(prompt))

        report = await _looked("text", safety.text or (), lenient, look)
        later = [f"image:{check.label}" for check in safety.image or () if lenient and check.moderation_low == "skip"]
        return replace(report, skipped=(*report.skipped, *later))

    async def picture(self, safety: SafetySpec, picture: Picture, index: int, lenient: bool) -> Screened:
        """What was found of picture `index`; the last finding may block. Raises `UnavailableError`."""

        async def look(check: ImageCheckSpec) -> Seen:
            if check.check == "nsfw":
                score = await self._nsfw_score(picture)
                above = NSFW_ABOVE if check.above is None else check.above
                return (("nsfw",), score) if score >= above else None
            return counted(check, await self._moderator(check.moderator).picture(picture.pixels))

        report = await _looked("image", safety.image or (), lenient, look)
        report = replace(report, findings=tuple(replace(one, index=index) for one in report.findings))
        if any(one.action == "blur" for one in report.findings) and blocking(report) is None:
            picture = Picture(await asyncio.to_thread(blurred, picture.pixels))
        return Screened(picture, report)

    async def _nsfw_score(self, picture: Picture) -> float:
        """Raises `UnavailableError`, whatever the classifier fails of."""
        loop = asyncio.get_running_loop()
        try:
            score = await loop.run_in_executor(self._thread, self._nsfw.score, picture.pixels)
            if not math.isfinite(score):
                raise ValueError("its score is no number")
        except Exception:
            logger.exception("the classifier nsfw cannot be used")
            raise UnavailableError("a check that the policy asks for cannot be made now; try again later") from None
        return score

    def _moderator(self, name: str | None) -> Moderator:
        if name not in self._moderators:
            raise UnavailableError(f"the config has no safety.moderators.{name}, which the policy asks for")
        return self._moderators[name]


async def _looked(
    stage: Stage, checks: Sequence[Check], lenient: bool, look: Callable[[Check], Awaitable[Seen]]
) -> SafetyReport:
    """The checks in their order, until one blocks."""
    checked, skipped, notes = [], [], []
    findings: list[Finding] = []
    for check in checks:
        label = f"{stage}:{check.label}"
        if lenient and check.moderation_low == "skip":
            skipped.append(label)
            continue
        try:
            seen = await look(check)
        except UnavailableError as error:
            if check.unavailable != "allow":
                raise
            notes.append(f"safety: {check.label} could not be asked: {error.message}")
            continue
        checked.append(label)
        if seen is not None:
            found, score = seen
            findings.append(Finding(check.label, stage, check.action, found, score))
            if check.action == "block":
                break
    return SafetyReport(tuple(checked), tuple(skipped), tuple(findings), tuple(notes))


def counted(check: TextCheckSpec | ImageCheckSpec, verdict: Verdict) -> Seen:
    """What of an endpoint's verdict counts for a check. Raises `UnavailableError` if it says nothing of what counts."""
    said = verdict.categories if check.above is None else verdict.scores
    wanted = set(said) if check.categories is None else set(check.categories)
    if missing := sorted(wanted - set(said)):
        raise _silent(check, f"its endpoint says nothing of {', '.join(missing)}")
    if check.above is not None and not said:
        raise _silent(check, "its endpoint gives no scores, and the policy says from which score it counts")
    if check.above is None:
        hits = {name for name in wanted if verdict.categories[name]}
        if check.categories is None and verdict.flagged and not hits:
            return (), None
    else:
        hits = {name for name in wanted if verdict.scores[name] >= check.above}
    if not hits:
        return None
    scores = [verdict.scores[name] for name in hits if name in verdict.scores]
    return tuple(sorted(hits)), max(scores, default=None)


def _silent(check: TextCheckSpec | ImageCheckSpec, why: str) -> UnavailableError:
    logger.warning("the check %s cannot be made: %s", check.label, why)
    return UnavailableError(f"a check that the policy asks for cannot be made: {why}")


def together(prompt: SafetyReport | None, pictures: Sequence[SafetyReport]) -> SafetyReport | None:
    """What was checked and found of a request as a whole; None if its policy checks nothing."""
    if prompt is None:
        return None
    reports = [prompt, *pictures]
    checked = dict.fromkeys(label for report in reports for label in report.checked)
    findings = sorted((one for report in pictures for one in report.findings), key=lambda one: one.index or 0)
    notes = dict.fromkeys(note for report in reports for note in report.notes)
    return SafetyReport(tuple(checked), prompt.skipped, (*prompt.findings, *findings), tuple(notes))


def blocking(report: SafetyReport) -> Finding | None:
    """The finding that ends it, if one does."""
    return next((one for one in report.findings if one.action == "block"), None)


def refusal(finding: Finding) -> SafetyError:
    """What is raised about a finding that blocks."""
    found = f" ({', '.join(finding.found)})" if finding.found else ""
    if finding.stage == "text":
        message = f"prompt: the policy does not allow it: {finding.check}{found}; say it otherwise"
        return SafetyError(message, "input", finding.found)
    message = f"the picture is withheld, as the policy says: {finding.check}{found}; try another seed or another prompt"
    return SafetyError(message, "output", finding.found)
