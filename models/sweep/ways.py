"""The ways in which a model may be run here: how it is built, and how it is asked."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from models.onnx.graphs import FAMILIES as EXPORTED
from models.onnx.sessions import provider_of
from models.schedulers import schedulers_for
from models.tuning.applying import EXPORTED_TAKES, check
from models.tuning.settings import Tuning
from router.errors import LoadError
from router.types import ModelCard

SHARES = (1.0, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2)
"""Of the card's steps."""

PRECISIONS: Mapping[bool, tuple[str, ...]] = {False: ("int8",), True: ("int8", "fp8")}
"""Fewer bits for torch's network, by whether there is a GPU."""

GRAPHS: Mapping[bool, tuple[str, ...]] = {False: ("fp32", "int8"), True: ("fp32", "fp16")}
"""Precisions of exported graphs, by whether there is a GPU."""

CACHES: Sequence[Mapping[str, Any]] = (
    {"first_block": 0.05},
    {"first_block": 0.1},
    {"first_block": 0.2},
    {"taylorseer": {"every": 2, "after": 2}},
)


@dataclass(frozen=True)
class Build:
    """How a model is loaded. exported: the precision of its graphs, "" for torch;   tuning: as in a serve config"""

    exported: str = ""
    tuning: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        engine = f"onnx {self.exported}" if self.exported else "torch"
        tuned = Tuning.model_validate(dict(self.tuning)).tuned
        return f"{engine}, {tuned}" if tuned else engine

    def card(self, card: ModelCard, folder: Path | None = None) -> ModelCard:
        """The card of the model as it is built. folder: of its graphs"""
        tuning = Tuning.model_validate(dict(self.tuning))
        source = {"onnx": str(folder)} if self.exported else card.source
        return replace(card, source=source, tuning=tuning.said(), tuned=tuning.tuned, changes=tuning.changes)


@dataclass(frozen=True)
class Way:
    """How a model is loaded, and how it is asked."""

    build: Build
    steps: int
    scheduler: str

    @property
    def asked(self) -> tuple[int, str]:
        """All but the build."""
        return self.steps, self.scheduler

    @property
    def name(self) -> str:
        return f"{self.build.name}; {self.scheduler}, {self.steps} steps"


def as_it_is(card: ModelCard) -> Way:
    """The model as the config has it now, with which all others are compared."""
    return Way(Build("", dict(card.tuning)), card.steps, card.scheduler)


def ways_of(card: ModelCard, device: str, graphs: bool = True) -> tuple[list[Way], list[str]]:
    """Every way that is possible here, the present one first, and why the others are not. graphs: exported ones, too"""
    builds, missing = builds_of(card, device)
    builds = [build for build in builds if graphs or not build.exported]
    asked = [(steps, name) for steps in steps_of(card) for name in schedulers_for(card)]
    present = as_it_is(card)
    others = [Way(build, steps, name) for build in builds for steps, name in asked]
    return [present, *(way for way in others if way != present)], missing


def steps_of(card: ModelCard) -> list[int]:
    """Numbers of steps from the card's own down, within its bounds."""
    found = {max(card.min_steps, 1, round(card.steps * share)) for share in SHARES}
    return sorted((steps for steps in found if steps <= card.steps), reverse=True)


def builds_of(card: ModelCard, device: str) -> tuple[list[Build], list[str]]:
    """The builds that this machine can make, the present one first, and a reason for each kind that it cannot."""
    made: list[Build] = []
    missing: list[str] = []
    for build in _all(card, device.startswith("cuda")):
        try:
            check(build.card(card, Path()), device)
            if build.exported:
                provider_of(device, False)
        except LoadError as error:
            reason = error.message.removeprefix(f"model {card.id!r}: ")
            missing += [] if reason in missing else [reason]
        else:
            made.append(build)
    return made, missing


def _all(card: ModelCard, gpu: bool) -> Iterator[Build]:
    """What the config says already stays in all of them; a graph is built only where it can follow that."""
    own = dict(card.tuning)
    choices: list[tuple[str, Sequence[Any]]] = [
        ("quantize", (None, *PRECISIONS[gpu])),
        ("compile", (None, "regional")),
        ("cache", (None, *(CACHES if card.backbone == "dit" else ()))),
    ]
    free = [(key, values) for key, values in choices if key not in own]
    for chosen in itertools.product(*(values for _, values in free)):
        said = {key: value for (key, _), value in zip(free, chosen, strict=True) if value is not None}
        yield Build("", {**own, **said})
    if card.family in EXPORTED and set(own) <= set(EXPORTED_TAKES):
        yield from (Build(precision, own) for precision in GRAPHS[gpu])
