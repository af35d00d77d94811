"""Many arrive at once against a budget for five: exactly five may enter, over any number of ingresses.

    python -m benchmarks.serving.exactness [--quick] [--arrivals 1000] [--ingresses 4]

Every request is of one tenant and expected to take the same seconds of work; the policy's budget has five and a half
times as many. The pictures take so many steps that none of them is done before the last has arrived: what a budget
counts changes when what was used is known. Who enters is read from the store, on SQLite and on PostgreSQL.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from benchmarks.serving.rig.application import configured, folder_of_its_own, postgres, serving
from benchmarks.serving.rig.clients import Client, Reply, client_of
from benchmarks.serving.rig.figures import command, kept, pyplot, save, spread, told

BOUND = 5
STEPS = 1000
RECIPE = {"slow": "{generate: {model: flux}}"}
BODY = {"prompt": "a red circle", "model": "evidence/slow", "steps": STEPS, "seed": 1, "user": "acme"}
QUIET_S = 20.0  # after the last answer, those that are not answered have entered


def with_budget(work_s: float) -> str:
    """YAML of a budget."""
    return f"budgets: [{{name: five, window_s: 86400, work_s: {work_s:.9g}}}]"


async def expected_s(client: Client) -> float:
    """Seconds of work that a request is expected to take."""
    reply = await client.once(BODY, path="/v1/route")
    assert reply.body is not None
    if reply.status != 200:
        raise SystemExit(f"no decision: {reply.body}")
    return float(reply.body["estimates"]["slow"]["work_s"])


async def arrive(client: Client, arrivals: int) -> tuple[list[Reply], float]:
    """All at once; the answers that came, and seconds until the last of them."""
    began, last = time.monotonic(), time.monotonic()
    tasks = [asyncio.ensure_future(client.once(BODY, f"exact-{number}")) for number in range(arrivals)]
    waiting: set[asyncio.Future[Reply]] = set(tasks)
    while waiting and time.monotonic() - last < QUIET_S:
        done, waiting = await asyncio.wait(waiting, timeout=1.0)
        if done:
            last = time.monotonic()
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    return [task.result() for task in tasks if not task.cancelled()], last - began


def entered(database: str | None, arrivals: int, ingresses: int) -> dict[str, Any]:
    """One run on one database."""
    with folder_of_its_own() as folder:
        slow = {"max_steps": STEPS}
        config = configured(folder, RECIPE, ingresses=ingresses, database=database, overrides=slow, inside=10_000)
        with serving(config, folder) as served:

            async def run() -> tuple[list[Reply], float, float]:
                async with client_of(served.url) as client:
                    each_s = await expected_s(client)
                    file = folder / "policies" / "evidence.yaml"
                    changed = file.read_text(encoding="utf-8") + with_budget((BOUND + 0.5) * each_s) + "\n"
                    file.write_text(changed, encoding="utf-8")
                    await asyncio.sleep(2.0)  # the next request follows the file
                    replies, took_s = await arrive(client, arrivals)
                    return replies, took_s, each_s

            replies, took_s, each_s = asyncio.run(run())
            store = served.store()
            jobs, _ = store.jobs(None, (), 200, None)
            used = [row.work_s for row in store.usage_since(0.0)]
            store.close()
    refused = [reply for reply in replies if reply.status != 200]
    return {
        "arrivals": arrivals,
        "ingresses": ingresses,
        "entered": len(jobs),
        "done_meanwhile": sum(job.state == "done" for job in jobs),
        "budget_s": (BOUND + 0.5) * each_s,
        "charged_s": sum(used),
        "refused": dict(Counter(f"{reply.status} {reply.code}" for reply in refused)),
        "without_envelope": sum(not reply.enveloped for reply in refused),
        "with_retry_after": sum(reply.retry_after_s is not None for reply in refused),
        "seconds": round(took_s, 2),
        "refusal_s": spread([reply.seconds for reply in refused]),
    }


def plot(runs: dict[str, Any], file: Any) -> None:
    """How many entered, beside the bound."""
    figure, axes = pyplot().subplots(figsize=(6.0, 2.2), layout="constrained")
    axes.barh(list(runs), [run["entered"] for run in runs.values()], color="tab:blue", height=0.5)
    axes.axvline(BOUND, color="black", linewidth=0.8)
    arrivals = next(iter(runs.values()))["arrivals"]
    axes.set(xlabel=f"entered of {arrivals} that came at once (the budget is for {BOUND})", xlim=(0, 2 * BOUND))
    save(figure, file)


def main(argv: Sequence[str] | None = None) -> None:
    made = command(__doc__)
    made.add_argument("--arrivals", type=int, default=1000, help="requests at once")
    made.add_argument("--ingresses", type=int, default=4, help="replicas that take them")
    chosen = made.parse_args(argv)
    arrivals, ingresses = (60, 2) if chosen.quick else (chosen.arrivals, chosen.ingresses)
    runs: dict[str, Any] = {}
    with kept(made, chosen, "exactness") as out, ExitStack() as stack:
        for name in ("sqlite",) if chosen.quick else ("sqlite", "postgresql"):
            database = stack.enter_context(postgres()) if name == "postgresql" else None
            runs[name] = entered(database, arrivals, ingresses)
            told(name, **{key: runs[name][key] for key in ("arrivals", "entered", "refused", "seconds")})
        out.keep({"bound": BOUND, "databases": runs})
        plot(runs, out.picture())
    if any(run["entered"] != BOUND for run in runs.values()):
        raise SystemExit(f"not exactly {BOUND} entered")


if __name__ == "__main__":
    main()
