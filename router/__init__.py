"""Triptych's router: estimates every recipe for a prompt, lets a policy choose, arranges and walks the plan.

No Ray, FastAPI, diffusers or torch in here. The names below are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from router.cost.model import CostModel
    from router.cost.queues import Queues
    from router.planning.execution import execute
    from router.planning.plan import make_plan
    from router.prompts.embedding import MiniLMEmbedder
    from router.quality.predictor import QualityPredictor
    from router.registry.artifact import load_artifact
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
    "CostModel": "cost.model",
    "MiniLMEmbedder": "prompts.embedding",
    "QualityPredictor": "quality.predictor",
    "Queues": "cost.queues",
    "Router": "routing",
    "execute": "planning.execution",
    "load_artifact": "registry.artifact",
    "make_plan": "planning.plan",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'router' has no attribute {name!r}")
    return getattr(importlib.import_module(f"router.{_HOMES[name]}"), name)
