"""Replicas of every kind are killed under load: no accepted job may be lost, no picture wrong.

    python -m benchmarks.serving.chaos [--quick] [--minutes 10] [--every 20] [--postgres] [--second-node]

First an undisturbed reference of every request (prompt, seed, recipe) and the capacity of this machine; then requests
at 80 % of it, at random moments, while every 20 seconds a worker, the orchestrator or an ingress is SIGKILLed, and once
each Serve's proxy is killed and the store goes away (SQLite: locked by another for ten seconds; PostgreSQL: its
connections are ended). Clients keep an Idempotency-Key, and ask again with it when a connection breaks. Afterwards the
store is read: every job in it must be done, once for each key, and its pictures those of the reference, bit by bit.
`--second-node`: the workers are on two nodes of a Ray cluster, and one of these nodes is what disappears.
"""

from __future__ import annotations

import asyncio
import io
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.serving.rig.application import RECIPES, Served, configured, folder_of_its_own, postgres, serving
from benchmarks.serving.rig.clients import Asked, Client, client_of, closed_loop, open_loop
from benchmarks.serving.rig.figures import Results, command, kept, pyplot, save, spread, told
from benchmarks.serving.rig.processes import kill_one
from benchmarks.serving.rig.second_node import NODE, two_nodes
from deployments.store import Store
from deployments.store.records import JobRecord

SHARE = 0.8  # of the capacity
TURNS = ("worker", "orchestrator", "ingress")
AWAY_S = 10.0
PATIENCE_S = 300.0
PROMPTS = (
    "a red circle", "two green stars", "a blue ring above a yellow square", "a purple triangle",
    "an orange star left of a blue circle", "three red squares", "a yellow ring", "a green circle and a blue star",
)  # fmt: skip


@dataclass(frozen=True)
class Event:
    """Something that was done to the server. at_s: since the run began;   what: was killed, or went away"""

    at_s: float
    what: str
    pid: int | None = None
    seconds: float = 0.0


@dataclass
class Run:
    """A disturbed run. plan: (second, what), in order"""

    plan: list[tuple[float, str]]
    events: list[Event] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)


def requests() -> list[dict[str, Any]]:
    """All that is asked for, each with one right answer."""
    return [
        {"prompt": prompt, "model": f"evidence/{recipe}", "seed": 100 + number}
        for number, prompt in enumerate(PROMPTS)
        for recipe in RECIPES
    ]


def planned(seconds: float, every_s: float, whole: bool, turns: Sequence[str] = TURNS) -> list[tuple[float, str]]:
    """Who is killed when: each kind in its turn; whole: the proxy and the store once each in the place of another."""
    times = np.arange(every_s, seconds, every_s)
    plan = [(float(at), turns[number % len(turns)]) for number, at in enumerate(times)]
    for share, what in ((0.4, "proxy"), (0.7, "store")) if whole else ():
        if plan:
            number = min(len(plan) - 1, int(share * len(plan)))
            plan[number] = (plan[number][0], what)
    return plan


@contextmanager
def away(served: Served) -> Iterator[None]:
    """The store does not answer during the block."""
    import sqlalchemy

    url = served.config.settings.store.database_url
    engine = sqlalchemy.create_engine(url)
    if engine.dialect.name == "sqlite":
        with engine.connect() as db:
            db.exec_driver_sql("PRAGMA busy_timeout=20000")
            db.exec_driver_sql("BEGIN EXCLUSIVE")
            try:
                yield
            finally:
                db.exec_driver_sql("ROLLBACK")
    else:
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = "
        with engine.connect() as db:
            for _ in range(20):
                db.exec_driver_sql(others + "current_database()")
                time.sleep(AWAY_S / 40)
        yield
    engine.dispose()


def strike(what: str, served: Served, remove_node: Callable[[], float] | None) -> tuple[int | None, float]:
    """Do it; the process that was killed, and how long it took."""
    began = time.monotonic()
    if what == "store":
        with away(served):
            time.sleep(AWAY_S)
        return None, time.monotonic() - began
    if what == "node":
        assert remove_node is not None
        return None, remove_node()
    return kill_one(what), time.monotonic() - began


async def disturbed(
    client: Client, run: Run, rate: float, seconds: float, served: Served, remove_node: Callable[[], float] | None
) -> None:
    """Requests at `rate` for `seconds`, with everything that is planned; returns when all are answered."""
    bodies, chance = requests(), random.Random(1)

    async def ask(number: int) -> None:
        body = bodies[number % len(bodies)]
        about = str(number % len(bodies))
        run.asked.append(await client.insist(body, f"chaos-{number}", PATIENCE_S, about))

    async def disturb() -> None:
        for at_s, what in run.plan:
            await asyncio.sleep(max(0.0, at_s - client.now()))
            began = client.now()
            pid, took_s = await asyncio.to_thread(strike, what, served, remove_node)
            run.events.append(Event(round(began, 3), what, pid, round(took_s, 2)))
            told(f"{began:7.1f} s: {what}", pid=pid, answered=len(run.asked))

    striking = asyncio.ensure_future(disturb())
    tasks = await open_loop(ask, rate, seconds, chance)
    await striking
    await asyncio.gather(*tasks)


async def reference(client: Client, bodies: Sequence[Mapping[str, Any]]) -> list[bytes]:
    """The picture of each request, with nothing disturbed."""
    found = []
    for body in bodies:
        reply = await client.once(body)
        if reply.picture is None:
            raise SystemExit(f"the reference of {body} was not made: {reply.status} {reply.body}")
        found.append(reply.picture)
    return found


async def capacity(client: Client, bodies: Sequence[Mapping[str, Any]], clients: int, seconds: float) -> float:
    """Pictures a second with so many clients who ask without a pause."""
    done = 0

    async def ask(number: int) -> None:
        nonlocal done
        reply = await client.once(bodies[number % len(bodies)])
        done += reply.status == 200

    took_s = await closed_loop(ask, clients, seconds)
    return done / took_s


def jobs_in(store: Store) -> list[JobRecord]:
    """All jobs of the store."""
    found: list[JobRecord] = []
    cursor: str | None = None
    while True:
        page, cursor = store.jobs(None, (), 200, cursor)
        found += page
        if cursor is None:
            return found


def settled(store: Store, patience_s: float) -> list[JobRecord]:
    """All jobs, once none of them is open any more, or after so long."""
    due = time.monotonic() + patience_s
    while True:
        jobs = jobs_in(store)
        if not any(job.state in ("queued", "running") for job in jobs) or time.monotonic() >= due:
            return jobs
        time.sleep(1.0)


def same(one: bytes, other: bytes) -> bool:
    """Whether two files show the same picture."""
    a, b = (np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in (one, other))
    return a.shape == b.shape and bool(np.array_equal(a, b))


def judged(run: Run, store: Store, wanted: Sequence[bytes], since_s: float) -> dict[str, Any]:
    """What was lost and what was wrong, by what clients got and by what the store holds. since_s: Unix time"""
    bodies = {(body["prompt"], body["model"], body["seed"]): k for k, body in enumerate(requests())}
    jobs = [job for job in settled(store, 120.0) if job.arrived_at >= since_s]
    lost = [{"id": job.id, "state": job.state, "error": job.error} for job in jobs if job.state != "done"]
    wrong, other_bytes, missing = [], 0, []
    for job in jobs:
        number = bodies.get((job.body.get("prompt"), job.body.get("model"), job.body.get("seed")))
        if job.state != "done" or number is None:
            continue
        pictures = store.pictures(job.id)
        if len(pictures) != job.n:
            missing.append(job.id)
        for picture in pictures:
            data = store.read(picture)
            other_bytes += data != wanted[number]
            if not same(data, wanted[number]):
                wrong.append(job.id)
    got = [one for one in run.asked if one.picture is not None]
    for one in got:
        assert one.picture is not None
        if not same(one.picture, wanted[int(one.about)]):
            wrong.append(f"client {one.about}")
    keys = Counter(job.idempotency_key for job in jobs if job.idempotency_key is not None)
    return {
        "requests": len(run.asked),
        "answered": len(got),
        "unanswered": [one.row() for one in run.asked if one.picture is None],
        "accepted": len(jobs),
        "keys": len(keys),
        "unstored": max(0, len(got) - len(jobs)),
        "twice": sum(count > 1 for count in keys.values()),
        "lost": lost,
        "without_pictures": missing,
        "wrong": wrong,
        "same_pixels_other_bytes": other_bytes,
        "attempts": dict(Counter(job.attempts for job in jobs)),
    }


def measured(run: Run) -> dict[str, Any]:
    """How long clients waited, and how often they had to ask again."""
    codes: Counter[str] = Counter()
    for one in run.asked:
        codes.update(one.codes)
    return {
        "wait_s": spread([one.waited_s for one in run.asked]),
        "asked_again": sum(one.tries > 1 for one in run.asked),
        "broken": sum(one.broken for one in run.asked),
        "refused": sum(one.refused for one in run.asked),
        "codes": dict(codes),
    }


def chaos(kept_in: Results, chosen: Any) -> dict[str, Any]:
    """The whole run."""
    seconds, every_s = (45.0, 10.0) if chosen.quick else (60.0 * chosen.minutes, chosen.every)
    with ExitStack() as stack:
        folder = stack.enter_context(folder_of_its_own())
        database = stack.enter_context(postgres()) if chosen.postgres else None
        resources = {NODE: 1.0} if chosen.second_node else None
        config = configured(folder, workers=2, ingresses=2, max_batch=1, database=database, resources=resources)
        remove_node: Callable[[], float] | None = None
        if chosen.second_node:
            remove_node = stack.enter_context(two_nodes())
        served = stack.enter_context(serving(config, folder))
        return asyncio.run(whole_run(served, chosen, seconds, every_s, remove_node, kept_in))


async def whole_run(
    served: Served, chosen: Any, seconds: float, every_s: float, remove_node: Callable[[], float] | None, out: Results
) -> dict[str, Any]:
    bodies = requests()
    async with client_of(served.url) as client:
        wanted = await reference(client, bodies)
        best = await capacity(client, bodies, 8, 4.0 if chosen.quick else 30.0)
        told("capacity", pictures_per_s=best)
        turns = ("node",) if chosen.second_node else TURNS
        plan = planned(seconds, every_s, not chosen.second_node, turns)
        run = Run(plan[::3] if chosen.second_node else plan)
        since_s, client.began = time.time(), time.monotonic()
        with suppress(asyncio.CancelledError):
            await disturbed(client, run, SHARE * best, seconds, served, remove_node)
    store = served.store()
    try:
        verdict = await asyncio.to_thread(judged, run, store, wanted, since_s)
    finally:
        store.close()
    return {
        "capacity_per_s": round(best, 3),
        "offered_per_s": round(SHARE * best, 3),
        "seconds": seconds,
        "events": [vars(event) for event in run.events],
        **verdict,
        **measured(run),
        "timeline": [[round(one.began_s, 3), round(one.waited_s, 3), one.tries] for one in run.asked],
    }


def plot(found: Mapping[str, Any], file: Path) -> None:
    """Each request as a dot (when it came, how long it waited), and what was killed when."""
    figure, axes = pyplot().subplots(figsize=(9, 4.2), layout="constrained")
    rows = np.array(found["timeline"], float).reshape(-1, 3)
    for again, colour, label in ((False, "tab:blue", "answered at once"), (True, "tab:orange", "asked again")):
        at = (rows[:, 2] > 1) == again
        axes.scatter(rows[at, 0], np.maximum(rows[at, 1], 1e-2), s=6, color=colour, label=label, linewidths=0)
    for event in found["events"]:
        axes.axvline(event["at_s"], color="gray", linewidth=0.6)
        axes.text(event["at_s"], 1.01, event["what"], rotation=90, va="bottom", ha="center", fontsize=7,
                  color="dimgray", transform=axes.get_xaxis_transform())  # fmt: skip
    lost, wrong = len(found["lost"]), len(found["wrong"])
    axes.set(
        yscale="log",
        xlabel="seconds",
        ylabel="seconds until the picture",
    )
    figure.suptitle(f"{found['accepted']} jobs accepted, {lost} lost, {wrong} wrong; at the lines, what was killed")
    figure.legend(*axes.get_legend_handles_labels(), frameon=False, fontsize=8, loc="outside lower right", ncols=2)
    save(figure, file)


def main(argv: Sequence[str] | None = None) -> None:
    made = command(__doc__)
    made.add_argument("--minutes", type=float, default=10.0, help="how long requests come")
    made.add_argument("--every", type=float, default=20.0, metavar="SECONDS", help="between two kills")
    made.add_argument("--postgres", action="store_true", help="with PostgreSQL in the place of SQLite")
    made.add_argument("--second-node", action="store_true", help="a node of a Ray cluster disappears")
    chosen = made.parse_args(argv)
    name = "chaos" + ("-postgres" if chosen.postgres else "") + ("-node" if chosen.second_node else "")
    with kept(made, chosen, name) as out:
        found = chaos(out, chosen)
        out.keep(found)
        plot(found, out.picture())
    lost, wrong = len(found["lost"]), len(found["wrong"])
    told("accepted", jobs=found["accepted"], lost=lost, wrong=wrong, twice=found["twice"])
    told("requests", n=found["requests"], unanswered=len(found["unanswered"]), asked_again=found["asked_again"],
         codes=found["codes"])  # fmt: skip
    told("seconds until the picture", **found["wait_s"])
    if lost or wrong or any(found[key] for key in ("unanswered", "twice", "without_pictures", "unstored")):
        raise SystemExit("something was lost, wrong, unanswered, not stored, or made twice; the figures have it")


if __name__ == "__main__":
    main()
