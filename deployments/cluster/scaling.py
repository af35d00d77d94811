"""How many replicas a worker has: so many that no more than some seconds of work wait for each.

Serve runs this in its controller, where our packages may not be installed, so it imports none of them.
"""

from __future__ import annotations

from typing import Any

QUEUED_S = "queued_s"
"""What each replica reports: the seconds of work on its worker, over all replicas, as it was told last."""

AWAKE = 0.5
"""Mean number of requests above which a worker counts as used, though no seconds are known. Asking how it is takes
milliseconds and stays below."""


class SecondsQueued:
    """A policy for Serve's autoscaler. target_s: seconds of work that may wait for each replica.

    Serve applies the bounds and the delays to what it returns. Without any replica it starts one, whatever is returned,
    as soon as a request waits.
    """

    def __init__(self, target_s: float) -> None:
        self._target_s = target_s

    def __call__(self, context: Any) -> tuple[float, dict[str, Any]]:
        """(replicas, state) from the `ray.serve.config.AutoscalingContext`."""
        series = (context.raw_metrics or {}).get(QUEUED_S, {})
        last = [points[-1] for points in series.values() if points]
        if not last:  # nobody has said anything: the worker is as it should be, if it is used at all
            used = context.total_num_requests > AWAKE
            return float(max(context.target_num_replicas, used) if used else context.capacity_adjusted_min_replicas), {}
        queued_s = max(last, key=lambda point: point.timestamp).value
        return queued_s / self._target_s, {}
