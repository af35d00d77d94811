"""A Ray cluster of two nodes on this machine, of which the second may disappear as a machine does that loses power."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

NODE = "place"  # a resource, of which each node has enough for one worker


@contextmanager
def two_nodes() -> Iterator[Callable[[], float]]:
    """While the block runs, `local_cluster.start` uses such a cluster. Yields a function that takes the second node
    away, without a word to its processes, and brings another after ten seconds; it returns the seconds that took."""
    from deployments.cluster import local_cluster
    from deployments.settings import DEFAULT_CONFIG, load_serve_config

    settings = load_serve_config(DEFAULT_CONFIG).settings  # whose bounds are those of `configured`, too
    local_cluster._prepare_environment(settings.limits, settings.uploads)
    import ray
    from ray.cluster_utils import Cluster

    cluster: Any = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 8, "resources": {NODE: 1.0}, "include_dashboard": False},
    )
    second = [cluster.add_node(num_cpus=8, resources={NODE: 1.0})]

    def connect(settings: Any, session_dir: Any, num_gpus: int | None) -> None:
        ray.init(address=cluster.address, namespace="triptych", log_to_driver=False)

    def disappear() -> float:
        began = time.monotonic()
        cluster.remove_node(second.pop(), allow_graceful=False)
        time.sleep(10.0)
        second.append(cluster.add_node(num_cpus=8, resources={NODE: 1.0}))
        return time.monotonic() - began

    before, handler = local_cluster._start_ray, ray._private.utils.set_sigterm_handler
    local_cluster._start_ray = connect
    ray._private.utils.set_sigterm_handler = lambda handler: None  # a thread may not, and nodes come back in one
    try:
        yield disappear
    finally:
        local_cluster._start_ray, ray._private.utils.set_sigterm_handler = before, handler
        cluster.shutdown()
