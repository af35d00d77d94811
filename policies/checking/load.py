"""Policy file -> `Policy`, or every problem at once as `file:line:column: message`.

text -> data with positions -> inheritance -> schema -> checks across the file -> value
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from policies.checking.contradictions import unchecked
from policies.checking.reachability import PlanRecipe, check_reach
from policies.checking.recipes import arrangeable, build_recipes, check_members, check_recipes, named_inside
from policies.checking.rules import check_condition, check_names, check_rules, in_order
from policies.checking.safety import check_safety
from policies.deciding.decide import Policy
from policies.language.inheritance import expand
from policies.language.messages import telling, translated
from policies.language.schema import BudgetSpec, OverloadSpec, PolicySpec, SplitSpec, VerifySpec
from policies.language.schema_choice import ExploreSpec, Limits, Objective
from policies.language.schema_recipes import RecipeSpec
from policies.language.schema_rules import Rule
from policies.language.schema_safety import SafetySpec
from policies.language.source import MAX_BYTES, MAX_PROBLEMS, Path, Problem, Source, decode, read
from policies.language.spec import NAME
from router.errors import PolicyError, did_you_mean

Finding = tuple[Path, str]
_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True)
class Known:
    """What a file may refer to outside of itself; None means that it is not checked.

    moderators: endpoints that checks of `safety` may ask
    missing_checks: those that cannot be made here -> the remedy
    arrange: plans a recipe on the model cards; with it, hand-overs and limits are checked, too
    """

    models: Collection[str] | None = None
    signals: Collection[str] | None = None
    schedulers: Collection[str] | None = None
    scorers: Collection[str] | None = None
    moderators: Collection[str] | None = None
    missing_checks: Mapping[str, str] = field(default_factory=dict)
    arrange: PlanRecipe | None = None


def load_policy(path: str | FilePath, *, known: Known | None = None, models: Collection[str] | None = None) -> Policy:
    """Read, validate and build the policy in a file named `<policy>.yaml`.

    models: catalogue ids, a short way to write `known=Known(models=...)`
    Raises `PolicyError` with every problem.
    """
    return load_with_text(FilePath(path), known or Known(models))[0]


def load_with_text(path: FilePath, known: Known) -> tuple[Policy, str]:
    """The same, with the text that it was read from."""
    try:
        if not path.is_file():
            raise FileNotFoundError(2, "no such file")
        with path.open("rb") as file:
            text = decode(file.read(MAX_BYTES + 1))
    except OSError as error:
        raise _failed(str(path), [Problem(1, 1, f"cannot be read: {error.strerror}")]) from None
    if isinstance(text, Source):
        raise _failed(str(path), text.problems)
    return _load(read(text), str(path), known, path.stem), text


def load_policy_text(
    text: str, origin: str = "<policy>", *, known: Known | None = None, models: Collection[str] | None = None
) -> Policy:
    """The same for a text; `origin` stands in for the file's name in messages."""
    return _load(read(text), origin, known or Known(models), None)


def _load(text: Source, origin: str, known: Known, stem: str | None) -> Policy:
    source, broken = expand(text)
    problems = list(source.problems)
    spec = None
    if source.values:  # the text could be read, even if not all of it was right
        spec, errors = _validated(source.data)
        found = [(error["loc"], translated(error, source)) for error in telling(errors)]
        findings = list(itertools.islice(_findings(source.data, known, stem), MAX_PROBLEMS + 1))
        found += [(path, source.problem(path, message)) for path, message in findings[:MAX_PROBLEMS]]
        if len(findings) > MAX_PROBLEMS:
            problems.append(Problem(1, 1, f"more than {MAX_PROBLEMS} problems; these are the first, mend them"))
        said = {(problem.line, problem.column) for problem in problems}
        problems += [
            problem
            for path, problem in found
            if tuple(path[:2]) not in broken and (problem.line, problem.column) not in said
        ]
    if problems or spec is None:
        raise _failed(origin, problems)
    places = {key: source.values[key, "policy"] for key in ("shadow", "canary") if (key, "policy") in source.values}
    return _built(spec, origin, places)


def _built(spec: PolicySpec, origin: str, places: Mapping[str, tuple[int, int]]) -> Policy:
    content = spec.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"description"})
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return Policy(
        name=spec.name,
        digest=hashlib.sha256(canonical.encode()).hexdigest()[:12],
        recipes=build_recipes(spec.recipes, spec.objective),
        limits=spec.limits,
        objective=spec.objective,
        rules=in_order(spec.rules),
        verify=spec.verify,
        overload=spec.overload,
        reroute=spec.reroute,
        explore=spec.explore,
        budgets=tuple(spec.budgets),
        ignore_negative_prompt=spec.ignore_negative_prompt or "refuse",
        provenance=spec.provenance or "full",
        safety=spec.safety,
        licence=spec.licence,
        shadow=spec.shadow,
        canary=spec.canary,
        description=spec.description,
        origin=origin,
        places=places,
        unchecked=unchecked(spec.rules),
    )


def _failed(origin: str, problems: Collection[Problem]) -> PolicyError:
    lines = [problem.render(origin) for problem in sorted(set(problems))]
    title = lines[0] if len(lines) == 1 else f"{origin} has {len(lines)} problems:"
    return PolicyError("\n  ".join([title, *lines] if len(lines) > 1 else [title]), lines)


# ----------------------------------------------------------------------------------------- across the whole file


def _findings(data: Any, known: Known, stem: str | None) -> Iterator[Finding]:
    """What the schema cannot see, in those parts of the file that pass it."""
    top = data if isinstance(data, dict) else {}
    named = top["recipes"] if isinstance(top.get("recipes"), dict) else {}
    recipes = {name: spec for name, raw in named.items() if (spec := _sound(RecipeSpec, raw))}
    listed = top["rules"] if isinstance(top.get("rules"), list) else []
    rules = [(index, rule) for index, raw in enumerate(listed) if (rule := _sound(Rule, raw))]
    members = check_members(recipes, known.models, known.schedulers)
    wrong = list(itertools.islice(itertools.chain(check_recipes(recipes, set(named)), members), MAX_PROBLEMS + 1))
    yield from wrong
    yield from check_rules(rules, set(named), known.signals)
    yield from _prices(top, recipes)
    yield from _afterwards(top, set(named), known)
    if stem is not None and (name := top.get("name")) != stem and isinstance(name, str) and re.match(NAME, name):
        yield ("name",), f"the policy is named {name!r} but its file {stem!r}; give both the same name"
    sound = arrangeable(recipes, {str(path[1]) for path, _ in wrong})
    limits = _sound(Limits, top.get("limits", {}))
    parts = {inner for name, spec in recipes.items() for inner in named_inside(name, spec)}
    if len(sound) == len(named):
        yield from check_reach(build_recipes(recipes), parts, limits, rules, known.arrange)
    elif known.arrange is not None:
        yield from check_reach(build_recipes({n: recipes[n] for n in sound}), parts, limits, (), known.arrange)


def _afterwards(top: Mapping[str, Any], recipes: Collection[str], known: Known) -> Iterator[Finding]:
    """Names in what follows the choice: verify, overload, explore, budgets, shadow and canary."""
    if verify := _sound(VerifySpec, top.get("verify")):
        scorers = known.scorers if known.scorers is not None else known.models
        if scorers is not None and verify.scorer not in scorers:
            what = "is no scorer" if verify.scorer in (known.models or ()) else "is unknown"
            yield ("verify", "scorer"), f"model {verify.scorer!r} {what}{did_you_mean(verify.scorer, scorers)}"
        yield from check_names(("verify", "escalate_to"), verify.escalate_to or (), recipes)
        if verify.when is not None:
            yield from check_condition(verify.when, ("verify", "when"), known.signals, chosen=True)
    if overload := _sound(OverloadSpec, top.get("overload")):
        yield from check_names(("overload", "degrade_to"), overload.degrade_to or (), recipes)
    if explore := _sound(ExploreSpec, top.get("explore")):
        yield from check_names(("explore", "among"), explore.among or (), recipes)
    budgets = top["budgets"] if isinstance(top.get("budgets"), list) else []
    names = [budget.name if (budget := _sound(BudgetSpec, raw)) else None for raw in budgets]
    first: dict[str, int] = {}
    for index, name in enumerate(names):
        if name is not None and first.setdefault(name, index) != index:
            yield ("budgets", index, "name"), f"budgets {first[name] + 1} and {index + 1} are both named {name!r}"
    yield from check_safety(_sound(SafetySpec, top.get("safety")), known.moderators, known.missing_checks)
    for key in ("shadow", "canary"):
        if (split := _sound(SplitSpec, top.get(key))) and split.policy == top.get("name"):
            yield (key, "policy"), f"{key}: a policy cannot be its own {key}; name another one"


def _prices(top: Mapping[str, Any], recipes: Mapping[str, RecipeSpec]) -> Iterator[Finding]:
    """What weighs gains against seconds needs a price: its own, or the weights of an objective that has some."""
    objective = _sound(Objective, top.get("objective"))
    if objective is None or objective.maximise is not None:
        return
    weighing: list[tuple[Path, float | None]] = [
        (("recipes", name, "best_of", "n"), spec.best_of.quality_per_s)
        for name, spec in recipes.items()
        if spec.best_of is not None and spec.best_of.n == "auto"
    ]
    if (verify := _sound(VerifySpec, top.get("verify"))) and verify.by == "expected_gain":
        price = verify.quality_per_s if verify.quality_per_try is None else verify.quality_per_try
        weighing.append((("verify", "by"), price))
    for path, price in weighing:
        if price is None:
            yield path, "what is a second worth here? this objective has no weight, so give quality_per_s"


def _sound(model: type[_Model], raw: Any) -> _Model | None:
    try:
        return model.model_validate(raw)
    except ValidationError:
        return None


def _validated(data: Any) -> tuple[PolicySpec | None, list[ErrorDetails]]:
    try:
        return PolicySpec.model_validate(data), []
    except ValidationError as failure:
        return None, failure.errors(include_url=False)
