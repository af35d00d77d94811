"""The processes of a Triptych that this one started: which they are, what they take, and their sudden end."""

from __future__ import annotations

import os
import re
import signal
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

_REPLICA = re.compile(r"ServeReplica:(?P<app>[\w-]+):(?P<deployment>[\w.-]+)")
TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")


def kind_of(words: str) -> str:
    """What a process is, by its title: `ingress`, `orchestrator`, `worker`, `proxy`, `controller`, or `ray`."""
    if (found := _REPLICA.search(words)) is not None:
        name = re.split(r"[.]\w+$", found["deployment"])[0] if "." in found["deployment"] else found["deployment"]
        return name if name in ("ingress", "orchestrator") else "worker"
    if "ProxyActor" in words or "haproxy" in words:
        return "proxy"
    return "controller" if "ServeController" in words else "ray"


def of_this() -> dict[str, list[psutil.Process]]:
    """The processes below this one, by kind, oldest first. Nobody else's are among them."""
    found: dict[str, list[psutil.Process]] = defaultdict(list)
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            found[kind_of(" ".join(process.cmdline()))].append(process)
    for processes in found.values():
        processes.sort(key=lambda one: one.create_time())
    return dict(found)


def kill_one(kind: str) -> int | None:
    """SIGKILL the oldest of a kind; its id, or None if there is none at the moment."""
    for process in of_this().get(kind, ()):
        with suppress(psutil.Error):
            process.send_signal(signal.SIGKILL)
            return int(process.pid)
    return None


def cpu_seconds(processes: Iterable[psutil.Process]) -> float:
    """CPU time that they used so far, their own."""
    used = 0.0
    for process in processes:
        with suppress(psutil.Error):
            times = process.cpu_times()
            used += times.user + times.system
    return used


def memory_mib() -> dict[str, dict[str, float]]:
    """Resident (`rss`) and proportional (`pss`, shared pages counted once) MiB by kind, and of all of them."""
    found: dict[str, dict[str, float]] = defaultdict(lambda: {"rss": 0.0, "pss": 0.0})
    for kind, processes in of_this().items():
        for process in processes:
            with suppress(psutil.Error, OSError):
                rss, pss = process.memory_info().rss / 2**20, _pss_mib(process.pid)
                for name in (kind, "all"):
                    found[name]["rss"] += rss
                    found[name]["pss"] += pss
    return dict(found)


def _pss_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def until_gone(pid: int, patience_s: float = 5.0) -> None:
    """Wait until a process has ended."""
    due = time.monotonic() + patience_s
    while psutil.pid_exists(pid) and time.monotonic() < due:
        time.sleep(0.02)
