"""The command `triptych router drift`: whether predictions in force are still right, by recipe and skill."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from deployments.cli.console import AsJson, Config, out, print_json, say
from deployments.settings import DEFAULT_CONFIG, load_serve_config
from router.bootstrap.drift import LEVEL, MARGIN, Cell


def drift(
    file: Annotated[
        Path | None, typer.Argument(help="A store's SQLite file (default: the store of the config).")
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Who found it: scorer:NAME or rating.", show_default="the policy's scorer")
    ] = None,
    level: Annotated[
        float, typer.Option(min=1e-6, max=0.5, help="Probability of telling of any drift while there is none.")
    ] = LEVEL,
    margin: Annotated[float, typer.Option(min=0, max=0.5, help="Mean error (0..1) that is no drift.")] = MARGIN,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Predicted beside found quality over time, by recipe and skill; exit code 1 if it drifted. Valid at every look."""
    from deployments.bootstrap.refreshing import drift_in

    cells = drift_in(load_serve_config(config).settings, file, source, level, margin)
    told = [cell for cell in cells if cell.told is not None]
    if as_json:
        print_json({"drifted": bool(told), "level": level, "margin": margin, "cells": [asdict(one) for one in cells]})
    else:
        out.print(_table(cells))
        say(verdict(told, cells, level, margin))
    if told:
        raise typer.Exit(1)


def verdict(told: list[Cell], cells: list[Cell], level: float, margin: float) -> str:
    """What was found, in a sentence or two."""
    pictures = sum(cell.pictures for cell in cells if not cell.skill)
    if not told:
        return (
            f"no drift is told: on {pictures} pictures, nothing says that predictions are off by more than {margin:g} "
            f"(level {level:g}, valid at every look)"
        )
    names = ", ".join(f"{one.recipe}{f' on {one.skill}' if one.skill else ''} ({one.off[0]:+.2f})" for one in told[:4])
    return (
        f"drifted: {names}{f', and {len(told) - 4} more' if len(told) > 4 else ''} (level {level:g}, valid at every "
        "look); `triptych bootstrap --refresh` measures these anew"
    )


def _table(cells: list[Cell]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("recipe", "skill", "pictures", "predicted → found, oldest first", "lately off by", "drift"):
        table.add_column(heading, justify="right" if heading == "pictures" else "left")
    for cell in cells:
        if cell.skill and cell.told is None:
            continue
        over_time = "  ".join(f"{p:.2f}→{f:.2f}" for _, p, f in cell.windows)
        value, low, high = cell.off
        at = datetime.fromtimestamp(cell.at_s, UTC).strftime("%Y-%m-%d %H:%M") if cell.at_s else ""
        when = f"told at picture {cell.told}, {at}" if cell.told else "-"
        off = f"{value:+.3f} ({low:+.3f} to {high:+.3f})"
        table.add_row(cell.recipe, cell.skill or "all", str(cell.pictures), over_time, off, when)
    return table
