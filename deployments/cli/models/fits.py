"""The command `triptych models fits`: which of the shipped real models fit on a GPU of some size, and how."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from deployments.cli.console import AsJson, err, out, print_json, say
from router.errors import RequestError


def fits(
    gpu: Annotated[
        list[str] | None,
        typer.Option(
            "--gpu", help="Memory of a GPU, 24GB or 24GiB; may be repeated.", show_default="12, 24, 48, 80 GB"
        ),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="As the tables of docs/models-and-gpus.md.")] = False,
    into: Annotated[Path | None, typer.Option(help="With --markdown: put the tables into this file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Which of the shipped real models fit on a GPU of some size, alone, with the cheapest change that suffices.

    Nothing is downloaded: memory is counted from what was published of them.
    """
    if into is not None and not markdown:
        raise RequestError("--into needs --markdown", "into")
    if into is not None and not into.is_file():
        raise RequestError(f"--into {into}: there is no such file", "into")
    from models.fitting import tables
    from models.fitting.gpus import parse_gpu

    gpus = tuple(map(parse_gpu, gpu)) if gpu else tables.usual()
    err.print("counting what the models need", highlight=False)
    if into is not None:
        into.write_text(tables.put_into(into.read_text(encoding="utf-8"), gpus), encoding="utf-8")
        say(f"wrote {into}")
    elif markdown:
        say(tables.markdown(gpus))
    elif as_json:
        print_json(
            {name: {one.name: _plain(fit) for one, fit in zip(gpus, row, strict=True)}
             for name, row in tables.fits(gpus).items()}
        )  # fmt: skip
    else:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("model", no_wrap=True)
        for one in gpus:
            table.add_column(one.name, overflow="fold")
        for name, row in tables.fits(gpus).items():
            table.add_row(name, *(tables.cell(fit).replace("`", "") for fit in row))
        out.print(table)
        say("In brackets: GB that it needs then, for one picture of its native size.")


def _plain(fit: Any) -> dict[str, Any] | None:
    if fit is None:
        return None
    return {"tuning": dict(fit.card.tuning), "needs_gb": fit.total_gb, "max_pixels": fit.pixels,
            "same_pictures": fit.change.same_pictures}  # fmt: skip
