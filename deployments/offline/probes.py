"""Probes: requests with what a policy should do about them, as a file that can be run like a test suite.

policy: balanced.yaml        # beside this file, or a name in the folder of the config
probes:
  - name: print work gets a large model
    request: {prompt: a poster, tags: [print]}      # as over the wire
    expect: {one_of: [premium, duel], out: {draft: rule}, rules: [print work]}
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from deployments.offline.rehearsal import Rehearsal
from deployments.settings import problems
from policies.language.spec import Spec, Text
from policies.store.folder import is_named_like_one
from router.errors import NoRecipeError, PolicyError, TriptychError
from router.route import Route

Gate = Literal["capability", "limit", "request", "budget", "rule", "pinned"]
Names = Annotated[list[str], Field(min_length=1)]


class Expectation(Spec):
    """What must be true of a decision; every key that is given is checked."""

    recipe: str | None = Field(default=None, description="this recipe is chosen")
    one_of: Names | None = Field(default=None, description="one of these is chosen")
    not_: Names | None = Field(default=None, alias="not", description="none of these is chosen")
    open: Names | None = Field(default=None, description="these could have been chosen")
    out: dict[str, Gate] | None = Field(default=None, description="these are rejected, each by this gate")
    rules: list[str] | None = Field(default=None, description="exactly these rules apply, in this order")
    verified: bool | None = Field(default=None, description="the picture will be checked")
    escalates_to: list[str] | None = Field(default=None, description="exactly these recipes may follow")
    error: str | None = Field(default=None, description="the request is refused with this code, such as no_recipe")

    @model_validator(mode="after")
    def _something(self) -> Expectation:
        if not self.given():
            raise ValueError("expect at least one thing")
        return self


class Probe(Spec):
    """One request. at: when it comes, for rules on the time of day; ISO 8601 with a zone."""

    name: Text
    request: dict[str, Any]
    at: str | None = None
    expect: Expectation

    @field_validator("at")
    @classmethod
    def _time(cls, text: str | None) -> str | None:
        if text is not None and datetime.fromisoformat(text).tzinfo is None:
            raise ValueError("needs a zone, such as 2026-03-02T23:00:00+01:00")
        return text


class ProbeFile(Spec):
    policy: str
    probes: Annotated[list[Probe], Field(min_length=1)]


@dataclass(frozen=True)
class Verdict:
    """failures: in words; none if the probe passed."""

    probe: str
    failures: tuple[str, ...]


def load_probes(path: Path) -> ProbeFile:
    """Raises `PolicyError` with every problem."""
    try:
        return ProbeFile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise PolicyError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PolicyError(f"{path}: not valid YAML: {error}") from None
    except ValidationError as error:
        lines = [f"{path}: {line}" for line in problems(error.errors())]
        raise PolicyError(lines[0] if len(lines) == 1 else f"{path} has {len(lines)} problems:", lines) from None


def run_probes(path: Path, rehearsal: Rehearsal) -> list[Verdict]:
    """Decide on every probe of a file. Raises `PolicyError` if the file or its policy is broken."""
    file = load_probes(path)
    beside = path.parent / file.policy
    policy = rehearsal.policy(str(beside) if is_named_like_one(beside) else file.policy)
    verdicts = []
    for probe in file.probes:
        outcome: Route | TriptychError
        try:
            now = datetime.fromisoformat(probe.at) if probe.at else None
            outcome = rehearsal.route(policy, probe.request, now)
        except TriptychError as error:
            outcome = error
        verdicts.append(Verdict(probe.name, tuple(_failures(probe.expect, outcome))))
    return verdicts


def _failures(expect: Expectation, outcome: Route | TriptychError) -> Iterator[str]:
    if isinstance(outcome, TriptychError):
        if expect.error != outcome.code:
            yield f"refused with {outcome.code}: {outcome.message}"
        rejected = outcome.rejections if isinstance(outcome, NoRecipeError) else ()
        yield from _wrong_gates(expect, {rejection.recipe: rejection.gate for rejection in rejected})
        return
    decision = outcome.decision
    ranked = [entry.recipe for entry in decision.ranking]
    if expect.error is not None:
        yield f"{decision.recipe} was chosen, but {expect.error} was expected"
    if expect.recipe is not None and decision.recipe != expect.recipe:
        yield f"{decision.recipe} was chosen, not {expect.recipe}"
    if expect.one_of is not None and decision.recipe not in expect.one_of:
        yield f"{decision.recipe} was chosen, none of {', '.join(expect.one_of)}"
    if decision.recipe in (expect.not_ or ()):
        yield f"{decision.recipe} was chosen"
    for name in expect.open or ():
        if name not in ranked:
            yield f"{name} could not have been chosen"
    yield from _wrong_gates(expect, {rejection.recipe: rejection.gate for rejection in decision.rejected})
    if expect.rules is not None and list(decision.rules) != expect.rules:
        yield f"the rules {', '.join(decision.rules) or 'none'} applied, not {', '.join(expect.rules) or 'none'}"
    if expect.verified is not None and (decision.verify is not None) is not expect.verified:
        yield f"the picture would {'not ' if expect.verified else ''}be checked"
    ladder = list(decision.verify.escalate_to) if decision.verify else []
    if expect.escalates_to is not None and ladder != expect.escalates_to:
        wanted = ", ".join(expect.escalates_to) or "nothing"
        yield f"it would escalate to {', '.join(ladder) or 'nothing'}, not {wanted}"


def _wrong_gates(expect: Expectation, gates: dict[str, str]) -> Iterator[str]:
    for name, gate in (expect.out or {}).items():
        if gates.get(name) != gate:
            yield f"{name} was {'rejected by ' + gates[name] if name in gates else 'not rejected'}, not by {gate}"
