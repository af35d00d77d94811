"""A canary beside the policy that it may follow: what people, or a scorer, said of the pictures of either.

Requests fall to one side by a stable hash (policies/deciding/splits.py), so the mean ratings of the two may be compared
as they are. Since one looks again and again while a canary runs, the interval is valid at every look.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deployments.store.decision_log import DecisionLog
from router.errors import ArtifactError
from router.learning.feedback import DecisionRecord, value_of_path
from router.learning.intervals import TAIL, at_every_look

Array = NDArray[np.float64]
MIN_RATED = 20  # decisions on either side


@dataclass(frozen=True)
class Side:
    """The rated decisions of a policy. quality: mean of what was said of delivered pictures, 0..1, with an interval
    that is valid at every look;   cost_usd, latency_s: means over these decisions"""

    policy: str
    decisions: int
    quality: float
    interval: tuple[float, float]
    cost_usd: float
    latency_s: float


@dataclass(frozen=True)
class CanaryReport:
    """difference: of the canary's quality over the policy's;   interval: 95 %, valid at every look"""

    policy: Side
    canary: Side
    difference: float
    interval: tuple[float, float]

    @property
    def verdict(self) -> tuple[bool, str]:
        """Whether the canary is better, and what is known, in words."""
        low, high = self.interval
        found = f"{self.canary.policy} is rated {self.difference:+.4f} ({low:+.4f} to {high:+.4f}, valid at every look)"
        if low > 0:
            return True, f"{found}: it is better"
        return False, f"{found}: " + ("it is worse" if high < 0 else "nothing is proven yet")


def compare_canary(log: DecisionLog, source: str, policy: str, canary: str) -> CanaryReport:
    """The newest version of each of two policies in the log; recipes asked for by name do not count.

    Raises `ArtifactError` if there are too few rated decisions of either.
    """
    rated = [(record, value_of_path(record, said)) for record, said in log.rated(source) if not record.pinned]
    valued = [(record, value) for record, value in rated if value is not None]
    (ours, values), (theirs, others) = (_side(log, source, name, valued) for name in (policy, canary))
    # Both ends of both sides hold with half of the error each, so that those of the difference hold together.
    low, high = _interval(values, TAIL / 2)
    low_canary, high_canary = _interval(others, TAIL / 2)
    return CanaryReport(ours, theirs, theirs.quality - ours.quality, (low_canary - high, high_canary - low))


def _side(
    log: DecisionLog, source: str, policy: str, valued: Sequence[tuple[DecisionRecord, float]]
) -> tuple[Side, Array]:
    own = [(record, value) for record, value in valued if record.policy == policy]
    newest = [(record, value) for record, value in own if record.policy_digest == own[-1][0].policy_digest]
    if len(newest) < MIN_RATED:
        raise ArtifactError(
            f"{log.path} has {len(newest)} rated decisions (source {source!r}) of the newest version of policy "
            f"{policy!r}; at least {MIN_RATED} are needed"
        )
    values = np.array([value for _, value in newest])
    cost_usd, latency_s = (
        float(np.mean([getattr(one, key) for one, _ in newest])) for key in ("cost_usd", "latency_s")
    )
    return Side(policy, len(newest), float(values.mean()), _interval(values, TAIL), cost_usd, latency_s), values


def _interval(values: Array, tail: float) -> tuple[float, float]:
    """Of the mean of values in 0..1, either end with the error `tail`."""
    low, high = at_every_look(values - 0.5, 0.5, tail)
    return low + 0.5, high + 0.5
