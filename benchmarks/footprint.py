"""What `triptych serve` takes before anybody asks for anything: seconds until it is ready, memory of all its processes.

    python -m benchmarks.footprint [--quick] [--repeat 3] [--name now]

Each run is the command of the README with a state folder of its own: seconds from its start to the first `ready` of
`/readyz`, then one picture, then the memory of every process that it started. Memory is PSS (each page divided by the
number of processes that share it, /proc/PID/smaps_rollup), so the sum is what the machine really gives; USS (pages of
one process alone) stands beside it. Seconds of CPU tell more than seconds on a machine that is not idle: its load
before the run is stored, too. Linux only.

Results go to results/footprint.json under the name of the run; other names stay. `--quick` serves one model only.
"""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import yaml

from benchmarks.command import is_full, parser, results

RESULTS = Path(__file__).resolve().parent / "results"
PROMPT = {"prompt": "a red circle", "seed": 1}
PATIENCE_S = 600.0
SETTLE_S = 5.0
ALONE = "version: 1\nname: alone\nrecipes: {sd15: {generate: {model: sd15}}}\nobjective: {minimise: cost_usd}\n"
KINDS = (
    (r"ray::ServeReplica:\w+:(\S+)", r"\1"),
    (r"ray::ServeController", "Serve's controller"),
    (r"ray::ProxyActor", "Serve's proxy"),
    (r"ray::IDLE", "Ray's idle workers"),
    (r"gcs_server", "Ray's GCS"),
    (r"raylet/raylet", "Ray's raylet"),
    (r"dashboard/agent\.py|runtime_env/agent|dashboard\.py|log_monitor\.py|monitor\.py", "Ray's agents"),
    (r"deployments\.cli|triptych", "the command"),
)


def processes(root: int) -> dict[int, str]:
    """The kind of every process at and below `root`, by id."""
    parents, lines = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            lines[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
    found, fresh = {root}, {root}
    while fresh:
        fresh = {pid for pid, parent in parents.items() if parent in fresh} - found
        found |= fresh
    return {pid: kind_of(lines[pid]) for pid in found if lines.get(pid)}


def kind_of(command_line: str) -> str:
    """What a process is for."""
    for pattern, kind in KINDS:
        if match := re.search(pattern, command_line):
            return match.expand(kind)
    return "other: " + command_line[:60].strip()


def memory_mb(pid: int) -> dict[str, float]:
    """PSS, USS and RSS of a process in 10^6 bytes; zeros if it has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return {"pss": 0.0, "uss": 0.0, "rss": 0.0}
    kb = {name: int(number) for name, number in re.findall(r"(\w+):\s+(\d+) kB", text)}
    uss = kb.get("Private_Clean", 0) + kb.get("Private_Dirty", 0)
    return {"pss": kb.get("Pss", 0) * 1024e-6, "uss": uss * 1024e-6, "rss": kb.get("Rss", 0) * 1024e-6}


def cpu_s(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def weighed(root: int) -> dict[str, Any]:
    """Memory and CPU seconds of all processes below `root`, together and by kind."""
    kinds: dict[str, dict[str, float]] = {}
    for pid, kind in processes(root).items():
        row = kinds.setdefault(kind, {"processes": 0, "pss": 0.0, "uss": 0.0, "rss": 0.0, "cpu_s": 0.0})
        for name, value in {**memory_mb(pid), "cpu_s": cpu_s(pid), "processes": 1}.items():
            row[name] = round(row[name] + value, 1)
    ordered = dict(sorted(kinds.items(), key=lambda item: -item[1]["pss"]))
    names = ("processes", "pss", "uss", "cpu_s")
    total = {name: round(sum(row[name] for row in ordered.values()), 1) for name in names}
    return {"total": total, "kinds": ordered}


def measured(arguments: Sequence[str], environment: Mapping[str, str]) -> dict[str, Any]:
    """One start, one picture, one end."""
    from deployments.cluster.local_cluster import free_port

    port, load = free_port(), os.getloadavg()[0]
    command = [sys.executable, "-m", "deployments.cli", "serve", "--port", str(port), *arguments]
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        serving = subprocess.Popen(command, env={**os.environ, **environment}, stdout=said, stderr=said)
        try:
            ready_s = until_ready(f"http://127.0.0.1:{port}", serving, began, said)
            drawn = time.perf_counter()
            answer = httpx.post(f"http://127.0.0.1:{port}/v1/images/generations", json=PROMPT, timeout=120)
            answer.raise_for_status()
            first_s = time.perf_counter() - drawn
            time.sleep(SETTLE_S)
            found = weighed(serving.pid)
        finally:
            serving.send_signal(signal.SIGINT)
            serving.wait(120)
    return {"ready_s": round(ready_s, 2), "first_picture_s": round(first_s, 3), "load_before": round(load, 2), **found}


def until_ready(url: str, serving: subprocess.Popen[bytes], began: float, said: Any) -> float:
    """Seconds from `began` until `/readyz` says ready."""
    while (passed := time.perf_counter() - began) < PATIENCE_S:
        if serving.poll() is not None:
            said.seek(0)
            raise SystemExit(f"the command ended with {serving.returncode}:\n{said.read()}")
        try:
            answer = httpx.get(f"{url}/readyz", timeout=5).json()
        except (httpx.HTTPError, ValueError):
            answer = {}
        if answer.get("status") in ("ready", "degraded"):
            return time.perf_counter() - began
        time.sleep(0.1)
    raise SystemExit(f"it was not ready after {passed:.0f} s")


def one_model(folder: Path) -> list[str]:
    """Arguments that serve SD1.5 alone, by a config of its own in `folder`."""
    (folder / "alone.yaml").write_text(ALONE, encoding="utf-8")
    arguments = {
        "models": {"sd15": {"card": "embedded/sd15", "device": "cpu"}},
        "policies": {"directory": str(folder), "default": "alone"},
    }
    application = {"name": "triptych", "route_prefix": "/", "import_path": "deployments.app:build", "args": arguments}
    config = folder / "serve" / "config.yaml"
    config.parent.mkdir()
    config.write_text(yaml.safe_dump({"applications": [application]}), encoding="utf-8")
    return ["--config", str(config)]


def main(argv: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    made.add_argument("--repeat", type=int, default=3, help="starts; the medians are reported")
    made.add_argument("--name", default="now", help="what the run is called in the results")
    chosen = made.parse_args(argv)
    with (
        results(chosen, RESULTS, is_full(made, chosen, but=("name",))) as out,
        tempfile.TemporaryDirectory(prefix="triptych-footprint-") as folder,
    ):
        arguments = one_model(Path(folder)) if chosen.quick else []
        environment = {"XDG_STATE_HOME": folder}
        runs = [measured(arguments, environment) for _ in range(1 if chosen.quick else chosen.repeat)]
        report(chosen.name, runs, out / "footprint.json")


def report(name: str, runs: Sequence[dict[str, Any]], file: Path) -> None:
    """A table of the run whose memory is the median; everything in `file`, beside what is there."""
    middle = sorted(runs, key=lambda run: run["total"]["pss"])[len(runs) // 2]
    print(f"{'':24s} {'processes':>9s} {'PSS MB':>8s} {'USS MB':>8s} {'CPU s':>7s}")
    for kind, row in {**middle["kinds"], "all": middle["total"]}.items():
        print(f"{kind[:24]:24s} {row['processes']:9.0f} {row['pss']:8.0f} {row['uss']:8.0f} {row['cpu_s']:7.1f}")
    seconds = [run["ready_s"] for run in runs]
    loads = ", ".join(str(run["load_before"]) for run in runs)
    print(f"ready after {statistics.median(seconds):.1f} s ({min(seconds)}-{max(seconds)}); load before: {loads}")
    print(f"first picture after {middle['first_picture_s']:.2f} s")
    kept = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    kept[name] = {"cpus": os.cpu_count(), "python": sys.version.split()[0], "runs": list(runs)}
    file.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
