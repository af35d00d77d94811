"""Triptych on this machine: its own Ray, Serve and the application, started and stopped as a whole.

    with start(load_serve_config(DEFAULT_CONFIG), on_change=print) as running:
        print(running.url)
        running.wait()          # until Ctrl-C or SIGTERM

Nothing is printed here. On a Ray cluster use `serve deploy` with the same config file instead.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from deployments.api.edge.middleware import BODY_BYTES, BODY_TIMEOUT_S, INSIDE, MIDDLEWARE, UPLOAD_BYTES
from deployments.assembly import least_replicas
from deployments.settings import AppSettings, ConfigError, Limits, ServeConfig, UploadSettings
from policies.language.source import MAX_BYTES
from router.errors import TriptychError

OBJECT_STORE_BYTES = 512 * 2**20  # pictures in flight; a 1024 x 1024 picture has 3 MB
POLL_S = 0.25
DRAIN_CALL_S = 5.0  # for the calls themselves

logger = logging.getLogger("triptych.cluster")

OnChange = Callable[[Mapping[str, str]], None]


class StartError(TriptychError):
    """Ray or the application could not be started."""

    code = "not_started"


@dataclass
class Running:
    """A started application. `stop` ends every process that `start` began; leaving a `with` block does so, too."""

    url: str
    config: ServeConfig
    session_dir: Path
    _stopping: threading.Event
    _stopped: bool = False

    def wait(self) -> None:
        """Block until SIGINT (Ctrl-C) or SIGTERM. Call it from the main thread."""
        handlers = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            while not self._stopping.wait(1.0):
                pass
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def stop(self) -> None:
        """Take nothing new, let what runs finish within `limits.drain_s`, and end all processes. May be called twice,
        and interrupted: then all ends at once."""
        again = self._stopped
        self._stopped = True
        self._stopping.set()
        try:
            if not again:
                _drain(self.config.name, self.config.settings.limits.drain_s)
        finally:
            _end(self.session_dir, keep_logs=False)

    def _on_signal(self, *_: Any) -> None:
        self._stopping.set()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


def start(
    config: ServeConfig,
    *,
    host: str | None = None,
    port: int | None = None,
    num_gpus: int | None = None,
    on_change: OnChange | None = None,
    timeout_s: float = 600.0,
) -> Running:
    """Start everything and wait until every deployment runs.

    on_change: called with `{deployment: status}` whenever a status changes
    num_gpus:  accelerators to declare; found by Ray when not given
    Raises `ConfigError` (a port in use, resources that this machine lacks), `StartError`, or what `build` raises.
    After an error nothing is left running.
    """
    _prepare_environment(config.settings.limits, config.settings.uploads)
    from deployments.cluster.application import build

    host, port = host or config.host, config.port if port is None else port
    _check_free(host, port)
    application = build(config.settings)
    session_dir = _session_dir()
    try:
        _start_ray(config.settings, session_dir, num_gpus)
        _start_serve(config, host, port)
        _deploy(application, config, on_change or (lambda statuses: None), timeout_s)
    except BaseException as error:
        _end(session_dir, keep_logs=isinstance(error, StartError))
        raise
    address = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    return Running(f"http://{address}:{port}{config.route_prefix.rstrip('/')}", config, session_dir, threading.Event())


def free_port() -> int:
    """A TCP port on loopback that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _check_free(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}; choose another with --port") from None


def _prepare_environment(limits: Limits, uploads: UploadSettings) -> None:
    """Ray reads these when it is imported, and hands them on to its processes."""
    os.environ[BODY_BYTES] = str(max(limits.max_body_bytes, MAX_BYTES))
    os.environ[UPLOAD_BYTES] = str(max(uploads.max_body_bytes, limits.max_body_bytes))
    os.environ[BODY_TIMEOUT_S] = str(limits.body_timeout_s)
    os.environ[INSIDE] = str(limits.max_inside)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Ray's own series would listen on all interfaces, open to everybody; ours have a port of their own.
    os.environ.setdefault("RAY_enable_metrics_collection", "0")
    # Serve's proxy echoes whatever id it is sent, and waits for bodies: what is unsound has to end before.
    os.environ.setdefault("RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", MIDDLEWARE)
    for who in ("REPLICA", "HANDLE"):  # what the autoscaler hears; it decides every second, by default on what is old
        os.environ.setdefault(f"RAY_SERVE_{who}_AUTOSCALING_METRIC_PUSH_INTERVAL_S", "2")
    os.environ.setdefault("RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S", "1")  # a proxy that died is replaced in 8 s, not 40
    # Calls between replicas by gRPC: a shorter way than Ray's objects. Its servers want Ray's token, too; by
    # default it takes 4 MiB.
    os.environ.setdefault("RAY_SERVE_USE_GRPC_BY_DEFAULT", "1")
    os.environ.setdefault("RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH", str(2**31 - 1))
    # Ray's processes are nice by 15: whatever else runs here would then be served before those who wait for a picture.
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")  # a call after the end must not start another Ray
    if "RAY_AUTH_MODE" not in os.environ and "ray" not in sys.modules:
        # Ray's own ports listen on every interface, and whoever reaches them can run code: they want a token.
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def _session_dir() -> Path:
    # Ray puts Unix sockets below it, whose paths may have 107 characters in all.
    return Path(tempfile.mkdtemp(prefix="triptych-", dir="/tmp" if os.path.isdir("/tmp") else None))


def _start_ray(settings: AppSettings, session_dir: Path, num_gpus: int | None) -> None:
    import ray

    demand = demands(settings)
    ray.init(
        address="local",
        namespace="triptych",
        num_cpus=max(os.cpu_count() or 1, math.ceil(demand.get("CPU", 0))),  # only Ray's book-keeping
        num_gpus=num_gpus,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.WARNING,
        object_store_memory=OBJECT_STORE_BYTES,
        _temp_dir=str(session_dir),
    )
    available = ray.cluster_resources()
    lacking = [f"{amount:g} {name} (here: {available.get(name, 0):g})" for name, amount in demand.items()
               if available.get(name, 0) < amount]  # fmt: skip
    if lacking:
        raise ConfigError(
            f"the models need {', '.join(lacking)}; take models out, share with fractions, or set device: cpu"
        )


def demands(settings: AppSettings) -> dict[str, float]:
    """What the workers ask of Ray together, by resource."""
    total: dict[str, float] = {}
    for placed in settings.workers.values():
        wanted = {"CPU": placed.num_cpus, "GPU": placed.gpus, **placed.resources}
        for name, amount in wanted.items():
            if amount:
                total[name] = total.get(name, 0.0) + amount * least_replicas(placed)
    return total


def _start_serve(config: ServeConfig, host: str, port: int) -> None:
    from ray import serve

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    options = {"host": host, "port": port, "request_timeout_s": config.request_timeout_s}
    serve.start(proxy_location="HeadOnly", http_options=options, logging_config={"log_level": "WARNING"})


def _deploy(application: Any, config: ServeConfig, on_change: OnChange, timeout_s: float) -> None:
    """Deploy and watch: by itself Serve says nothing, and waits for ever for a place that is not there."""
    from ray import serve

    target = serve.RunTarget(target=application, name=config.name, route_prefix=config.route_prefix)
    serve.run_many([target], wait_for_applications_running=False)
    shown: dict[str, str] = {}
    deadline = time.monotonic() + timeout_s
    while True:
        state, statuses, messages = _statuses(config.name)
        if statuses != shown:
            shown = statuses
            on_change(statuses)
        if state == "RUNNING":
            return
        said = "; ".join(messages) or str(statuses)
        if state in ("DEPLOY_FAILED", "UNHEALTHY"):
            raise StartError(f"the application could not be deployed: {said}")
        if time.monotonic() > deadline:
            raise StartError(f"not everything was ready after {timeout_s:g} s: {said}")
        time.sleep(POLL_S)


def _statuses(name: str) -> tuple[str, dict[str, str], list[str]]:
    """State of the application, status of every deployment, and what Serve says about those that are not well."""
    from ray import serve

    application = serve.status().applications.get(name)
    if application is None:
        return "NOT_STARTED", {}, []
    deployments = application.deployments.items()
    statuses = {deployment: info.status.value for deployment, info in deployments}
    messages = [f"{deployment}: {info.message}" for deployment, info in deployments if info.message]
    return application.status.value, statuses, [m for m in (application.message, *messages) if m]


def _drain(name: str, limit_s: float) -> None:
    """Wait for what runs, and for its answers to be on their way. Whatever is wrong, the end must not wait for it."""
    from ray import serve

    began = time.monotonic()
    try:
        orchestrators = serve.get_deployment_handle("orchestrator", name).broadcast("drain", limit_s)
        ran = sum(before for before, _ in orchestrators.results(timeout_s=limit_s + DRAIN_CALL_S))
        if ran:  # their answers are still in the ingress, or in the proxy
            left_s = max(DRAIN_CALL_S, limit_s - (time.monotonic() - began))
            deleting = threading.Thread(target=serve.delete, args=(name,), daemon=True)
            deleting.start()
            deleting.join(left_s)
    except Exception as error:
        logger.warning("what was running could not be waited for: %s: %s", type(error).__name__, error)


def _end(session_dir: Path, keep_logs: bool) -> None:
    import ray

    # A second Ctrl-C while the processes end would leave some of them behind.
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None
    try:
        ray.shutdown(wait_for_processes=True)
        if not keep_logs:
            shutil.rmtree(session_dir, ignore_errors=True)
    finally:
        if main:
            signal.signal(signal.SIGINT, before)
