"""What serving adds to a picture: Triptych, a plain Ray Serve app, FastAPI and LitServe around the same pipeline.

    python -m benchmarks.serving.overhead [--quick] [--pictures 60] [--models sdxl-turbo sd15]

All of them make the same picture on one thread, one after the other and in turns, so that whatever else the machine
does hits all alike; each answers with base64 of a PNG, and all pictures of a seed must be equal. Then the same in
blocks, of which the CPU time of all processes behind each way is read: what an idle Ray takes beside is measured and
taken off. LitServe takes part if it is installed (pip install --no-deps litserve lightning-utilities pyzmq).

A machine that is shared slows down for seconds at a time, and then everything takes twice as long, what is added as
well. So the added time stands twice: over all turns, and over the calm ones, in which the bare pipeline and FastAPI
both took at most 1.3 times their own fastest tenth. Which turns are calm, these two decide, whatever Triptych took.
"""

from __future__ import annotations

import base64
import io
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import psutil
from PIL import Image

from benchmarks.serving.rig.application import configured, folder_of_its_own, serving
from benchmarks.serving.rig.figures import command, kept, pyplot, save, told
from benchmarks.serving.rig.plain import PROMPT, Make, bare, deploy_on_serve, has_litserve, in_a_process
from router.learning.intervals import resampled

BLOCK = 10
CALM = 1.3  # times the fastest tenth of the pictures of a way


def over_http(url: str, body: Callable[[int], Mapping[str, Any]]) -> Make:
    """A function that asks for the picture of a seed, over a connection that stays open while it is used."""
    import http.client
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)

    used = time.monotonic()

    def make(seed: int) -> bytes:
        nonlocal used
        if time.monotonic() - used > 2.0:  # servers close idle ones
            connection.close()
        sent = json.dumps(body(seed))
        connection.request("POST", parts.path, sent, {"content-type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        used = time.monotonic()
        if answer.status != 200:
            raise SystemExit(f"{url} answered {answer.status}: {text[:300]!r}")
        return base64.b64decode(json.loads(text)["data"][0]["b64_json"])

    return make


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def walls(ways: Mapping[str, Make], pictures: int) -> dict[str, list[float]]:
    """Seconds of each picture by each way, in turns; the pictures are compared."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for seed in range(pictures):
        made = {}
        for k in range(len(names)):
            name = names[(k + seed) % len(names)]
            began = time.perf_counter()
            made[name] = ways[name](seed)
            seconds[name].append(time.perf_counter() - began)
        first = pixels(made[names[0]])
        for name, data in made.items():
            if not np.array_equal(first, pixels(data)):
                raise SystemExit(f"seed {seed}: the picture by {name} is another than that by {names[0]}")
    return seconds


def cpu_of(pids: Sequence[int]) -> float:
    """CPU seconds that these processes and all below them used so far, with those that have ended below them."""
    total = 0.0
    for pid in pids:
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            total += times.user + times.system
    return total


def cpus(ways: Mapping[str, Make], pids: Mapping[str, Sequence[int]], blocks: int) -> dict[str, list[float]]:
    """CPU seconds a picture by each way, in each block; without what its processes take while nothing is asked."""
    idle = {name: _rate(pids[name], 3.0) if name not in ("bare",) else 0.0 for name in ways}
    found: dict[str, list[float]] = {name: [] for name in ways}
    for block in range(blocks):
        for name, make in ways.items():
            began, used = time.perf_counter(), _own(name, pids[name])
            for k in range(BLOCK):
                make(1000 + block * BLOCK + k)
            took_s = time.perf_counter() - began
            found[name].append(max(0.0, _own(name, pids[name]) - used - idle[name] * took_s) / BLOCK)
    return found


def _own(name: str, pids: Sequence[int]) -> float:
    if name != "bare":
        return cpu_of(pids)
    times = os.times()
    return times.user + times.system


def _rate(pids: Sequence[int], seconds: float) -> float:
    before = cpu_of(pids)
    time.sleep(seconds)
    return (cpu_of(pids) - before) / seconds


def calm_turns(wall: Mapping[str, Sequence[float]]) -> np.ndarray:
    """The turns (turns,) bool in which the two ways with least around the pipeline were not slowed down."""
    rows = np.array([wall[name] for name in ("bare", "fastapi")])
    return np.asarray((rows <= CALM * np.quantile(rows, 0.1, axis=1, keepdims=True)).all(axis=0))


def added(name: str, seconds: np.ndarray) -> dict[str, Any]:
    """The median in ms and its 95 % interval, under a name; None where there is nothing to take it of."""
    if not len(seconds):
        return {name: None, f"{name}_95": None}
    interval = resampled(len(seconds), lambda at: np.median(seconds[at]), resamples=2_000)
    return {name: 1000 * float(np.median(seconds)), f"{name}_95": [1000 * float(x) for x in interval]}


def summary(wall: Mapping[str, Sequence[float]], cpu: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """By way: medians in ms, what is added to the bare pipeline, with a 95 % interval of the paired difference."""
    base, base_cpu = np.array(wall["bare"]), float(np.median(cpu["bare"]))
    calm = calm_turns(wall)
    found: dict[str, Any] = {}
    for name in wall:
        rows = np.array(wall[name])
        apart = rows - base
        cpu_ms = 1000 * float(np.median(cpu[name]))
        found[name] = {
            "wall_ms": 1000 * float(np.median(rows)),
            **added("added_ms", apart),
            **added("calm_added_ms", apart[calm]),
            "cpu_ms": cpu_ms,
            "added_cpu_ms": cpu_ms - 1000 * base_cpu,
        }
    return found


def of_model(model: str, pictures: int, blocks: int) -> dict[str, Any]:
    """All ways for one model."""
    with ExitStack() as stack:
        folder = stack.enter_context(folder_of_its_own())
        before = {child.pid for child in psutil.Process().children()}
        config = configured(folder, {"alone": f"{{generate: {{model: {model}}}}}"}, max_batch=1)
        served = stack.enter_context(serving(config, folder))
        path = deploy_on_serve(model)
        ray = [child.pid for child in psutil.Process().children() if child.pid not in before]
        ways: dict[str, Make] = {"bare": bare(model)}
        pids: dict[str, Sequence[int]] = {"bare": ()}
        for kind in ("fastapi", *(("litserve",) if has_litserve() else ())):
            known = {child.pid for child in psutil.Process().children()}
            url = stack.enter_context(in_a_process(kind, model))
            ways[kind] = over_http(url, lambda seed: {"seed": seed})
            pids[kind] = [child.pid for child in psutil.Process().children() if child.pid not in known]
        ways["ray serve"] = over_http(served.url + path, lambda seed: {"seed": seed})
        asked = {"prompt": PROMPT, "model": "evidence/alone"}
        ways["triptych"] = over_http(served.url + "/v1/images/generations", lambda seed: {**asked, "seed": seed})
        pids |= {"ray serve": ray, "triptych": ray}
        walls(ways, 3)
        wall, cpu = walls(ways, pictures), cpus(ways, pids, blocks)
    turns = {"turns": pictures, "calm_turns": int(calm_turns(wall).sum())}
    return {**turns, "ways": summary(wall, cpu), "seconds": wall, "cpu_seconds": cpu}


def plot(models: Mapping[str, Any], file: Any) -> None:
    """Milliseconds that each way adds, wall and CPU."""
    figure, every = pyplot().subplots(
        1, len(models), figsize=(4.5 * len(models), 2.6), layout="constrained", squeeze=False
    )
    for axes, (model, found) in zip(every[0], models.items(), strict=True):
        names = [name for name in found["ways"] if name != "bare"]
        at = np.arange(len(names))
        for shift, key, label in ((-0.2, "added_ms", "wall"), (0.2, "added_cpu_ms", "CPU")):
            axes.barh(at + shift, [found["ways"][name][key] for name in names], height=0.4, label=label)
        axes.axvline(40, color="gray", linewidth=0.8, linestyle="--")
        bare_ms = found["ways"]["bare"]["wall_ms"]
        axes.set(yticks=at, yticklabels=names, xlabel=f"ms added to {bare_ms:.0f} ms", title=model)
        axes.legend(frameon=False, fontsize=7)
    save(figure, file)


def main(argv: Sequence[str] | None = None) -> None:
    made = command(__doc__)
    made.add_argument("--pictures", type=int, default=60, help="of each model, by each way")
    made.add_argument("--models", nargs="+", default=["sdxl-turbo", "sd15"], help="catalogue ids")
    chosen = made.parse_args(argv)
    models = chosen.models[:1] if chosen.quick else chosen.models
    pictures, blocks = (3, 1) if chosen.quick else (chosen.pictures, max(1, chosen.pictures // BLOCK))
    with kept(made, chosen, "overhead") as out:
        found = {model: of_model(model, pictures, blocks) for model in models}
        out.keep({"litserve": has_litserve(), "models": found})
        plot(found, out.picture())
    for model, result in found.items():
        for name, way in result["ways"].items():
            told(f"{model} by {name}", **{key: value for key, value in way.items() if not key.endswith("_95")})
    if not has_litserve():
        print("LitServe is not installed here, so it took no part (pip install litserve)")


if __name__ == "__main__":
    main()
