"""What the parts pass on cannot be changed by whoever gets it."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil

from pydantic import BaseModel

FLOORS = ("router.types", "router.planning", "router.cost", "router.verification", "router.learning",
          "router.learning.tables", "policies.deciding", "policies.store", "deployments.orchestration",
          "deployments.api", "deployments.api.wire", "deployments.jobs", "deployments.store")  # fmt: skip
WORKED_ON = {
    "router.planning.plan._Draft",
    "router.verification.best_of_n._Path",
    "policies.deciding.gates.Gates",
    "deployments.orchestration.budgets._Entry",
    "deployments.orchestration.budgets._Account",
    "deployments.orchestration.budgets.Charge",
    "deployments.orchestration.verifier.Verifier",
    "deployments.orchestration.breaker._Circuit",
    "router.cost.order._Flow",
    "router.cost.order._Waiting",
    "deployments.orchestration.step_queues._Batch",
    "deployments.orchestration.step_queues._Entry",
    "deployments.orchestration.step_queues._Line",
    "deployments.orchestration.rerouting._Waiting",
    "deployments.jobs.webhooks.Webhooks",
}
"""What is changed by the one function that it belongs to, and passed to nobody who would not expect that."""


def test_bodies_are_frozen_and_know_no_infinity() -> None:
    """What a client sent is not changed on the way, and none of its numbers is infinite or none at all."""
    loose = {
        f"{module.__name__}.{name}"
        for found in pkgutil.iter_modules(importlib.import_module("deployments.api.wire").__path__)
        for module in [importlib.import_module(f"deployments.api.wire.{found.name}")]
        for name, kind in vars(module).items()
        if isinstance(kind, type) and issubclass(kind, BaseModel) and kind.__module__ == module.__name__
        if kind.model_config.get("extra") == "forbid"  # the others are answers
        if not kind.model_config.get("frozen") or kind.model_config.get("allow_inf_nan", True)
    }
    assert loose == set()


def test_values_are_frozen() -> None:
    """Every dataclass that parts pass to one another is frozen, but for those that are worked on in one place."""
    loose = {
        f"{module.__name__}.{name}"
        for floor in FLOORS
        for found in pkgutil.iter_modules(importlib.import_module(floor).__path__)
        for module in [importlib.import_module(f"{floor}.{found.name}")]
        for name, kind in vars(module).items()
        if isinstance(kind, type) and kind.__module__ == module.__name__ and dataclasses.is_dataclass(kind)
        if not kind.__dataclass_params__.frozen
    }
    assert loose <= WORKED_ON
