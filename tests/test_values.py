"""What the parts pass on cannot be changed by whoever gets it."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydantic import BaseModel

FLOORS = ("router.types", "router.planning", "router.cost", "router.verification", "router.learning",
          "policies.deciding", "policies.store", "deployments.orchestration",
          "deployments.api", "deployments.jobs", "deployments.store")  # fmt: skip
WORKED_ON = {
    "router.planning.arranging.draft.Draft",
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
    "deployments.api.edge.throttle._Client",
    "deployments.jobs.webhooks.Webhooks",
}
"""What is changed by the one function that it belongs to, and passed to nobody who would not expect that."""


SAID = {
    "policies.deciding.chance.Taken.propensity": 1.0,  # nothing was left to chance
    "router.learning.feedback.DecisionRecord.degradable": True,
    "router.learning.feedback.Retention.max_age_s": float("inf"),
    "router.learning.feedback.Retention.max_rows": 1_000_000,
    "router.learning.off_policy.LoggedChoices.span": 1.0,
    "router.learning.tables.rating.Rating.weight": 1.0,  # one person said so
    "router.learning.tables.table.Table.line": 1,
    "router.learning.tables.votes.Vote.weight": 1.0,
    "router.verification.score_reading.ScoreReading.strength": 2.0,
    # As AUTOMATIC1111 has them.
    "deployments.api.compat.img2img.Img2ImgRequest.batch_size": 1,
    "deployments.api.compat.img2img.Img2ImgRequest.denoising_strength": 0.75,
    "deployments.api.compat.img2img.Img2ImgRequest.n_iter": 1,
    "deployments.api.compat.img2img.Img2ImgRequest.seed": -1,
    "deployments.api.compat.img2img.Img2ImgRequest.send_images": True,
    "deployments.api.compat.sdapi.Txt2ImgRequest.batch_size": 1,
    "deployments.api.compat.sdapi.Txt2ImgRequest.n_iter": 1,
    "deployments.api.compat.sdapi.Txt2ImgRequest.seed": -1,
    "deployments.api.compat.sdapi.Txt2ImgRequest.send_images": True,
    "deployments.api.compat.shapes.SdOptions.CLIP_stop_at_last_layers": 1,
    "deployments.api.edge.throttle._Client.refused_s": float("-inf"),
    "deployments.api.edge.throttle._Client.room": 8.0,
    "deployments.api.keys.Access.admin_possible": True,  # who needs no key may do all
    "deployments.api.urls.UrlSigner.expire_s": 3600.0,
    "deployments.api.wire.requests.ImageRequest.degrade": True,
    "deployments.api.wire.requests.ImageRequest.n": 1,
    "deployments.orchestration.breaker._Circuit.failed_at": float("-inf"),
    "deployments.orchestration.budgets._Entry.counted": True,
    "deployments.orchestration.step_queues._Line.replicas": 1,
    "deployments.orchestration.verifier.Verifier.share": 1,
    "deployments.store.records.JobRecord.n": 1,
    "deployments.store.records.ServedRow.jobs": 1,
}
"""The numbers and switches that are something if nobody says what they are."""


DAY_S = 86_400.0
IN_DOCUMENTS: dict[str, dict[str, tuple[Any, ...]]] = {
    "operations.md": {
        "three times in a row, for two requests at least, is out for 5 seconds, twice as long each time, 5 minutes":
            ("deployments.orchestration.breaker", 3, "FAILURES", 2, "JOBS", 5, "FIRST_S", 300, "MOST_S"),
        "A step whose process is lost runs again, three times in all":
            ("deployments.orchestration.step_queues", 3, "TRIES"),
        "with a comment (`: ping`) every 15 s": ("deployments.api.streams", 15, "PING_S"),
        "Usage is kept for 367 days": ("deployments.store.tidying", 367 * DAY_S, "USAGE_S"),
        "Bytes that no row names, which a process leaves behind that dies between the two, go after an hour":
            ("deployments.store.tidying", 3600, "DRAFT_S"),
    },
    "jobs.md": {
        "Whatever is not answered by 2xx is sent again after 5 s, 30 s, 2 min, 10 min, 1 h and 6 h":
            ("deployments.jobs.webhooks", (5, 30, 120, 600, 3600, 6 * 3600), "WAITS_S"),
        "its step runs again, elsewhere or on the next process: three times in all":
            ("deployments.orchestration.step_queues", 3, "TRIES"),
    },
    "observability.md": {
        "Of the last day, exact to ten minutes":
            ("deployments.jobs.operators", DAY_S, "WINDOW_S", 600, "deployments.store.accounts.MINUTES_S"),
        "what was served is kept for 31 days": ("deployments.store.accounts", 31 * DAY_S, "SERVED_S"),
    },
    "router.md": {
        "A pair that is rated together on fewer than 20 prompts": ("router.learning.ratings", 20, "MIN_PROMPTS"),
    },
}  # fmt: skip
"""What documents tell of waits, tries and bounds: the words, the module, and each number before its name there."""


def modules(floor: str) -> Iterator[ModuleType]:
    """Of a package and of those in it, but for migrations, which only their tool can import."""
    for found in pkgutil.iter_modules(importlib.import_module(floor).__path__, f"{floor}."):
        if not found.ispkg:
            yield importlib.import_module(found.name)
        elif not found.name.endswith(".migrations"):
            yield from modules(found.name)


def test_bodies_are_frozen_and_know_no_infinity() -> None:
    """What a client sent is not changed on the way nor taken for what it is not, and none of its numbers is infinite or
    none at all."""
    loose = {
        f"{module.__name__}.{name}"
        for module in modules("deployments.api.wire")
        for name, kind in vars(module).items()
        if isinstance(kind, type) and issubclass(kind, BaseModel) and kind.__module__ == module.__name__
        if kind.model_config.get("extra") == "forbid"  # the others are answers
        if not kind.model_config.get("frozen")
        or kind.model_config.get("allow_inf_nan", True)
        or not kind.model_config.get("strict")
    }
    assert loose == set()


def test_what_is_not_said_is_nothing() -> None:
    """Numbers and switches that are left out are 0 and off, of values and of bodies, but for those that are known."""
    found = {}
    for floor in FLOORS:
        for module in modules(floor):
            for name, kind in vars(module).items():
                if not isinstance(kind, type) or kind.__module__ != module.__name__:
                    continue
                if dataclasses.is_dataclass(kind):
                    defaults = {field.name: field.default for field in dataclasses.fields(kind)}
                elif issubclass(kind, BaseModel):
                    defaults = {name: field.default for name, field in kind.model_fields.items()}
                else:
                    continue
                found |= {f"{module.__name__}.{name}.{field}": value for field, value in defaults.items()}
    said = {name: value for name, value in found.items() if isinstance(value, int | float) and value}
    assert {name: value for name, value in said.items() if not name.startswith("router.types.")} == SAID


def test_values_are_frozen() -> None:
    """Every dataclass that parts pass to one another is frozen, but for those that are worked on in one place."""
    loose = {
        f"{module.__name__}.{name}"
        for floor in FLOORS
        for module in modules(floor)
        for name, kind in vars(module).items()
        if isinstance(kind, type) and kind.__module__ == module.__name__ and dataclasses.is_dataclass(kind)
        if not kind.__dataclass_params__.frozen
    }
    assert loose <= WORKED_ON


@pytest.mark.parametrize("document", IN_DOCUMENTS)
def test_documents_have_the_figures_of_the_code(document: str) -> None:
    """How long is waited, how often is tried and what is kept is as it is told to operators."""
    text = " ".join((Path(__file__).parents[1] / "docs" / document).read_text("utf-8").split())
    for words, (home, *told) in IN_DOCUMENTS[document].items():
        assert words in text
        for value, name in zip(told[::2], told[1::2], strict=True):
            module, _, constant = (name if "." in name else f"{home}.{name}").rpartition(".")
            assert getattr(importlib.import_module(module), constant) == value, name
