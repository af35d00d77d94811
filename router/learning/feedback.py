"""What was chosen and how it did: a decision as it is remembered, with its propensity, and what was said of it."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.types import Estimate, Quality

RATING, SCORER = "rating", "scorer:"
"""The source of what people say, and the beginning of a source that is a scorer's: `scorer:<name>`."""


@dataclass(frozen=True)
class DecisionRecord:
    """One decision as it is remembered.

    id:         of the request, as the client got it;   at_s: Unix time
    embedding:  shape (d,);   features: lexical counts, zeros left out
    base, base_means: digest of the artefact under every adaptation, and what it expects of each of its columns
    options:    name -> estimate of every recipe that could have been chosen;   keys: name -> canonical key
    pinned:     asked for by name, so nothing was chosen;   rules: names of the rules that applied
    made:       name of the recipe whose picture was delivered, for each picture;   kept: which try of that recipe it
                was, from 0;   latency_s, cost_usd: of the whole path to it, everything that was tried included
    """

    id: str
    at_s: float
    prompt: str
    embedding: NDArray[np.floating] = field(repr=False, compare=False)
    features: Mapping[str, float] = field(repr=False)
    policy: str
    policy_digest: str
    artifact: str
    base: str
    base_means: Mapping[str, float] = field(repr=False)
    options: Mapping[str, Estimate] = field(repr=False)
    keys: Mapping[str, str] = field(repr=False)
    recipe: str
    propensity: float
    rules: tuple[str, ...] = ()
    explored: bool = False
    pinned: bool = False
    degradable: bool = True
    made: tuple[str, ...] = ()
    latency_s: float = 0.0
    cost_usd: float = 0.0
    number: int = 0
    prompt_hash: str = ""
    kept: tuple[int, ...] = ()

    def delivered(self, image: int) -> tuple[str, int]:
        """The recipe of a delivered picture, and which try of that recipe it was."""
        return self.made[image], self.kept[image] if image < len(self.kept) else 0


@dataclass(frozen=True, slots=True)
class Feedback:
    """value: 0..1, higher is better; source: "rating" (people) or "scorer:<name>"; image: index of the picture;
    recipe: name of the recipe that made it; at_s: Unix time; attempt: which picture of that recipe it was in the search
    for this one, from 0."""

    source: str
    image: int
    recipe: str
    value: float
    at_s: float = 0.0
    attempt: int = 0


def value_of_path(record: DecisionRecord, said: Sequence[Feedback]) -> float | None:
    """Mean of what was said of the delivered pictures, 0..1, whichever recipe and try they came from; None: nothing."""
    values = [
        f.value for f in said if f.image < len(record.made) and record.delivered(f.image) == (f.recipe, f.attempt)
    ]
    return sum(values) / len(values) if values else None


@dataclass(frozen=True)
class Receipt:
    """What feedback was attached to. replaced: whether the same source had said something of these pictures before."""

    images: tuple[int, ...]
    recipes: tuple[str, ...]
    replaced: bool


@dataclass(frozen=True)
class Retention:
    """What is forgotten: decisions older than that, and the oldest beyond that number."""

    max_age_s: float = float("inf")
    max_rows: int = 1_000_000


def packed_facts(decision: DecisionRecord) -> bytes:
    """What of a decision is kept beside its columns: JSON, compressed; the estimates by column and with seven digits,
    so that a row among two hundred recipes stays a few kilobytes."""
    names = ("rules", "explored", "pinned", "degradable", "made", "kept", "latency_s", "cost_usd", "base", "keys")
    facts = {
        **{name: getattr(decision, name) for name in names},
        "keys": dict(decision.keys),
        "features": {name: value for name, value in decision.features.items() if value},
        "base_means": {name: round(mean, 5) for name, mean in decision.base_means.items()},
        "options": _columns(decision.options),
    }
    return zlib.compress(json.dumps(facts, separators=(",", ":")).encode())


def facts_in(stored: str | bytes) -> dict[str, Any]:
    """What `packed_facts` wrote; rows of version 0.1 hold plain JSON."""
    facts: dict[str, Any] = json.loads(stored if isinstance(stored, str) else zlib.decompress(stored))
    return facts


def _columns(options: Mapping[str, Estimate]) -> dict[str, list[Any]]:
    """Estimates by column, with seven digits."""
    estimates = options.values()
    columns: dict[str, list[Any]] = {"recipe": list(options), "basis": [e.quality.basis for e in estimates]}
    columns |= {key: [float(f"{getattr(e.quality, key):.7g}") for e in estimates] for key in ("mean", "std")}
    return columns | {key: [float(f"{getattr(e, key):.7g}") for e in estimates] for key in _TAKES}


_TAKES = ("work_s", "queue_s", "latency_s", "cost_usd")


def _estimates(stored: Mapping[str, Any]) -> dict[str, Estimate]:
    """The other way round; rows of version 0.1 hold them by name."""
    if not isinstance(stored.get("recipe"), list):
        return {name: Estimate(**{**one, "quality": Quality(**one["quality"])}) for name, one in stored.items()}
    rows = zip(*(stored[key] for key in ("recipe", "mean", "std", "basis", *_TAKES)), strict=True)
    return {name: Estimate(name, Quality(mean, std, basis), *takes) for name, mean, std, basis, *takes in rows}


def decision_of(row: Mapping[str, Any]) -> DecisionRecord:
    """A decision from its row, with the JSON of `facts_of` under `facts`."""
    facts = facts_in(row["facts"])
    own = ("id", "at_s", "policy", "policy_digest", "artifact", "recipe", "propensity", "number", "prompt_hash")
    vector = np.frombuffer(row["embedding"], dtype="<f2").astype(np.float32)
    options = _estimates(facts.pop("options"))
    facts |= {"rules": tuple(facts["rules"]), "made": tuple(facts["made"])}
    facts["kept"] = tuple(facts.get("kept", ()))  # rows of version 0.1 do not say
    return DecisionRecord(
        **{name: row[name] for name in own},
        **facts,
        prompt=row["prompt"] or "",
        embedding=vector / max(float(np.linalg.norm(vector)), 1e-12),
        options=options,
    )
