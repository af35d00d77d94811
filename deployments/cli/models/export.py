"""The command `triptych models export`: a model as ONNX graphs, for `source: {onnx: folder}`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from deployments.cli.console import AsJson, Config, err, out, print_json, say
from deployments.settings import DEFAULT_CONFIG, load_serve_config
from router.errors import RequestError, did_you_mean

if TYPE_CHECKING:
    from models.exporting.export import Exported

MOST_OPERATORS = 5


def export(
    model: Annotated[str, typer.Argument(help="A model of the config, by its id.")],
    to: Annotated[Path, typer.Option(help="A new folder.")],
    precision: Annotated[str, typer.Option(help="fp32, fp16 or int8.")] = "fp32",
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Write a model as ONNX graphs: text encoders, network, both halves of the VAE; each is compared with torch.

    Open them in https://netron.app, run them with `source: {onnx: folder}`.
    """
    from deployments.assembly import catalogue_of
    from models.exporting.export import export as write

    settings = load_serve_config(config).settings
    catalogue = catalogue_of(settings)
    if model not in catalogue:
        raise RequestError(f"the config has no model {model!r}{did_you_mean(model, catalogue.ids())}", "model")
    card = catalogue[model]
    made = write(card, to, precision, lambda part: err.print(f"exporting {part}"))
    if as_json:
        graphs = [{**asdict(one), "nodes": one.statistics.nodes} for one in made]
        print_json({"model": model, "folder": str(to), "precision": precision, "graphs": graphs})
        return
    _show(made)
    say(f"wrote {to}; to run it, put into the serve config:")
    entry = f"{{card: {card.card_path or model}, overrides: {{source: {{onnx: {to.absolute()}}}}}}}"
    out.print(f"  {model}: {entry}", markup=False, highlight=False, soft_wrap=True)


def _show(made: Sequence[Exported]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("graph", no_wrap=True)
    for heading in ("nodes", "parameters", "MB", "off torch by"):
        table.add_column(heading, justify="right")
    table.add_column("most frequent operators", overflow="fold")
    for one in made:
        found = one.statistics
        most = ", ".join(f"{name} {count}" for name, count in list(found.operators.items())[:MOST_OPERATORS])
        table.add_row(
            one.part, str(found.nodes), f"{found.parameters:,}", f"{found.megabytes:.1f}", f"{one.apart:.1e}", most
        )
    out.print(table)
