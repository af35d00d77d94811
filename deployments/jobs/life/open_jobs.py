"""The jobs that one process has, and what it may still do with them: what all parts of `Jobs` go by."""

from __future__ import annotations

from collections import Counter

from deployments.jobs.live import LiveJob
from deployments.jobs.values import JobView
from deployments.jobs.views import live_view


class OpenJobs:
    """live: jobs that are open, or ended a short while ago, by id

    fence: the token of this orchestrator;   fenced: another one has begun;   draining: nothing new is taken in
    """

    def __init__(self) -> None:
        self.live: dict[str, LiveJob] = {}
        self.fence = 0
        self.fenced = self.draining = False

    def view(self, job: LiveJob) -> JobView:
        """A job as its owner sees it."""
        return live_view(job, [one for one in self.live.values() if one.state == "queued"])

    def states(self) -> Counter[str]:
        """How many there are in each state."""
        return Counter(job.state for job in self.live.values())
