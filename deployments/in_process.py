"""The whole flow in one plain process, without Ray: for the command line, for Python users and for tests.

orchestrator = build_local(load_serve_config(DEFAULT_CONFIG).settings)
outcome = await orchestrator.generate(GenerationRequest("a red circle", seed=1))
"""

from __future__ import annotations

from collections.abc import Mapping

from deployments.assembly import build_orchestrator, catalogue_of, held_by, host_of
from deployments.orchestration.orchestrator import Orchestrator
from deployments.settings import AppSettings
from deployments.workers.host import ModelHost
from deployments.workers.worker import WorkerStatus


class LocalWorkers:
    """The workers of the settings in this process; weights load when a step first needs them. A `Monitor`, too."""

    def __init__(self, settings: AppSettings) -> None:
        catalogue = catalogue_of(settings)
        self.by_model: dict[str, ModelHost] = {}
        for worker, placed in settings.workers.items():
            host = host_of(held_by(worker, settings, catalogue), placed, lambda card: {"revision": card.revision})
            self.by_model |= dict.fromkeys(host.workers, host)

    async def statuses(self) -> Mapping[str, WorkerStatus]:
        """A model that was not needed yet counts as ready: it loads on demand."""
        statuses = {model: s for host in set(self.by_model.values()) for model, s in host.statuses().items()}
        return {m: WorkerStatus(m, "ready", "", s.facts) if s.state == "starting" else s for m, s in statuses.items()}


def build_local(settings: AppSettings) -> Orchestrator:
    """An orchestrator whose workers live in this process."""
    workers = LocalWorkers(settings)
    return build_orchestrator(settings, workers.by_model, workers)
