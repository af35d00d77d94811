"""Seconds, dollars and work: what a plan takes, what may be taken, what is left."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Resources:
    """Of all pictures of a request together.

    latency_s: from admission to the last picture, waiting included;   queue_s: the part of it that is due to others
    work_s:    accelerator seconds, summed over steps;                 cost_usd: work at the cards' prices
    """

    latency_s: float = 0.0
    work_s: float = 0.0
    cost_usd: float = 0.0
    queue_s: float = 0.0

    def __add__(self, other: Resources) -> Resources:
        return Resources(
            self.latency_s + other.latency_s,
            self.work_s + other.work_s,
            self.cost_usd + other.cost_usd,
            self.queue_s + other.queue_s,
        )

    def beyond(self, other: Resources) -> Resources:
        """What this takes more than `other`, none of it below zero."""
        return Resources(
            max(0.0, self.latency_s - other.latency_s),
            max(0.0, self.work_s - other.work_s),
            max(0.0, self.cost_usd - other.cost_usd),
            max(0.0, self.queue_s - other.queue_s),
        )

    def fits(self, bounds: Resources) -> bool:
        """Is it within `bounds`, each of time, work and money?"""
        return self.latency_s <= bounds.latency_s and self.work_s <= bounds.work_s and self.cost_usd <= bounds.cost_usd


UNBOUNDED = Resources(math.inf, math.inf, math.inf, math.inf)
"""As much as one wants."""
