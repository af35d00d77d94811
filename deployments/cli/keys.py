"""`triptych keys`: make, list and revoke the keys of a server, in its store."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from deployments.cli.console import AsJson, Config, err, out, print_json, say
from deployments.jobs.keys import CLASSES, SCOPES, made_key
from deployments.settings import DEFAULT_CONFIG, load_serve_config
from deployments.store.records import KeyRecord

keys_app = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)


@keys_app.command("create")
def create(
    tenant: Annotated[str, typer.Option(help="Whose budgets, share and jobs it is about.")],
    name: Annotated[str, typer.Option(help="For people, such as where it is used.")] = "",
    scope: Annotated[
        list[str] | None, typer.Option(help=f"{', '.join(SCOPES)}; may be repeated.", show_default="generate, feedback")
    ] = None,
    rpm: Annotated[int | None, typer.Option(min=1, help="Requests a minute.", show_default="no limit")] = None,
    budget: Annotated[str | None, typer.Option(help="Such as 5usd/day.", show_default="no limit")] = None,
    priority: Annotated[str, typer.Option(help=f"The highest class it may ask for: {', '.join(CLASSES)}.")] = (
        "interactive"
    ),
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Make a key and show it, once: the store only has its hash. Running servers know it within seconds."""
    key, record = made_key(tenant, name, scope or None, rpm, budget, priority)
    _store(config).add_key(record)
    if as_json:
        print_json({"key": key, **_shown(record)})
        return
    say(key)
    err.print(f"This is {record.id}, of {tenant}. It is shown this once; keep it now.", highlight=False)


@keys_app.command("list")
def list_keys(config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Every key, without the key itself."""
    from deployments.cli import tables as render

    records = _store(config).keys()
    if as_json:
        print_json([_shown(record) for record in records])
    elif not records:
        say("There are no keys. `triptych keys create --tenant NAME` makes one; from then on all requests need one.")
    else:
        render.show(out, render.keys(records))


@keys_app.command("revoke")
def revoke(
    id: Annotated[str, typer.Argument(help="As `keys list` shows it, such as key_0123456789ab.")],
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """End a key. Running servers know it within seconds."""
    record = _store(config).revoke_key(id)
    if as_json:
        print_json(_shown(record))
    else:
        say(f"{record.id}, of {record.tenant}, is revoked")


@keys_app.command("webhook-secret")
def webhook_secret(
    tenant: Annotated[str, typer.Option(help="Whose jobs the receiver is told of.")] = "",
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Show what webhooks to a tenant are signed with, for the receiver."""
    from deployments import assembly
    from deployments.jobs.webhooks import secret_of, shown

    master = assembly.webhook_secret(load_serve_config(config).settings)()
    say(shown(secret_of(master, tenant)))


def _store(config: Path) -> Any:
    from deployments.store import open_store

    return open_store(load_serve_config(config).settings.store)


def _shown(record: KeyRecord) -> dict[str, Any]:
    """Everything but the hash."""
    told = asdict(record)
    del told["hash"]
    return {**told, "scopes": list(record.scopes)}
