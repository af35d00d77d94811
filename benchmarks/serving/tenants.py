"""What tenants do to each other: a small job beside a stream of big ones, a modest tenant beside a greedy one.

    python -m benchmarks.serving.tenants [--quick] [--seconds 10]

All on turbo pictures. One small job after the other, alone and beside a stream of big ones (ten pictures of another
tenant each, two of these at a time). Then the share of a tenant with `OPEN` requests open beside another that has as
many, and beside one that has ten times as many. Both in two applications: one makes as many pictures at once as pays,
in the other a batch takes `BATCH_S` at most (`queues.batch_s`), with what eight clients get there.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.serving.load import body, loop_of
from benchmarks.serving.rig.application import TURBO, Served, configured, folder_of_its_own, serving
from benchmarks.serving.rig.clients import Client, client_of, closed_loop
from benchmarks.serving.rig.figures import command, kept, pyplot, save, spread, told

OPEN = (8, 24)
"""As many as a batch; and as many as are needed for something of the tenant to wait at any moment, while others of its
requests are being drawn, on their way back, or not yet asked again. Who has nothing waiting has no share."""
SETTLED_S = 6.0
"""Before pictures are counted: hundreds that come at the same moment are taken in one after the other, whoever's they
are. Nor does what is still waiting at the end count: most of that is the greedy one's."""
BATCH_S = 0.06
"""About two pictures."""


async def small_beside_big(client: Client, count: int) -> dict[str, Any]:
    """Seconds of a small job alone, and beside a stream of big ones of another tenant, of the same class."""

    async def one_after_the_other() -> list[float]:
        found = []
        for number in range(count):
            reply = await client.once(body(number, user="small"))
            if reply.status == 200:
                found.append(reply.seconds)
            await asyncio.sleep(0.05)
        return found

    async def stream() -> None:
        number = 0
        while True:
            number += 1
            await client.once(body(1000 * number, n=10, user="big"))

    alone = await one_after_the_other()
    streams = [asyncio.ensure_future(stream()) for _ in range(2)]
    await asyncio.sleep(2.0)
    beside = await one_after_the_other()
    for task in streams:
        task.cancel()
    await asyncio.gather(*streams, return_exceptions=True)
    ratio = float(np.percentile(beside, 95) / np.percentile(alone, 95)) if alone and beside else None
    return {"alone_s": spread(alone), "beside_s": spread(beside), "p95_ratio": ratio}


async def greedy(client: Client, modest: int, seconds: float) -> dict[str, Any]:
    """The share of a tenant with so many requests open, beside one with as many, and one with ten times as many."""
    found: dict[str, Any] = {}
    for name, open_requests in (("as_many", modest), ("ten_times", 10 * modest)):
        made: Counter[str] = Counter()
        counted_s = time.monotonic() + SETTLED_S

        async def ask(number: int, tenant: str, made: Counter[str] = made, since_s: float = counted_s) -> None:
            reply = await client.once(body(number, user=tenant))
            made[tenant] += reply.status == 200 and 0 < time.monotonic() - since_s < seconds

        def loop(tenant: str, clients: int, ask: Any = ask) -> Any:
            return closed_loop(lambda number: ask(number, tenant), clients, SETTLED_S + seconds)

        await asyncio.gather(loop("modest", modest), loop("greedy", open_requests))
        whole = made["modest"] + made["greedy"]
        share = made["modest"] / whole if whole else 0.0
        found[name] = {"modest": made["modest"], "greedy": made["greedy"], "modest_share": share}
        await asyncio.sleep(1.0)
    before, after = (found[name]["modest_share"] for name in ("as_many", "ten_times"))
    found["lowered_by"] = 1.0 - after / before if before else None
    return found


async def one_application(served: Served, quick: bool, seconds: float) -> dict[str, Any]:
    async with client_of(served.url) as client:
        await loop_of(client, 1, 2.0)  # the first ones compile and learn, of each size of batch
        await loop_of(client, 8, 2.0 if quick else 12.0)
        eight = await loop_of(client, 8, seconds)
        small = await small_beside_big(client, 8 if quick else 60)
        told("eight clients", per_s=eight, small_p95_ratio=small["p95_ratio"])
        shares = {str(modest): await greedy(client, modest, seconds) for modest in OPEN}
        told("lowered by", **{modest: share["lowered_by"] for modest, share in shares.items()})
        return {"eight_clients_per_s": eight, "small_beside_big": small, "greedy": shares}


def plot(found: Mapping[str, Any], file: Any) -> None:
    """The small job's 95th percentile, and the modest tenant's share."""
    figure, (left, right) = pyplot().subplots(1, 2, figsize=(9, 3.0), layout="constrained")
    names = list(found["applications"])
    for k, name in enumerate(names):
        one = found["applications"][name]
        small = one["small_beside_big"]
        for shift, key, colour in ((-0.2, "alone_s", "tab:gray"), (0.2, "beside_s", "tab:blue")):
            label = {"alone_s": "alone", "beside_s": "beside big ones"}[key] if not k else None
            left.bar(k + shift, 1000 * small[key].get("p95", 0.0), width=0.4, color=colour, label=label)
        for j, share in enumerate(one["greedy"].values()):
            for shift, key, colour in ((-0.2, "as_many", "tab:gray"), (0.2, "ten_times", "tab:orange")):
                label = {"as_many": "beside as many", "ten_times": "beside ten times as many"}[key]
                place, height = k * len(OPEN) + j + shift, 100 * share[key]["modest_share"]
                right.bar(place, height, width=0.4, color=colour, label=label if not k + j else None)
    left.set(xticks=range(len(names)), xticklabels=names, ylabel="ms of a small job, 95th percentile")
    ticks = [f"{modest} open,\n{name}" for name in names for modest in found["applications"][name]["greedy"]]
    right.set(xticks=range(len(ticks)), ylabel="share of the pictures, %", ylim=(0, 70))
    right.set_xticklabels(ticks, fontsize=7)
    right.axhline(50, color="black", linewidth=0.8)
    for axes in (left, right):
        axes.legend(frameon=False, fontsize=7, loc="upper right")
        axes.spines[["top", "right"]].set_visible(False)
    save(figure, file)


def main(argv: Sequence[str] | None = None) -> None:
    made = command(__doc__)
    made.add_argument("--seconds", type=float, default=10.0, help="of each load")
    chosen = made.parse_args(argv)
    found: dict[str, Any] = {"batch_s": BATCH_S, "applications": {}}
    with kept(made, chosen, "tenants") as out, folder_of_its_own() as folder:
        for name, queues in (("as many as pays", {}), (f"{BATCH_S} s at most", {"batch_s": BATCH_S})):
            with serving(configured(folder, TURBO, ingresses=2, inside=512, queues=queues), folder) as served:
                run = one_application(served, chosen.quick, 3.0 if chosen.quick else chosen.seconds)
                found["applications"][name] = asyncio.run(run)
        out.keep(found)
        plot(found, out.picture())


if __name__ == "__main__":
    main()
