"""What the parts of the jobs of a process share."""

from __future__ import annotations

from dataclasses import dataclass

from deployments.jobs.access import StoreAccess
from deployments.jobs.keys import KeyRing
from deployments.jobs.life.open_jobs import OpenJobs
from deployments.jobs.limits import KeyLimits
from deployments.operating.refusals import Refusals
from deployments.orchestration.orchestrator import Orchestrator
from deployments.store.store import Store


@dataclass(frozen=True, slots=True)
class Shared:
    """access: by which `store` is asked off the event loop;   open: the jobs that this process has in hand"""

    orchestrator: Orchestrator
    store: Store
    access: StoreAccess
    keys: KeyRing
    limits: KeyLimits
    refusals: Refusals
    open: OpenJobs
