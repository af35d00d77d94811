"""Triptych's router: estimates every recipe for a prompt, lets a policy choose, arranges and walks the plan.

No Ray, FastAPI, diffusers or torch in here. The names below are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from router.artifact import load_artifact
    from router.costs import CostModel
    from router.embedding import MiniLMEmbedder
    from router.execution import execute
    from router.planning import make_plan
    from router.predictors import QualityPredictor
    from router.queues import Queues
    from router.routing import Router

__all__ = [
    "CostModel",
    "MiniLMEmbedder",
    "QualityPredictor",
    "Queues",
    "Router",
    "execute",
    "load_artifact",
    "make_plan",
]

_HOMES = {
    "CostModel": "costs",
    "MiniLMEmbedder": "embedding",
    "QualityPredictor": "predictors",
    "Queues": "queues",
    "Router": "routing",
    "execute": "execution",
    "load_artifact": "artifact",
    "make_plan": "planning",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'router' has no attribute {name!r}")
    return getattr(importlib.import_module(f"router.{_HOMES[name]}"), name)
