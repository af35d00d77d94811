"""Starting and stopping on this machine: what is refused before anything starts, and that nothing is left behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.cluster.local_cluster import demands, free_port, start
from deployments.settings import DEFAULT_CONFIG, ConfigError, load_serve_config


def test_a_port_in_use_is_refused_before_anything_starts() -> None:
    """If somebody listens on the port, the start fails at once and names the way out."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match="choose another with --port"):
            start(load_serve_config(DEFAULT_CONFIG), port=taken.getsockname()[1])


def test_demands_add_up_over_models_and_replicas() -> None:
    """What the shipped configs ask of Ray: one process and no accelerator for the embedded family, three for the real
    one."""
    embedded = demands(load_serve_config(DEFAULT_CONFIG).settings)
    real = demands(load_serve_config(DEFAULT_CONFIG.parent / "real.yaml").settings)
    assert embedded == {"CPU": 1.0}
    assert 2 < real["GPU"] <= 3


def test_a_free_port_can_be_listened_on() -> None:
    """`free_port` gives a port on which a server can listen."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", free_port()))


SERVE = """
import json, sys
from deployments.cluster.local_cluster import free_port, start
from deployments.settings import ServeConfig, parse_settings

with start(ServeConfig(settings=parse_settings(json.loads(sys.argv[1]))), port=free_port(), timeout_s=500) as running:
    print(running.session_dir, running.url, flush=True)
    running.wait()
"""

ONE_MODEL = """
version: 1
name: balanced
recipes: {draft: {generate: {model: sd15}}}
objective: {maximise: quality}
"""


def descendants(root: int) -> set[int]:
    """All processes below `root`."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, fresh = set(), {root}
    while fresh:
        fresh = {pid for pid, parent in parents.items() if parent in fresh} - found
        found |= fresh
    return found


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes through /proc")
def test_a_signal_ends_every_process_once_pictures_are_made(tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    """After SIGINT a picture that is being made is still answered; then the command ends with 0, and neither a process
    nor its session folder is left."""
    (tmp_path / "balanced.yaml").write_text(ONE_MODEL)
    models = {"sd15": tiny_settings["models"]["sd15"]}
    settings = {**tiny_settings, "models": models, "policies": {"directory": str(tmp_path)}}
    command = [sys.executable, "-c", SERVE, json.dumps(settings)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as serving:
        assert serving.stdout is not None
        folder, url = serving.stdout.readline().split()
        session_dir = Path(folder)
        begun = descendants(serving.pid)
        assert len(begun) > 5
        assert session_dir.is_dir()
        with ThreadPoolExecutor() as threads:
            body = {"prompt": "a red circle", "model": "sd15", "steps": 150}
            long = threads.submit(httpx.post, f"{url}/v1/images/generations", json=body, timeout=60)
            while httpx.post(f"{url}/v1/route", json=body).json()["estimates"]["sd15"]["queue_s"] == 0:
                assert not long.done(), long.result().text
            serving.send_signal(signal.SIGINT)
            assert long.result().status_code == 200, long.result().text
        assert serving.wait(60) == 0
    deadline = time.monotonic() + 10
    while (left := {pid for pid in begun if alive(pid)}) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left
    assert not session_dir.exists()


def alive(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z" and os.getpgid(pid) >= 0
    except OSError:
        return False
