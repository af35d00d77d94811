"""The command `triptych models download`: the weights of a config's models, exactly the files that are read."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.table import Table

from deployments.cli.console import AsJson, Config, complain, err, out, print_json, say
from deployments.settings import DEFAULT_CONFIG, load_serve_config
from router.errors import LoadError, RequestError, did_you_mean


def download(
    models: Annotated[list[str] | None, typer.Argument(help="Models of the config, by id (default: all).")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be fetched.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Compare also what is here with its digests.")] = False,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Fetch weights from the hub into its cache: the variant of the card, no file that is not read, digests compared.

    What broke off goes on where it was. A gated model needs HF_TOKEN of an account that accepted its terms.
    """
    from deployments.assembly import catalogue_of
    from models.download import Hub, here_already

    catalogue = catalogue_of(load_serve_config(config).settings)
    names = models or list(catalogue.ids())
    for name in names:
        if name not in catalogue:
            raise RequestError(f"the config has no model {name!r}{did_you_mean(name, catalogue.ids())}", "models")
    if as_json or not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    hub, rows, failed = Hub(), [], []
    for name in names:
        card = catalogue[name]
        if reason := here_already(card):
            rows.append({"model": name, "skipped": reason})
            continue
        try:
            rows.append(_one(card, hub, dry_run, check))
        except LoadError as error:  # the others may be had
            rows.append({"model": name, "failed": error.message})
            failed.append(error)
    if as_json:
        print_json({"cache": str(hub.cache), "models": rows})
    else:
        _show(rows, dry_run, str(hub.cache))
    if failed and as_json:
        raise typer.Exit(4)
    if failed:
        for another in failed[1:]:
            complain(f"triptych: {another.message}")
        raise failed[0]


def _one(card: Any, hub: Any, dry_run: bool, check: bool) -> dict[str, Any]:
    from models.download import Wanted, files_of
    from models.download import download as fetched

    files = files_of(card, hub)
    absent = [one for one in files if hub.here(one) is None]
    row = {
        "model": card.id,
        "from": sorted({f"{one.repo}@{one.commit}" for one in files}),
        "files": len(files),
        "bytes": sum(one.size for one in files),
        "to_fetch": sum(one.size for one in absent),
        "pinned": card.revision != "unpinned",
        "licence": card.licence,
        "paths": [one.path for one in files],
    }
    if dry_run:
        return row
    left = iter(range(1, len(absent) + 1))

    def told(one: Wanted) -> None:
        line = f"{card.id}: {next(left)} of {len(absent)}: {one.path}, {one.size / 1e9:.2f} GB"
        err.print(line, highlight=False, markup=False, soft_wrap=True)

    made = fetched(files, hub, card, check, told)
    return {**row, "fetched": sum(one.fresh for one in made)}


def _show(rows: Sequence[dict[str, Any]], dry_run: bool, cache: str) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("model", no_wrap=True)
    for heading in ("files", "GB", "to fetch" if dry_run else "fetched"):
        table.add_column(heading, justify="right")
    table.add_column("from", overflow="fold")
    for row in rows:
        if "files" not in row:
            table.add_row(row["model"], "", "", "", row.get("skipped") or "failed, see below")
            continue
        took = f"{row['to_fetch'] / 1e9:.1f} GB" if dry_run else f"{row['fetched']} files"
        table.add_row(row["model"], str(row["files"]), f"{row['bytes'] / 1e9:.1f}", took, ", ".join(row["from"]))
    out.print(table)
    say(f"\n{'They would be' if dry_run else 'They are'} in {cache}")
    for row in rows:
        if row.get("pinned") is False:
            commit = row["from"][0].partition("@")[2]
            say(f"{row['model']} is not pinned: write `revision: {commit}` into its source to serve these weights only")
