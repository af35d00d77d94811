"""Tables for a terminal: decisions, outcomes, the catalogue. They read the same reports as go over the wire."""

from __future__ import annotations

import math
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.padding import Padding
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from deployments.operating.differences import Difference
from deployments.settings import ROOT
from deployments.store.records import KeyRecord
from router.learning.off_policy import Comparison
from router.planning.styles import wearable
from router.types import ModelCard


def decision(report: Mapping[str, Any]) -> Group:
    """What was estimated for every recipe, what became of it, and why. `report` is an `x_triptych` object."""
    table = Table(title=None, box=None, pad_edge=False, header_style="bold")
    waits = any(estimate["queue_s"] >= 0.005 for estimate in report["estimates"].values())
    table.add_column("recipe", overflow="fold")
    for heading in ("quality", "basis", "work", *(["wait"] if waits else []), "latency", "cost"):
        table.add_column(heading, justify="left" if heading == "basis" else "right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for name in recipes_in_order(report):
        cells = _estimate_cells(report["estimates"].get(name), waits)
        table.add_row(name, *cells, verdict(name, report), style=_style(name, report))
    head = Text(f"{report['recipe']}", style="bold green") + Text(f"  by policy {report['policy']}")
    said = [Text(warning, style="yellow") for warning in report["warnings"]]
    said += [Text(reason) for reason in report["reasons"]]
    said += [Text(f"plan: {note}", style="dim") for note in report["plan"]["notes"]]
    return Group(
        head,
        *(Padding(line, (0, 0, 0, 2)) for line in said),
        Text(),
        table,
        *reasons_out(report),
        Text(),
        signals(report),
    )


def reasons_out(report: Mapping[str, Any]) -> list[Text]:
    """Why recipes are out, each reason once with all that it rules out; nothing for those that were not asked for."""
    found: dict[tuple[str, str], list[str]] = {}
    for entry in report["rejected"]:
        if entry["gate"] != "pinned":
            found.setdefault((entry["gate"], entry["reason"]), []).append(entry["recipe"])
    lines = [Text(f"out ({gate}): {', '.join(names)}: {reason}") for (gate, reason), names in found.items()]
    return [Text(), *lines] if lines else []


def recipes_in_order(report: Mapping[str, Any]) -> list[str]:
    """Ranked recipes first, best to worst, then the rejected."""
    ranked = [entry["recipe"] for entry in report["ranking"]]
    return ranked + [entry["recipe"] for entry in report["rejected"] if entry["recipe"] not in ranked]


def verdict(name: str, report: Mapping[str, Any]) -> str:
    """`chosen`, the utility of a recipe that was ranked, or the gate at which it was out."""
    if name == report["recipe"]:
        return "chosen"
    for entry in report["rejected"]:
        if entry["recipe"] == name and entry["gate"] == "pinned":
            return "not the one asked for"
        if entry["recipe"] == name:
            return f"out ({entry['gate']})"
    utility = next(entry["utility"] for entry in report["ranking"] if entry["recipe"] == name)
    # Under an objective of dollars all of them are millionths.
    return f"utility {utility:.3f}" if abs(utility) >= 0.001 else f"utility {utility:.2g}"


def signals(report: Mapping[str, Any]) -> Text:
    """The skills that the prompt asks for, strongest first, and whether it lies in the predictor's range."""
    strong = sorted(report["signals"].items(), key=lambda item: -item[1])
    words = ", ".join(f"{name.replace('_', ' ')} {value:.2f}" for name, value in strong if value > 0) or "none"
    near = report.get("familiarity")
    reach = "" if near is None else f"; in the predictor's range: {near:.2f}"
    return Text(f"skills asked for: {words}{reach}", style="dim")


def steps(report: Mapping[str, Any]) -> Table:
    """The steps as they ran, a block for each picture."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("picture", "step", "model", "seed", "started", "ended", "seconds", "revision"):
        justify = "right" if heading in ("started", "ended", "seconds") else "left"
        table.add_column(heading, justify=justify, no_wrap=heading != "revision")  # type: ignore[arg-type]
    for number, picture in enumerate(report["pictures"], start=1):
        for step in picture["steps"]:
            table.add_row(
                str(number),
                step["id"],
                step["model"] or "-",
                "-" if step["seed"] is None else str(step["seed"]),
                f"{step['started_s']:.2f} s",
                f"{step['ended_s']:.2f} s",
                f"{step['seconds']:.3f} s",
                str(step["facts"].get("revision") or "-"),
            )
    return table


def evaluation(report: Mapping[str, Any]) -> list[Table]:
    """Figures of each column, then of each pair of models, one table each."""
    columns = Table(title=None, box=None, pad_edge=False, header_style="bold")
    for heading in ("model", "prompts", "Pearson", "95 %", "Spearman", "coverage of 90 %"):
        columns.add_column(heading, justify="left" if heading == "model" else "right")
    for name, r in report["columns"].items():
        inside = f"{r['coverage']:.3f}" if "coverage" in r else ""
        columns.add_row(
            name, str(r["prompts"]), _figure(r["pearson"]), _interval(r["pearson_95"]), _figure(r["spearman"]), inside,
        )  # fmt: skip
    columns.caption = _noise(report.get("noise") or {})
    tables = [columns]
    for pair, r in report["pairs"].items():
        table = Table(title=f"{pair}, {r['prompts']} prompts", box=None, pad_edge=False, header_style="bold")
        for heading in (
            "routing by",
            "APGR",
            "95 %",
            "expensive calls for 50, 80, 95 % of the gap",
            "AIQ",
            "of oracle",
        ):
            table.add_column(heading, justify="left" if heading == "routing by" else "right")
        chance = r["random"]
        calls = ", ".join(f"{share:.2f}" for share in chance["calls_at"])
        for name, share, score in zip(("always cheapest", "always best"), ("0", "1"), r["ends"], strict=True):
            table.add_row(name, "", "", f"closes {share} of the gap", f"{score:.3f}", "")
        table.add_row("random mixing", f"{chance['apgr']:.3f}", "", calls, f"{chance['aiq']:.3f}", "0.00")
        for name, q in r["rankings"].items():
            calls = ", ".join(_figure(share, 2) for share in q["calls_at"])
            table.add_row(
                name,
                _figure(q["apgr"]),
                _interval(q["apgr_95"]),
                calls,
                _figure(q["aiq"]),
                _figure(q["of_oracle"], 2),
            )
        if (apart := r.get("oracle_apart")) is not None:
            room = f"oracle, judged by other pictures or raters ({apart['prompts']} prompts)"
            table.add_row(room, _figure(apart["apgr"]), _interval(apart["apgr_95"]), "", "", "")
        note = f"{r['note']}\n" if r.get("note") else ""
        table.caption = (
            f"{note}the expensive picture is rated higher: Brier {r['brier']:.3f} "
            f"(constant {r['brier_constant']:.3f}), ECE {r['ece']:.3f}"
        )
        tables.append(table)
    return tables


def _noise(found: Mapping[str, Any]) -> str | None:
    """How far one picture, or one person, tells of another."""
    said = [
        f"{what} have an intraclass correlation of {found[key]:.2f} ({found[count]} {of})"
        for what, key, count, of in (
            ("pictures of one prompt and model", "pictures", "cells", "such groups"),
            ("ratings of one picture", "raters", "rated", "pictures"),
        )
        if found.get(key) is not None
    ]
    return "; ".join(said) or None


def keys(records: Sequence[KeyRecord]) -> Table:
    """API keys, one a line, without the keys themselves."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("id", "tenant", "name", "scopes", "rpm", "budget", "up to", "made", "revoked"):
        table.add_column(heading, justify="right" if heading == "rpm" else "left", overflow="fold")
    for one in records:
        budget = "-" if one.budget is None else f"{one.budget['cost_usd']:g} USD in {one.budget['window_s']:g} s"
        rpm = "-" if one.rpm is None else str(one.rpm)
        made, revoked = _day(one.created_at), "-" if one.revoked_at is None else _day(one.revoked_at)
        scopes = ", ".join(one.scopes)
        table.add_row(one.id, one.tenant, one.name or "-", scopes, rpm, budget, one.priority, made, revoked)
    return table


def _day(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M")


def models(cards: Sequence[ModelCard]) -> Group:
    """The catalogue, one card a line, and below it where the weights come from; `--json` has everything else."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("id", "role", "family", "size", "steps", "guidance", "memory"):
        right = heading in ("steps", "guidance", "memory")
        table.add_column(heading, justify="right" if right else "left", no_wrap=True)
    table.add_column("licence", overflow="fold")
    weights = Table(box=None, pad_edge=False, show_header=False)
    weights.add_column(no_wrap=True)
    weights.add_column(overflow="fold")
    for card in cards:
        source = next(
            (str(card.source[key]) for key in ("hub", "local", "file", "onnx", "remote") if card.source.get(key)), "-"
        )
        sampled = card.role != "scorer"
        table.add_row(
            card.id,
            card.role,
            card.family,
            f"{card.native_size[0]}x{card.native_size[1]}" if sampled else "-",
            str(card.steps) if sampled else "-",
            f"{card.guidance_scale:g}" if sampled else "-",
            f"{card.memory_gb:g} GB",
            card.licence + (" (gated)" if card.gated else ""),
        )
        beside = f"  (with {', '.join(card.guests)} beside it)" if card.guests else ""
        weights.add_row(card.id, source.removeprefix(f"{ROOT}/") + beside)
    parts: list[Any] = [table, Text(), Text("weights", style="bold"), weights]
    if any(worn_by(card) for card in cards):
        parts += [Text(), _styles(cards)]
    return Group(*parts)


def worn_by(card: ModelCard) -> list[str]:
    """Ids of the styles that a model can wear."""
    return [style.id for style in card.styles.values() if wearable(style, card)]


def _styles(cards: Sequence[ModelCard]) -> Table:
    """The styles that a model of the catalogue can wear, one a line."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("style", "kind", "weights", "worn by"):
        table.add_column(heading, no_wrap=True)
    table.add_column("licence", overflow="fold")
    for style in {name: style for card in cards for name, style in card.styles.items()}.values():
        if wearers := [card.id for card in cards if wearable(style, card)]:
            weights = f"{style.least:g}..{style.most:g}" if style.blends else "0 or 1"
            table.add_row(style.id, style.kind, weights, ", ".join(wearers), style.licence)
    return table


def comparison(found: Sequence[Difference]) -> Table:
    """The prompts whose recipe changes between two policies."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("prompt", overflow="fold")
    for heading in ("before", "after", "quality", "cost", "latency"):
        table.add_column(heading, justify="left" if heading in ("before", "after") else "right")
    for entry in (entry for entry in found if entry.changes):
        before, after = entry.before, entry.after
        changes = ["-", "-", "-"]
        if before and after:
            changes = [
                f"{after.quality.mean - before.quality.mean:+.2f}",
                f"{after.cost_usd - before.cost_usd:+.2g} USD",
                f"{after.latency_s - before.latency_s:+.2f} s",
            ]
        table.add_row(entry.prompt, *(e.recipe if e else "refused" for e in (before, after)), *changes)
    return table


def summary(totals: Mapping[str, Any]) -> Text:
    """How many change, and what that does on average."""
    means = ", ".join(
        f"{name} {totals[key]['before']:.3g} → {totals[key]['after']:.3g} {unit}".rstrip()
        for name, key, unit in (("quality", "quality", ""), ("cost", "cost_usd", "USD"), ("latency", "latency_s", "s"))
    )
    refused = f"; refused: {totals['refused_before']} before, {totals['refused_after']} after"
    return Text(f"{totals['changed']} of {totals['prompts']} prompts change; expected on average: {means}{refused}")


def off_policy(found: Comparison) -> Group:
    """What each estimator says that two predictors earn under one policy."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("estimator")
    for heading in ("before", "after", "difference", "95 % interval"):
        table.add_column(heading, justify="right")
    for name, e in found.estimates.items():
        low, high = e.difference_interval
        values = (f"{e.before:.4f}", f"{e.after:.4f}", f"{e.difference:+.4f}", f"{low:+.4f} to {high:+.4f}")
        table.add_row(name, *values)
    effective = " and ".join(f"{size:.0f}" for size in found.effective)
    words = (
        f"{found.decisions} rated decisions on {found.groups} prompts, {found.by_chance} with a propensity below 1. "
        f"The candidate would decide {found.otherwise} otherwise; in {found.evidence} of those its choice was taken. "
        f"Effective decisions before and after: {effective}; weights cut: {found.clipped}. "
        f"Valid at every look, the difference is {found.always[0]:+.4f} to {found.always[1]:+.4f} (95 %); "
        f"{found.unsupported} decisions differ on what could not have been taken, and count as none"
    )
    return Group(table, Text(""), Text(words))


def log(report: Mapping[str, Any]) -> Table:
    """What the log of decisions holds."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in report.items():
        entries = ", ".join(f"{key}: {count}" for key, count in value.items()) if isinstance(value, Mapping) else value
        table.add_row(name.replace("_", " "), "none" if entries in (None, "") else str(entries))
    return table


@contextmanager
def deploying(console: Console) -> Iterator[Callable[[Mapping[str, str]], None]]:
    """A bar that counts the deployments that are up; yields what to call with `{deployment: status}`."""
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting Ray", total=None)

        def on_change(statuses: Mapping[str, str]) -> None:
            waiting = [name for name, status in statuses.items() if status != "HEALTHY"]
            label = f"loading {', '.join(waiting)}" if waiting else "ready"
            bar.update(task, description=label, completed=len(statuses) - len(waiting), total=len(statuses) or None)

        yield on_change


def welcome(url: str, metrics: str = "", logs: str = "") -> str:
    """What a person sees when the application is ready. metrics: their URL;   logs: their folder"""
    where = [*([f"metrics at {metrics}"] if metrics else []), *([f"logs in {logs}"] if logs else [])]
    there = f"\nWhat it does: {', '.join(where)}\n" if where else ""
    body = '{"prompt": "a red circle above a blue square", "seed": 1}'
    picture = 'json.load(sys.stdin)["data"][0]["b64_json"]'
    save = f'import sys,json,base64;open("circle.png","wb").write(base64.b64decode({picture}))'
    return f"""
Triptych is ready. Open {url} in a browser.

A picture, circle.png, from another terminal:
  {called()} generate "a red circle above a blue square" -o circle.png --seed 1 --url {url}

The same without this command:
  curl -s {url}/v1/images/generations -H 'content-type: application/json' -d '{body}' | python3 -c '{save}'

Why a recipe would be chosen, without running it:
  {called()} route "two green stars above a blue ring" --url {url}
{there}
Ctrl-C stops it."""


def called() -> str:
    """How this command is called from any folder, as it was called now."""
    program = Path(sys.argv[0])
    if program.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m deployments.cli"
    found = shutil.which(program.name)
    same = found is not None and program.exists() and Path(found).samefile(program)
    return program.name if same else shlex.quote(str(program.absolute()))


def show(console: Console, *parts: Any) -> None:
    """Print parts with an empty line between."""
    for index, part in enumerate(parts):
        if index:
            console.print()
        console.print(part, highlight=False)


def _figure(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "-"


def _interval(ends: Sequence[float]) -> str:
    return f"[{ends[0]:.3f}, {ends[1]:.3f}]" if all(map(math.isfinite, ends)) else "-"


def _estimate_cells(estimate: Mapping[str, Any] | None, waits: bool) -> tuple[str, ...]:
    if estimate is None:
        return ("-",) * (6 if waits else 5)
    quality = estimate["quality"]
    return (
        f"{quality['mean']:.2f} ± {quality['std']:.2f}",
        quality["basis"],
        f"{estimate['work_s']:.2f} s",
        *((f"{estimate['queue_s']:.2f} s",) if waits else ()),
        f"{estimate['latency_s']:.2f} s",
        f"${estimate['cost_usd']:.2g}",
    )


def _style(name: str, report: Mapping[str, Any]) -> str:
    if name == report["recipe"]:
        return "green"
    return "dim" if any(entry["recipe"] == name for entry in report["rejected"]) else ""
