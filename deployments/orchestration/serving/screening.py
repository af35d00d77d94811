"""Pictures as a policy's safety has them: looked at before anybody sees them, and no previews of what was not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from deployments.orchestration.metrics import Metrics
from deployments.orchestration.results import Advanced, Event, Made, OnEvent
from deployments.safety.guard import Guard, blocking, refusal
from policies.language.schema_safety import SafetySpec
from router.types.safety import SafetyReport


class Screening:
    """Looks at the pictures of one request. reports: what was found in each, by its place

    lenient: whether the request leaves out what it may, asked for each picture
    """

    def __init__(
        self, guard: Guard, safety: SafetySpec, policy: str, lenient: Callable[[], bool], metrics: Metrics
    ) -> None:
        self._guard, self._safety, self._policy = guard, safety, policy
        self._lenient, self._metrics = lenient, metrics
        self.reports: dict[int, SafetyReport] = {}

    async def __call__(self, made: Made) -> Made:
        """The picture as it may be seen, with what was found. Raises `SafetyError` if it may not be."""
        screened = await self._guard.picture(self._safety, made.picture, made.index, self._lenient())
        report = screened.report
        self.reports[made.index] = report
        count_findings(self._metrics, self._policy, report)
        if (finding := blocking(report)) is not None:
            raise refusal(finding)
        notes = (*made.notes, *map(str, report.findings), *report.notes)
        return replace(made, picture=screened.picture, findings=report.findings, notes=notes)

    def of(self, index: int) -> list[SafetyReport]:
        """What was found in a picture; none if it was not looked at yet."""
        return [self.reports[index]] if index in self.reports else []


def count_findings(metrics: Metrics, policy: str, report: SafetyReport) -> None:
    """Count what was found, by stage, check and action."""
    for one in report.findings:
        metrics.record("triptych_safety_total", policy=policy, stage=one.stage, check=one.check, action=one.action)


def without_previews(on_event: OnEvent) -> OnEvent:
    """The same events, of which none shows what was not looked at."""

    def told(event: Event) -> None:
        if isinstance(event, Advanced) and event.progress.preview is not None:
            event = replace(event, progress=replace(event.progress, preview=None))
        on_event(event)

    return told
