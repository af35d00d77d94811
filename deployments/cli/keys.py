"""`triptych keys`: make, list and revoke the keys of a server, in its store."""

from __future__ import annotations

import re
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from deployments.cli.console import AsJson, Config, err, out, print_json, say
from deployments.jobs.keys import CLASSES, SCOPES, hash_of, new_key, new_key_id
from deployments.settings import DEFAULT_CONFIG, load_serve_config
from deployments.store.records import KeyRecord
from router.errors import RequestError

keys_app = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)

WINDOWS_S = {"minute": 60.0, "hour": 3600.0, "day": 86_400.0, "week": 604_800.0, "month": 2_592_000.0}
_BUDGET = re.compile(r"(\d+(?:\.\d+)?) ?usd ?(?:/|per) ?(?:(\d+) ?)?([a-z]+?)s?")


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
    if not tenant.strip() or len(tenant) > 256:
        raise RequestError("--tenant: it has 1 to 256 characters", "tenant")
    scopes = tuple(dict.fromkeys(scope or ("generate", "feedback")))
    for one in scopes:
        if one not in SCOPES:
            raise RequestError(f"--scope {one}: it is one of {', '.join(SCOPES)}", "scope")
    if priority not in CLASSES:
        raise RequestError(f"--priority {priority}: it is one of {', '.join(CLASSES)}", "priority")
    key = new_key()
    record = KeyRecord(
        new_key_id(), hash_of(key), tenant, name, scopes, rpm, budget_of(budget), priority, created_at=time.time()
    )
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


def budget_of(text: str | None) -> dict[str, float] | None:
    """`5usd/day`, `0.5usd/hour`, `20usd/30days`. Raises `RequestError`."""
    if text is None:
        return None
    found = _BUDGET.fullmatch(text.strip().lower())
    if found is None or found[3] not in WINDOWS_S or float(found[1]) <= 0 or found[2] == "0":
        raise RequestError(f"--budget {text}: write it as 5usd/day; windows are {', '.join(WINDOWS_S)}", "budget")
    return {"cost_usd": float(found[1]), "window_s": WINDOWS_S[found[3]] * int(found[2] or 1)}


def _store(config: Path) -> Any:
    from deployments.store import open_store

    return open_store(load_serve_config(config).settings.store)


def _shown(record: KeyRecord) -> dict[str, Any]:
    """Everything but the hash."""
    told = asdict(record)
    del told["hash"]
    return {**told, "scopes": list(record.scopes)}
