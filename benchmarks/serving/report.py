"""The figures of docs/evidence-serving.md from the raw results, so that no number is typed.

    python -m benchmarks.serving.report [--quick] [--into docs/evidence-serving.md]

What stands between `<!-- NAME -->` and `<!-- /NAME -->` is written anew from `benchmarks/results/serving/NAME.json`. A
script that has not been run says so there. Without `--into` the sections are printed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.command import parser
from benchmarks.serving.rig.figures import RESULTS

Lines = list[str]


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> Lines:
    """A Markdown table."""
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    return lines + [f"| {' | '.join(map(str, row))} |" for row in rows]


def of_spread(found: Mapping[str, float], scale: float = 1.0, digits: int = 2) -> str:
    """`median / 99th percentile / largest`."""
    if not found.get("n"):
        return "none"
    return " / ".join(f"{scale * found[key]:.{digits}f}" for key in ("p50", "p99", "max"))


def of_chaos(found: Mapping[str, Any]) -> Lines:
    minutes, kills = found["seconds"] / 60, [event["what"] for event in found["events"]]
    counts = ", ".join(f"{what} {kills.count(what)}" for what in dict.fromkeys(kills))
    lost, wrong, unanswered = (len(found[key]) for key in ("lost", "wrong", "unanswered"))
    return [
        f"{minutes:.0f} minutes at {found['offered_per_s']:.1f} requests a second, 80 % of what it can. Killed or",
        f"taken away: {counts}. **{found['accepted']} jobs accepted, {lost} lost, {wrong} wrong**,",
        f"{found['twice']} made twice for one key, {found['unstored']} answered that the store does not have,",
        f"{unanswered} requests without an answer. Seconds until the picture (median / 99th percentile / longest):",
        f"{of_spread(found['wait_s'])}; {found['asked_again']} of {found['requests']} clients had to ask again.",
    ]


def of_load(found: Mapping[str, Any]) -> Lines:
    rows = []
    for name, load in found["loads"].items():
        back = f"{load['taken_then']} of {load['came_back']}" if load["came_back"] else "-"
        rows.append((
            name.replace("at_once", f"{load.get('clients', '')} at once"), f"{load['goodput']:.2f}",
            f"{load['of_single']:.0%}", load["refused"], load["without_envelope"], back,
            of_spread(load["refusal_s"], 1000, 0), of_spread(load["readyz_s"], 1000, 0),
        ))  # fmt: skip
    head = ("load", "goodput /s", "of one client's", "refused", "not in the envelope", "taken when they came back",
            "ms of a refusal", "ms of `/readyz`")  # fmt: skip
    rates = {key: found[f"{key}_per_s"] for key in ("pipeline", "one_client", "eight_clients")}
    told = [f"{key.replace('_', ' ')} {rate:.2f}" for key, rate in rates.items()]
    lines = [f"Pictures a second: {', '.join(told)}, or {found['saturated_of_pipeline']:.0%} of the bare pipeline.", ""]
    lines += [*table(head, rows), ""]
    ground = found["floor"]
    lines.append(
        f"A Ray Serve application that refuses everything and does nothing else, asked {ground['rate']:.0f} times a"
        f" second behind the same proxy: {of_spread(ground['refusal_s'], 1000, 0)} ms."
    )
    return lines


def of_tenants(found: Mapping[str, Any]) -> Lines:
    rows = []
    for name, one in found["applications"].items():
        small = one["small_beside_big"]
        shares = [
            f"{before:.0%} → {after:.0%} ({after / before - 1:+.0%})"
            for share in one["greedy"].values()
            for before, after in [[share[key]["modest_share"] for key in ("as_many", "ten_times")]]
        ]
        alone, beside = (f"{1000 * small[key].get('p95', 0.0):.0f}" for key in ("alone_s", "beside_s"))
        rows.append((name, f"{one['eight_clients_per_s']:.1f}", alone, beside, f"{small['p95_ratio']:.1f}", *shares))
    sizes = next(iter(found["applications"].values()))["greedy"]
    shared = (f"share with {size} open, beside as many → ten times as many" for size in sizes)
    head = ("a batch takes", "pictures a second, eight clients", "small alone, ms (95th percentile)", "beside big ones",
            "times", *shared)  # fmt: skip
    return table(head, rows)


def of_overhead(found: Mapping[str, Any]) -> Lines:
    rows = []
    for model, result in found["models"].items():
        for name, way in result["ways"].items():
            added = [
                "-"
                if name == "bare" or way[key] is None
                else "{:.1f} ({:.1f}–{:.1f})".format(way[key], *way[f"{key}_95"])
                for key in ("added_ms", "calm_added_ms")
            ]
            rows.append(
                (model, name, f"{way['wall_ms']:.1f}", *added, f"{way['cpu_ms']:.1f}", f"{way['added_cpu_ms']:.1f}")
            )
    turns = "; ".join(f"{model} {one['calm_turns']} of {one['turns']}" for model, one in found["models"].items())
    told = ["", f"Calm turns: {turns}."]
    without = [] if found["litserve"] else ["", "LitServe was not installed, so it is missing here."]
    names = ("model", "by", "ms a picture", "added ms (95 %)", "in calm turns", "CPU-ms", "added CPU-ms")
    return [*table(names, rows), *told, *without]


def of_exactness(found: Mapping[str, Any]) -> Lines:
    rows = [
        (name, run["arrivals"], run["ingresses"], found["bound"], f"**{run['entered']}**",
         "; ".join(f"{count} × {why}" for why, count in run["refused"].items()), run["without_envelope"])
        for name, run in found["databases"].items()
    ]  # fmt: skip
    return table(("database", "at once", "ingresses", "budget for", "entered", "refused", "not in the envelope"), rows)


def of_bursts(found: Mapping[str, Any]) -> Lines:
    rows = [
        (f"{row['marks']:.3f}", f"{row['blind']:.1%}", f"{row['aware']:.1%}", f"{row['reroute']:.1%}",
         "-" if row["ratio"] is None else f"{row['ratio']:.2f}",
         "-" if row["reroute_of_aware"] is None else f"{row['reroute_of_aware']:.2f}")
        for row in found["at_equal_marks"]
    ]  # fmt: skip
    return table(("marks", "missed, blind", "aware", "aware and `reroute`", "aware / blind", "reroute / aware"), rows)


def of_memory(found: Mapping[str, Any]) -> Lines:
    rows = [
        (kind, f"{figures['early_mib']:.0f}", f"{figures['late_mib']:.0f}", f"{figures['mib_per_1000']:+.1f}")
        for kind, figures in found["growth"].items()
    ]
    said = f"{found['requests']} requests, of which {found['failed']} failed."
    return [said, "", *table(("processes", "MiB, second fifth", "MiB, last fifth", "MiB per 1000 requests"), rows)]


SECTIONS: dict[str, Callable[[Mapping[str, Any]], Lines]] = {
    "chaos": of_chaos,
    "chaos-postgres": of_chaos,
    "chaos-node": of_chaos,
    "load": of_load,
    "tenants": of_tenants,
    "overhead": of_overhead,
    "exactness": of_exactness,
    "bursts": of_bursts,
    "memory": of_memory,
}


def section(name: str, folder: Path = RESULTS) -> str:
    """What is said of the results of a script."""
    file = folder / f"{name}.json"
    if not file.is_file():
        return "*Not measured yet.*"
    found = json.loads(file.read_text(encoding="utf-8"))
    machine = found["about"]["machine"]
    lines = [
        *SECTIONS[name](found),
        "",
        f"*{machine['cores']} cores, {machine['machine']}, Python {machine['python']}.*",
    ]
    if (file.with_suffix(".svg")).is_file():
        lines += ["", f"![{name}](../benchmarks/results/serving/{name}.svg)"]
    return "\n".join(lines)


def put_into(document: str, folder: Path = RESULTS) -> str:
    """The document with all its sections anew."""

    def anew(found: re.Match[str]) -> str:
        name = found["name"]
        return f"<!-- {name} -->\n{section(name, folder)}\n<!-- /{name} -->"

    names = "|".join(SECTIONS)
    return re.sub(rf"<!-- (?P<name>{names}) -->\n.*?<!-- /(?P=name) -->", anew, document, flags=re.DOTALL)


def main(argv: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    made.add_argument("--into", type=Path, metavar="FILE", help="the page to write them into")
    chosen = made.parse_args(argv)
    if chosen.into is None or chosen.quick:
        for name in SECTIONS:
            print(f"## {name}\n\n{section(name, chosen.out or RESULTS)}\n")
    else:
        chosen.into.write_text(
            put_into(chosen.into.read_text(encoding="utf-8"), chosen.out or RESULTS), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
