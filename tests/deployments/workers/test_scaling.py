"""How many replicas a worker should have, by the seconds of work that wait for it."""

from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve.autoscaling_policy import _apply_autoscaling_config
from ray.serve.config import AutoscalingConfig

from deployments.cluster.scaling import QUEUED_S, SecondsQueued


def context(*queued: tuple[float, float], replicas: int = 1, requests: float = 0.0, **bounds: Any) -> Any:
    """What Serve tells a policy; queued: (time, seconds) as the replicas reported them, one each."""
    config = AutoscalingConfig(max_replicas=9, upscale_delay_s=0, downscale_delay_s=0, **bounds)
    points = {k: [SimpleNamespace(timestamp=0.0, value=99.0), SimpleNamespace(timestamp=t, value=s)]
              for k, (t, s) in enumerate(queued)}  # fmt: skip
    return SimpleNamespace(
        raw_metrics={QUEUED_S: points} if queued else {},
        current_num_replicas=replicas,
        target_num_replicas=replicas,
        total_num_requests=requests,
        capacity_adjusted_min_replicas=config.min_replicas,
        policy_state={},
        config=config,
    )


@pytest.mark.parametrize(
    ("queued", "replicas"),
    [([(5.0, 0.0)], 0), ([(5.0, 1.0)], 1), ([(5.0, 20.0)], 1), ([(5.0, 21.0)], 2), ([(5.0, 95.0), (6.0, 41.0)], 3)],
)
def test_each_replica_has_so_many_seconds_to_wait_for(queued: list[tuple[float, float]], replicas: int) -> None:
    """With 20 s a replica, 21 s of work want two; the newest report counts, whoever made it."""
    decide = _apply_autoscaling_config(SecondsQueued(20.0))
    assert decide(context(*queued, min_replicas=0))[0] == replicas


def test_without_reports_a_worker_stays_as_it_is_while_it_is_used() -> None:
    """If nobody says what waits, a used worker keeps its replicas, and one that is only asked how it is has the
    fewest."""
    decide = SecondsQueued(20.0)
    assert decide(context(replicas=4, requests=2.0))[0] == 4
    assert decide(context(replicas=4, requests=0.01))[0] == 1
    assert decide(context(replicas=1, requests=0.01, min_replicas=0))[0] == 0


def test_a_request_wakes_a_worker_that_sleeps() -> None:
    """Without a replica, one request that waits starts one at once, whatever the delays."""
    asked = context(replicas=0, requests=1.0, min_replicas=0)
    asked.config = AutoscalingConfig(min_replicas=0, max_replicas=9, upscale_delay_s=300)
    assert _apply_autoscaling_config(SecondsQueued(20.0))(asked)[0] == 1
