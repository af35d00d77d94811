"""What passes through an orchestrator and what it says.

A decision, and one that is admitted; events while a request runs, its outcome, an overview of what is installed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from deployments.orchestration.budgets import Charge
from deployments.workers.worker import WorkerStatus
from policies import Policy
from policies.store.history import Version
from router.errors import TriptychError
from router.errors import WorkerLostError as WorkerLostError  # where its callers look for it
from router.route import Route
from router.types import GenerationRequest, ModelCard, Picture, Plan, Progress, StepTrace
from router.types.safety import Finding, SafetyReport


@dataclass(frozen=True)
class Refused:
    """An expected failure on its way between processes: a value, since Ray logs every exception with its traceback."""

    error: TriptychError


@dataclass(frozen=True)
class Decided:
    """A decision, and the policy that made it."""

    policy: Policy
    route: Route

    def expected(self) -> tuple[float, float]:
        """Seconds of work and dollars if every try is needed that the verification allows."""
        decision, estimates = self.route.decision, self.route.estimates
        chosen = estimates[decision.recipe]
        if (verify := decision.verify) is None:
            return chosen.work_s, chosen.cost_usd
        tries = [estimates[name] for name in verify.tries(decision.recipe)]
        tries = sorted(tries, key=lambda e: -e.cost_usd)[: None if verify.most is None else verify.most - 1]
        work_s, cost_usd = sum(e.work_s for e in tries), sum(e.cost_usd for e in tries)
        return (
            chosen.work_s + min(work_s, math.inf if verify.work_s is None else verify.work_s),
            chosen.cost_usd + min(cost_usd, math.inf if verify.cost_usd is None else verify.cost_usd),
        )


@dataclass(frozen=True)
class Admitted(Decided):
    """A decision that is charged to its tenant and has its place in the queues. asked: the request as it came, which
    may name no recipe;   ticket: of the queues;   within_s: from arrival to the deadline"""

    asked: GenerationRequest
    charge: Charge
    ticket: int
    within_s: float


@dataclass(frozen=True)
class Routed:
    """The first event of a request: what will be done."""

    route: Route


@dataclass(frozen=True)
class Advanced:
    """A running step of picture `index` (0 .. n-1) moved on."""

    index: int
    progress: Progress


@dataclass(frozen=True)
class Finished:
    """A picture is made. alone: the outcome of the request if it were the only one; the whole one has all of them"""

    alone: Outcome


@dataclass(frozen=True)
class StepBegun:
    """A step of picture `index` goes to a worker. Told, as is its end, also where nobody follows how far it is."""

    index: int
    step: str


@dataclass(frozen=True)
class StepEnded:
    """A step of picture `index` is done."""

    index: int
    step: str


@dataclass(frozen=True)
class Check:
    """A picture that was scored. traces: of the steps that made it, and of the scoring; probability: that it is right;
    accepted: whether it is good enough (with a bar by its score, else if it is more likely right than not)"""

    recipe: str
    score: float
    traces: tuple[StepTrace, ...]
    accepted: bool = False
    seed: int = 0
    probability: float = 0.0


Action = Literal["check", "keep", "retry", "escalate", "stop"]


@dataclass(frozen=True)
class VerificationChoice:
    """What verification did next, and why. "keep" leaves the first picture unchecked.

    gain, price: expected, in quality, where these were weighed;   best: probability that the best so far is right
    """

    action: Action
    recipe: str
    reason: str
    gain: float | None = None
    price: float | None = None
    best: float | None = None


@dataclass(frozen=True)
class Checked:
    """A picture of picture `index`'s search was looked at."""

    index: int
    check: Check


@dataclass(frozen=True)
class Chosen:
    """What is done next for picture `index`. plan: of the picture that is made now; None: none is"""

    index: int
    choice: VerificationChoice
    plan: Plan | None = None


@dataclass(frozen=True)
class Made:
    """One finished picture. plan_digest changes with anything that could change the picture.

    recipe: which one made it; not the decision's if an escalation was better
    checks: every picture that was scored on the way, in order; empty if none was
    choices: what was decided on the way: to check, to try again or another recipe, to stop
    index: which picture of the request it is, from 0
    findings: what the policy's safety found in it
    """

    picture: Picture
    seed: int
    plan_digest: str
    traces: tuple[StepTrace, ...]
    recipe: str
    checks: tuple[Check, ...] = ()
    choices: tuple[VerificationChoice, ...] = ()
    notes: tuple[str, ...] = ()
    index: int = 0
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Failure:
    """A picture of the request that could not be made, although others were. code: as of `TriptychError`"""

    index: int
    seed: int
    message: str
    code: str


LIKELY = 0.5  # a picture is more likely right than not


def likely(made: Made) -> bool:
    """Whether the picture is more likely right than not, or as good as its policy asks; true where nobody looked."""
    return not made.checks or any(check.accepted or check.probability >= LIKELY for check in made.checks)


def unlikely(pictures: Sequence[Made]) -> tuple[str, ...]:
    """A warning for each picture that was looked at and is probably not what the prompt says."""
    found = []
    for number, made in enumerate(pictures, 1):
        if likely(made):
            continue
        best = max(check.probability for check in made.checks)
        which = "the picture" if len(pictures) == 1 else f"picture {number}"
        tried = "one was made and checked" if len(made.checks) == 1 else f"the best of {len(made.checks)} checked ones"
        found.append(
            f"{which} is probably not what the prompt says: it is right with a probability of {_share(best)} ({tried})"
        )
    return tuple(found)


def _share(probability: float) -> str:
    """Two digits, and never 0 for what is not quite impossible."""
    return f"{probability:.2f}" if probability >= 0.01 else f"{probability:.1g}"


@dataclass(frozen=True)
class Outcome:
    """The answer to one request: `made` in the order of the seeds, at least one; failed: those that are missing.

    cost_usd: seconds as measured, checks and tries included, at the cards' prices;   estimated_cost_usd: what was
    expected beforehand of the chosen recipe and of the tries that were made
    safety: what was checked and found, of the prompt and of all pictures; None: the policy checks nothing
    notes: in words, what happened on the way;   warnings: what a client should not overlook
    """

    route: Route
    made: tuple[Made, ...]
    latency_s: float
    cost_usd: float
    notes: tuple[str, ...] = ()
    estimated_cost_usd: float | None = None
    warnings: tuple[str, ...] = ()
    failed: tuple[Failure, ...] = ()
    safety: SafetyReport | None = None


Event = Routed | StepBegun | Advanced | StepEnded | Checked | Chosen | Finished
OnEvent = Callable[[Event], None]


@dataclass(frozen=True)
class Overview:
    """What is installed and how it is: policies (the default first), cards, workers, problems of policy files, the
    digest of the artefact in force, and what is wrong with the one in its folder, if that is another."""

    policies: tuple[PolicySummary, ...]
    cards: tuple[ModelCard, ...]
    statuses: Mapping[str, WorkerStatus]
    problems: tuple[str, ...]
    artifact: str = ""
    artifact_problem: str = ""


@dataclass(frozen=True)
class PolicyFile:
    """A policy's file, and which versions were in force, newest first."""

    name: str
    digest: str
    text: str
    versions: tuple[Version, ...] = ()


@dataclass(frozen=True)
class PolicySummary:
    """A policy as a list of models shows it. takes: what each of its recipes makes its picture of"""

    name: str
    digest: str
    description: str
    recipes: tuple[str, ...]
    takes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
