"""What happens at and beyond capacity: goodput, refusals, readiness.

    python -m benchmarks.serving.load [--quick] [--seconds 30] [--clients 700]

All on turbo pictures, in one run: the bare pipeline in a loop; one client; eight clients; then requests at random
moments at 1, 2 and 10 times the best throughput, each with a latency budget of ten seconds, and 700 at once. A client
that is refused comes back once, when `Retry-After` says; whether it is taken then is counted. Goodput is pictures a
second that were done within their budget, and stands beside the best that one client got. `/readyz` is asked four times
a second.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.serving.rig.application import TURBO, Served, configured, folder_of_its_own, serving
from benchmarks.serving.rig.clients import Client, Probe, Reply, client_of, closed_loop, open_loop
from benchmarks.serving.rig.figures import command, kept, pyplot, save, spread, told
from benchmarks.serving.rig.plain import bare, refuse_on_serve

BODY = {"prompt": "a red circle", "model": "evidence/turbo"}
BUDGET_S = 10.0


def body(number: int, **changes: Any) -> dict[str, Any]:
    """A request like no other, so that nothing is answered from anywhere but a worker."""
    return {**BODY, "seed": number, **changes}


def of_the_pipeline(seconds: float) -> float:
    """Pictures a second of the bare pipeline in a loop, in this process, on one thread."""
    make = bare("sdxl-turbo")
    make(0), make(1)
    began, count = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        make(count)
        count += 1
    return count / (time.monotonic() - began)


async def loop_of(client: Client, clients: int, seconds: float) -> float:
    """Pictures a second of clients who ask without a pause."""
    done = 0

    async def ask(number: int) -> None:
        nonlocal done
        reply = await client.once(body(number))
        done += reply.status == 200  # after the await: what others counted meanwhile is kept

    return done / took_s if (took_s := await closed_loop(ask, clients, seconds)) else 0.0


class Visits:
    """Requests of clients that come back once if they are refused."""

    def __init__(self, client: Client, budget_s: float | None) -> None:
        self._client = client
        self._budget_s = budget_s
        self.first: list[Reply] = []
        self.second: list[Reply] = []
        self.done: list[tuple[float, float]] = []  # second of the answer, seconds waited since the visit

    async def __call__(self, number: int) -> None:
        changes = {} if self._budget_s is None else {"latency_budget_s": self._budget_s}
        reply = await self._visit(number, self.first, changes)
        if reply.status == 429 or (reply.status == 503 and reply.retry_after_s is not None):
            await asyncio.sleep(reply.retry_after_s or 1.0)
            await self._visit(number, self.second, changes)

    async def _visit(self, number: int, replies: list[Reply], changes: Mapping[str, Any]) -> Reply:
        reply = await self._client.once(body(number, **changes))
        replies.append(reply)
        if reply.status == 200 and (self._budget_s is None or reply.seconds <= self._budget_s):
            self.done.append((self._client.now(), reply.seconds))
        return reply

    def summary(self, probe: Probe) -> dict[str, Any]:
        """What they met."""
        both = [*self.first, *self.second]
        refused = [reply for reply in both if reply.status == 429 or reply.status == 503]
        back = [reply.status == 200 for reply in self.second]
        return {
            "visits": len(self.first),
            "in_time": len(self.done),
            "answers": dict(Counter(f"{reply.status} {reply.code}".strip() for reply in both)),
            "waited_s": spread([seconds for _, seconds in self.done]),
            "refused": len(refused),
            "without_envelope": sum(not reply.enveloped for reply in both),
            "refusals_without_retry_after": sum(reply.retry_after_s is None for reply in refused),
            "refusal_s": spread([reply.seconds for reply in refused]),
            "came_back": len(back),
            "taken_then": sum(back),
            "readyz_s": spread(probe.seconds),
            "readyz_failed": probe.failed,
        }


async def at_rate(client: Client, rate: float, seconds: float) -> dict[str, Any]:
    """Requests that come at random moments; goodput from the first fifth of the time on, until the last has come."""
    visits = Visits(client, BUDGET_S)
    client.began = time.monotonic()
    async with Probe(client) as probe:
        tasks = await open_loop(visits, rate, seconds, random.Random(2))
        await asyncio.gather(*tasks)
    steady = [at for at, _ in visits.done if 0.2 * seconds <= at <= seconds]
    return {"rate": round(rate, 2), "goodput": round(len(steady) / (0.8 * seconds), 3), **visits.summary(probe)}


async def at_once(client: Client, clients: int) -> dict[str, Any]:
    """So many at the same moment, without a budget; goodput until the last is answered."""
    visits = Visits(client, None)
    client.began = time.monotonic()
    async with Probe(client) as probe:
        await asyncio.gather(*(visits(number) for number in range(clients)))
    ended = max((at for at, _ in visits.done), default=1.0)
    return {"clients": clients, "goodput": round(len(visits.done) / ended, 3), **visits.summary(probe)}


async def floor(client: Client, path: str, rate: float, seconds: float) -> dict[str, Any]:
    """What a refusal costs where nothing is decided."""
    replies: list[Reply] = []

    async def ask(number: int) -> None:
        replies.append(await client.once(body(number), path=path))

    await ask(0)
    replies.clear()
    await asyncio.gather(*await open_loop(ask, rate, seconds, random.Random(3)))
    refused = [reply.seconds for reply in replies if reply.status == 429]
    return {"rate": round(rate, 2), "asked": len(replies), "refusal_s": spread(refused)}


async def whole_run(served: Served, chosen: Any) -> dict[str, Any]:
    seconds = 4.0 if chosen.quick else chosen.seconds
    at_a_time = 40 if chosen.quick else chosen.clients
    async with client_of(served.url) as client:
        await loop_of(client, 1, 2.0)  # the first ones compile and learn, of each size of batch
        await loop_of(client, 8, 2.0 if chosen.quick else 15.0)
        pipeline = await asyncio.to_thread(of_the_pipeline, seconds / 2)
        single, eight = await loop_of(client, 1, seconds), await loop_of(client, 8, seconds)
        told("pictures a second", pipeline=pipeline, one_client=single, eight_clients=eight)
        loads: dict[str, Any] = {}
        for factor in (1, 2, 10):
            loads[f"{factor}x"] = await at_rate(client, factor * max(single, eight), seconds)
            await asyncio.sleep(2.0)
        loads["at_once"] = await at_once(client, at_a_time)
        for name, load in loads.items():
            told(name, goodput=load["goodput"], of_single=load["goodput"] / single, answers=load["answers"],
                 refusal_p95=load["refusal_s"].get("p95"), readyz_max=load["readyz_s"].get("max"))  # fmt: skip
        path = await asyncio.to_thread(refuse_on_serve)
        ground = await floor(client, path, loads["10x"]["rate"], seconds)
        told("a Serve application that only refuses", rate=ground["rate"], refusal_p95=ground["refusal_s"].get("p95"))
    return {
        "pipeline_per_s": pipeline,
        "one_client_per_s": single,
        "eight_clients_per_s": eight,
        "saturated_of_pipeline": eight / pipeline,
        "loads": {name: {**load, "of_single": load["goodput"] / single} for name, load in loads.items()},
        "floor": ground,
    }


def plot(found: Mapping[str, Any], file: Any) -> None:
    """Goodput at each load, beside what one client gets."""
    figure, (left, right) = pyplot().subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    loads, single = found["loads"], found["one_client_per_s"]
    left.bar(list(loads), [load["goodput"] for load in loads.values()], color="tab:blue", width=0.6)
    left.axhline(single, color="black", linewidth=0.8, label="one client")
    left.axhline(0.9 * single, color="gray", linewidth=0.8, linestyle="--", label="90 % of it")
    left.set(ylabel="pictures a second, in time", xlabel="load")
    left.legend(frameon=False, fontsize=7)
    for shift, key, label in ((-0.2, "refusal_s", "refusals"), (0.2, "readyz_s", "/readyz")):
        tops = [1000 * load[key].get("p95", 0.0) for load in loads.values()]
        right.bar(np.arange(len(loads)) + shift, tops, width=0.4, label=label)
    right.axhline(100, color="black", linewidth=0.8)
    right.set(xticks=range(len(loads)), xticklabels=list(loads), ylabel="ms, 95th percentile", yscale="symlog")
    right.legend(frameon=False, fontsize=7)
    save(figure, file)


def main(argv: Sequence[str] | None = None) -> None:
    made = command(__doc__)
    made.add_argument("--seconds", type=float, default=30.0, help="of each load")
    made.add_argument("--clients", type=int, default=700, help="requests at once")
    chosen = made.parse_args(argv)
    with kept(made, chosen, "load") as out, folder_of_its_own() as folder:
        with serving(configured(folder, TURBO, ingresses=2), folder) as served:
            found = asyncio.run(whole_run(served, chosen))
        out.keep(found)
        plot(found, out.picture())


if __name__ == "__main__":
    main()
