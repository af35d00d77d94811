"""The application over workers that take no time and a real store, as several tests need it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from deployments.api.app import create_app
from deployments.api.keys import Gate
from deployments.api.service import Service
from deployments.assembly import jobs_in
from deployments.jobs.jobs import Jobs
from deployments.jobs.keys import hash_of, new_key, new_key_id
from deployments.settings import AppSettings, StoreSettings
from deployments.store import Store, open_store
from deployments.store.records import KeyRecord
from tests.deployments.support.scripted import Script, scripted, store_in

POLICY = "recipes: {draft: {generate: {model: sd15}}}\nobjective: {minimise: cost_usd}\n"
JOBS, GENERATE = "/v1/jobs", "/v1/images/generations"
BODY = {"prompt": "a red circle", "seed": 7}


@dataclass
class Served:
    """A running application. app: ASGI;   script: its workers;   http: a client of it"""

    app: Any
    store: Store
    jobs: Jobs
    script: Script
    http: httpx.AsyncClient
    service: Service
    folder: Path
    settings: AppSettings

    def key(self, tenant: str = "acme", **fields: Any) -> dict[str, str]:
        """The header of a new key."""
        key = new_key()
        self.store.add_key(KeyRecord(new_key_id(), hash_of(key), tenant, **fields))
        return {"authorization": f"Bearer {key}"}

    async def done(self, id: str) -> dict[str, Any]:
        """A job once it has ended and is in the store, as who has no key sees it."""
        return await self.done_as(id, {})

    async def done_as(self, id: str, header: Mapping[str, str]) -> dict[str, Any]:
        """The same, as the owner of a key sees it."""
        for _ in range(500):
            if (record := self.store.job(id)) is not None and not record.open:
                return (await self.http.get(f"{JOBS}/{id}", headers=header)).json()
            await asyncio.sleep(0.01)
        raise AssertionError(f"job {id} did not end")


@asynccontextmanager
async def served(
    settings: AppSettings,
    folder: Path,
    script: Script | None = None,
    gate: Gate | None = None,
    policy: str = POLICY,
    change: Callable[[Jobs], None] = lambda _: None,
    ping_s: float = 15.0,
    **sections: Any,
) -> AsyncIterator[Served]:
    """sections: of the settings, in place of theirs;   change: the jobs before anything is asked"""
    settings = settings.model_copy(update={"store": StoreSettings(**store_in(folder / "state")), **sections})
    policies = folder / "policies"
    policies.mkdir(exist_ok=True)
    script = script or Script({})
    orchestrator, _ = scripted(settings, policies, script, {"main": policy})
    store = open_store(settings.store)
    jobs = jobs_in(store, settings, orchestrator)
    change(jobs)
    service = Service(jobs, settings.limits, settings.urls, settings.webhooks)
    app = create_app(service, settings.limits, gate=gate or Gate("auto", True), ping_s=ping_s)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://triptych", timeout=30) as http:
        yield Served(app, store, jobs, script, http, service, folder, settings)
    await jobs.stop()
    store.close()
