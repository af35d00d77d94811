"""The wire out: routes and outcomes as builtins, in OpenAI's shape, with the reasons under `x_triptych`.

Nothing here depends on the clock or on the request id except the fields that say so: equal pictures are equal bytes.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from deployments.api.wire.requests import ImageRequest
from deployments.orchestration.results import Check, Chosen, Made, Outcome, Overview, PolicyFile
from deployments.settings import Limits
from deployments.workers.worker import WorkerStatus
from router.planning.edits import model_takes
from router.planning.styles import wearable
from router.route import Route
from router.types import GenerationRequest, HandOver, ModelCard, Plan, StepTrace, Style
from router.types.safety import Finding, SafetyReport
from router.verification.score_reading import ScoreReading

SHOWN = 8  # words of a prompt that a warning lists
PIXELS_PER_TOKEN = 16 * 16  # usage counts one image token for each patch of 16 x 16 pixels


def images_result(outcome: Outcome, wire: ImageRequest, request_id: str, job: str = "") -> dict[str, Any]:
    """The body that `openai.types.ImagesResponse` accepts under strict validation, without the pictures' bytes."""
    return {
        "created": int(time.time()),
        "background": "opaque",
        "data": [{"seed": made.seed} for made in outcome.made],
        "output_format": wire.output_format,
        **({} if wire.quality in ("auto", "standard", "hd") else {"quality": wire.quality}),
        "size": size_of(outcome.made[0]),
        "usage": usage(outcome),
        "x_triptych": {"job": job, **outcome_report(outcome, wire, request_id)},
    }


def with_files(result: Mapping[str, Any], files: Sequence[bytes], wire: ImageRequest) -> dict[str, Any]:
    """The answer with its pictures, in the form that the request asked for."""
    form = (lambda file: {"bytes": file}) if wire.response_format == "bytes" else (lambda file: {"b64_json": b64(file)})
    data = [{**form(file), **item} for item, file in zip(result["data"], files, strict=True)]
    return {**result, "data": data}


def b64(file: bytes) -> str:
    return base64.b64encode(file).decode("ascii")


def size_of(made: Made) -> str:
    height, width = made.picture.pixels.shape[:2]
    return f"{width}x{height}"


def usage(outcome: Outcome) -> dict[str, Any]:
    """Token counts as OpenAI names them: words of the prompt in, patches of 16 x 16 pixels out."""
    text = max(1, len(outcome.route.request.prompt.split()))
    given = sum(max(1, one.width * one.height // PIXELS_PER_TOKEN) for one in outcome.route.request.given)
    image = sum(
        max(1, made.picture.pixels.shape[0] * made.picture.pixels.shape[1] // PIXELS_PER_TOKEN) for made in outcome.made
    )
    return {
        "input_tokens": text + given,
        "input_tokens_details": {"image_tokens": given, "text_tokens": text},
        "output_tokens": image,
        "total_tokens": text + given + image,
    }


def event_body(kind: str, file: bytes, size: str, wire: ImageRequest) -> dict[str, Any]:
    """What the events `image_generation.partial_image` and `image_generation.completed` have in common; those of an
    edit begin with `image_edit`."""
    return {
        "type": f"{'image_edit' if wire.image else 'image_generation'}.{kind}",
        "b64_json": b64(file),
        "created_at": int(time.time()),
        "size": size,
        "quality": "auto" if wire.quality in ("standard", "hd") else wire.quality,
        "background": "opaque",
        "output_format": wire.output_format,
    }


def outcome_report(outcome: Outcome, wire: ImageRequest, request_id: str) -> dict[str, Any]:
    """Everything about how the pictures came to be."""
    return {
        "request_id": request_id,
        **route_report(
            outcome.route,
            wire.warnings,
            [*unread(outcome), *unrepeatable(outcome), *withheld(outcome, wire), *outcome.warnings],
        ),
        "safety": safety_report(outcome.safety),
        "notes": [*outcome.notes, *provenance_notes(outcome.route)],
        "pictures": [picture_report(made) for made in outcome.made],
        "seeds": [made.seed for made in outcome.made],
        "missing": [asdict(failure) for failure in outcome.failed],
        "latency_s": _round(outcome.latency_s),
        "cost_usd": _round(outcome.cost_usd),
        "estimated_cost_usd": None if outcome.estimated_cost_usd is None else _round(outcome.estimated_cost_usd),
        "replay": _replay(outcome, wire),
    }


def withheld(outcome: Outcome, wire: ImageRequest) -> list[str]:
    """A warning where previews were asked for, and the policy checks pictures before anybody sees them."""
    checks = outcome.safety is not None and any(label.startswith("image:") for label in outcome.safety.checked)
    return ["partial_images: previews are withheld, since the policy checks pictures"] * (
        checks and wire.partial_images > 0
    )


def picture_report(made: Made) -> dict[str, Any]:
    """How one picture came to be."""
    return {
        "seed": made.seed,
        "recipe": made.recipe,
        "plan_digest": made.plan_digest,
        "steps": [_trace(t) for t in made.traces],
        "checks": [checked_report(check) for check in made.checks],
        "choices": [_plain(asdict(choice)) for choice in made.choices],
        "safety": [_finding(one) for one in made.findings],
    }


def safety_report(report: SafetyReport | None) -> dict[str, Any] | None:
    """What was checked and found; None if the policy checks nothing."""
    if report is None:
        return None
    return {
        "checked": list(report.checked),
        "skipped": list(report.skipped),
        "findings": [_finding(one) for one in report.findings],
        "notes": list(report.notes),
    }


def _finding(one: Finding) -> dict[str, Any]:
    return {
        "check": one.check,
        "stage": one.stage,
        "action": one.action,
        "found": list(one.found),
        "score": None if one.score is None else _round(one.score),
        "index": one.index,
    }


def provenance_notes(route: Route) -> list[str]:
    """What the files do not say, because the policy has it so."""
    left = {
        "full": "",
        "mark": "the files say that a model made them, and nothing else: they cannot be replayed",
        "none": "the files say nothing of how they were made, not even that a model made them",
    }[route.decision.provenance]
    return [f"provenance: {route.decision.provenance} ({route.decision.policy}): {left}"] if left else []


def checked_report(check: Check) -> dict[str, Any]:
    """A picture that was looked at."""
    seconds = sum(trace.seconds for trace in check.traces)
    return {
        "recipe": check.recipe,
        "seed": check.seed,
        "score": _round(check.score),
        "probability": _round(check.probability),
        "accepted": check.accepted,
        "seconds": _round(seconds),
    }


def chosen_report(chosen: Chosen) -> dict[str, Any]:
    """What is done next, and the steps of the picture that is made now."""
    plan = chosen.plan
    return {**_plain(asdict(chosen.choice)), "steps": [] if plan is None else _steps(plan)}


def routed_report(route: Route, wire: ImageRequest) -> dict[str, Any]:
    """A decision in short, as the events of a job tell it: what was chosen and why, what is expected, the steps."""
    decision = route.decision
    return {
        "recipe": decision.recipe,
        "policy": decision.policy,
        "reasons": list(decision.reasons),
        "warnings": [*wire.warnings, *warnings(route)],
        "seed": route.request.seed,
        "width": route.plan.width,
        "height": route.plan.height,
        "estimate": _plain(asdict(route.estimates[decision.recipe])),
        "steps": _steps(route.plan),
    }


def _steps(plan: Plan) -> list[dict[str, Any]]:
    """What there is to do, in order; `inputs` are the ids of the steps that come before."""
    return [{"id": s.id, "kind": s.kind, "model": s.model, "inputs": list(s.inputs)} for s in plan.steps]


def route_report(route: Route, asked: Sequence[str] = (), made: Sequence[str] = ()) -> dict[str, Any]:
    """The decision: what was known, estimated, refused, ranked and planned.

    asked, made: further warnings, about the request's body, and about the pictures
    """
    decision = route.decision
    return {
        "policy": decision.policy,
        "policy_digest": decision.policy_digest,
        "artifact": route.artifact[:12],
        "recipe": decision.recipe,
        "reasons": list(decision.reasons),
        "rules": list(decision.rules),
        "propensity": decision.propensity,
        "explored": decision.explored,
        "degraded_from": decision.degraded_from,
        "provenance": decision.provenance,
        "verify": _verify(route),
        "features": {name: _round(value) for name, value in route.view.features.items() if value},
        "signals": {name: _round(value) for name, value in route.view.signals.items() if value},
        "familiarity": route.view.familiarity,
        "in_domain": route.view.familiarity,  # its name until 0.2
        "warnings": [*asked, *warnings(route), *made],
        "estimates": {name: _plain(asdict(estimate)) for name, estimate in route.estimates.items()},
        "ranking": [{"recipe": r.recipe, "utility": _round(r.utility)} for r in decision.ranking],
        "rejected": [asdict(rejection) for rejection in decision.rejected],
        "plan": plan_report(route.plan),
        "safety": safety_report(decision.safety),
        "decided_in_s": _round(route.decided_in_s),
    }


def route_answer(route: Route, wire: ImageRequest, request_id: str) -> dict[str, Any]:
    """The body of `POST /v1/route`."""
    return {"request_id": request_id, **route_report(route, wire.warnings), "replay": replay(route, wire)}


def _verify(route: Route) -> dict[str, Any] | None:
    """How pictures are checked, and what stands behind the verdicts."""
    if (verify := route.decision.verify) is None:
        return None
    score_reading = route.score_reading or ScoreReading()
    told = _plain(asdict(verify))
    former = {"worth": told["prices"], "judgement": score_reading.note}  # their names until 0.2
    return {**told, "calibrated": score_reading.calibrated, "score_reading": score_reading.note, **former}


def warnings(route: Route) -> list[str]:
    """What a client should not overlook before the first step, in words: what the models or the predictor do not know,
    and a recipe that is expected to fail."""
    found = []
    view, expected = route.view, route.estimates[route.decision.recipe].quality
    if view.unsaid:
        words = ", ".join(map(repr, view.unsaid[:SHOWN])) + (", …" if len(view.unsaid) > SHOWN else "")
        found.append(
            f"no caption that these models were trained on says {words}: out of range of what they know, so the "
            "picture is likely to show something else, whatever quality is expected"
        )
    elif view.out_of_range:
        found.append(
            f"this prompt is out of range: it is unlike those that the predictor was trained on (nearness "
            f"{view.familiarity:.2f} of 1), so the estimates are averages and say little about it"
        )
    safety = route.decision.safety
    if route.request.lenient and not (safety and safety.skipped):
        found.append("moderation: 'low' changes nothing: there is no check here that may be left out")
    if expected.mean < 0.5:
        found.append(f"{route.decision.recipe} is expected to fail on this prompt (quality {expected.mean:.2f} of 1)")
    return [*found, *partly_followed(route), *route.plan.overlooks]


def partly_followed(route: Route) -> list[str]:
    """A warning for the steps and the guidance that a request asks for where the recipe refines by its own: they are
    for what draws from noise."""
    found = []
    for name, asked in (("steps", route.request.steps), ("guidance_scale", route.request.guidance_scale)):
        own = {
            f"{step.model} refines with {step.settings[name]:g}"
            for step in route.plan.steps
            if step.kind == "refine" and asked is not None and step.settings[name] != asked
        }
        if own:
            found.append(
                f"{name}: {asked:g} is for the pictures that are drawn from noise; {' and '.join(sorted(own))}"
            )
    return found


def unread(outcome: Outcome) -> list[str]:
    """A warning for each model that did not read the prompt to its end."""
    tokens: dict[str, int] = {}
    for made in outcome.made:
        for trace in made.traces:
            if isinstance(more := trace.facts.get("truncated_tokens"), int) and more > 0 and trace.step.model:
                tokens[trace.step.model] = max(more, tokens.get(trace.step.model, 0))
    return [
        f"{model} did not read the last {more} tokens of the prompt: it is too long" for model, more in tokens.items()
    ]


def unrepeatable(outcome: Outcome) -> list[str]:
    """A warning for each model that is drawn elsewhere without being told the seed: the same request makes another
    picture there."""
    steps = [trace for made in outcome.made for trace in made.traces if "remote" in trace.facts]
    names = {str(t.step.model): str(t.facts["remote"]) for t in steps if t.step.settings.get("seed") is None}
    return [
        f"{model} is drawn by {name}, which is told no seed: the same request will not make the same picture again"
        for model, name in names.items()
    ]


def plan_report(plan: Plan) -> dict[str, Any]:
    """The plan of the first picture."""
    return {
        "recipe": plan.recipe,
        "digest": plan.digest(),
        "width": plan.width,
        "height": plan.height,
        "output": plan.output,
        "notes": list(plan.notes),
        "handovers": [handover_report(taken) for taken in plan.handovers],
        "steps": [
            {
                "id": s.id,
                "kind": s.kind,
                "model": s.model,
                "inputs": list(s.inputs),
                "produces": s.produces,
                "settings": _plain(s.settings),
            }
            for s in plan.steps
        ],
    }


def _replay(outcome: Outcome, wire: ImageRequest) -> dict[str, Any]:
    """`replay` of what was made; a single picture of another seed than was asked for has that seed."""
    body = replay(outcome.route, wire, {made.recipe for made in outcome.made})
    return {**body, "seed": outcome.made[0].seed} if len(outcome.made) == 1 else body


def handover_report(taken: HandOver) -> dict[str, Any]:
    """What a step takes from the one before, sizes as `WxH`."""
    return {
        **asdict(taken),
        "size_from": "{}x{}".format(*taken.size_from),
        "size_to": "{}x{}".format(*taken.size_to),
    }


def replay(route: Route, wire: ImageRequest, made_by: Collection[str] = ()) -> dict[str, Any]:
    """A request body that makes the same pictures again, whatever the policy would choose then.

    made_by: the recipes of the pictures; if they differ, each needs the body with its own `recipe` and `seed`
    """
    request = route.request
    recipe = next(iter(made_by)) if len(made_by) == 1 else route.decision.recipe
    body: dict[str, Any] = {"prompt": request.prompt, "model": route.decision.policy, "recipe": recipe}
    if wire.recipe is None and request.recipe is not None and route.decision.policy != request.target:
        # The name of a recipe or of a model says all; its policy may be one that was made up for it.
        body = {"prompt": request.prompt, "model": wire.model}
    given: dict[str, Any] = {
        "negative_prompt": request.negative_prompt or None,
        "steps": request.steps,
        "guidance_scale": request.guidance_scale,
        "tags": list(request.tags) or None,
        "style": dict(request.style) or None,
        **given_again(request),
        "strength": request.strength,
        "input_fidelity": "high" if request.faithful else None,
        "deterministic": request.deterministic or None,
        "output_compression": wire.output_compression,
        # The queues of another moment would resolve the search otherwise.
        "turns": [asdict(turn) for turn in route.turns_of(recipe)] or None,
    }
    size = "auto" if request.width is None else f"{request.width}x{request.height}"
    body |= {"n": request.n, "seed": request.seed, "size": size, "output_format": wire.output_format}
    return body | {key: value for key, value in given.items() if value is not None}


def given_again(request: GenerationRequest) -> dict[str, Any]:
    """The given pictures by their digests, as a body names them."""
    names = [f"sha256:{one.digest}" for one in request.pictures]
    others = {role: request.brings(role) for role in ("mask", "reference")}
    return {
        "image": names[0] if len(names) == 1 else names or None,
        **{role: None if one is None else f"sha256:{one.digest}" for role, one in others.items()},
    }


def headers(report: Mapping[str, Any]) -> dict[str, str]:
    """The decision in the response's headers, for whoever does not read bodies."""
    made = {"x-triptych-recipe": report["recipe"], "x-triptych-policy": report["policy"]}
    made["x-triptych-policy-digest"] = report["policy_digest"]
    if "latency_s" in report:
        made |= {"x-triptych-latency-s": str(report["latency_s"]), "x-triptych-cost": f"{report['cost_usd']:.6g}"}
    return made


def _trace(trace: StepTrace) -> dict[str, Any]:
    return {
        "id": trace.step.id,
        "kind": trace.step.kind,
        "model": trace.step.model,
        "seconds": _round(trace.seconds),
        "started_s": _round(trace.started_s),
        "ended_s": _round(trace.ended_s),
        "seed": trace.step.settings.get("seed"),
        "settings": _plain(trace.step.settings),
        "facts": _plain(trace.facts),
    }


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _plain(value) if isinstance(value, Mapping) else _round(value) if isinstance(value, float) else value
        for key, value in values.items()
    }


def _round(value: float) -> float:
    """Six significant digits: enough for every reader, and the JSON stays legible."""
    return float(f"{value:.6g}")


def model_list(overview: Overview, since: int, limits: Limits) -> list[dict[str, Any]]:
    """`openai.types.Model`s: auto, policies, recipes of the default policy, models, aliases; and, which are for `style`
    and not for `model`, styles that a model here can wear.

    The first of equal names wins, as in a request.
    """
    default = overview.policies[0]
    models: dict[str, dict[str, Any]] = {
        "auto": {
            "kind": "policy", "description": f"the default policy, {default.name}", "takes": _taken(default.takes),
        }
    }  # fmt: skip
    for policy in overview.policies:
        entry = {"kind": "policy", "description": policy.description, "digest": policy.digest}
        models.setdefault(policy.name, {**entry, "recipes": list(policy.recipes), "takes": _taken(policy.takes)})
    for recipe in default.recipes:
        told = {"kind": "recipe", "description": f"a recipe of policy {default.name}"}
        models.setdefault(recipe, {**told, "takes": list(default.takes.get(recipe, ("text",)))})
    for card in overview.cards:
        if card.role in ("base", "editor"):
            models.setdefault(card.id, {"kind": "model", **_card(card, overview.statuses.get(card.id))})
    for style in {name: style for card in overview.cards for name, style in card.styles.items()}.values():
        if worn_by := [card.id for card in overview.cards if wearable(style, card)]:
            models.setdefault(style.id, {"kind": "style", **_style(style), "worn_by": worn_by})
    for alias, name in limits.aliases.items():
        models.setdefault(alias, {"kind": "alias", "description": f"stands for {name}"})
    frame = {"object": "model", "created": since, "owned_by": "triptych"}
    return [{"id": name, **frame, "x_triptych": facts} for name, facts in models.items()]


def _taken(takes: Mapping[str, Sequence[str]]) -> list[str]:
    """What one or another recipe makes its picture of."""
    return list(dict.fromkeys(kind for each in takes.values() for kind in each)) or ["text"]


def _card(card: ModelCard, status: WorkerStatus | None) -> dict[str, Any]:
    return {
        "description": card.description,
        "family": card.family,
        "takes": list(model_takes(card)),
        "native_size": list(card.native_size),
        "max_pixels": card.max_pixels,
        "revision": card.revision,
        "licence": card.licence,
        "commercial_use": card.commercial_use,
        "state": status.state if status else "starting",
    }


def _style(style: Style) -> dict[str, Any]:
    return {
        "description": style.description,
        "family": style.family,
        "style_kind": style.kind,
        "weights": [style.least, style.most] if style.blends else [0, 1],
        "blends": style.blends,
        "many": style.many,
        "licence": style.licence,
    }


def readiness(overview: Overview) -> tuple[bool, dict[str, Any]]:
    """(ready, body). Ready means that no model is still starting; one that failed is out, and its recipes with it."""
    statuses = [overview.statuses.get(card.id, WorkerStatus(card.id, "starting")) for card in overview.cards]
    states = {status.state for status in statuses}
    ready = "starting" not in states and bool(states & {"ready", "idle"})
    problems = bool(overview.problems or overview.artifact_problem)
    failed = bool(states & {"failed", "lost"}) or problems
    body = {
        "status": "starting" if not ready else "degraded" if failed else "ready",
        "models": {s.model: _state(s) for s in statuses},
        "policies": {policy.name: policy.digest for policy in overview.policies},
        "policy_problems": list(overview.problems),
        "artifact": overview.artifact[:12],
        "artifact_problem": overview.artifact_problem,
    }
    return ready, body


def _state(status: WorkerStatus) -> dict[str, Any]:
    """How a model is, how long ago that was seen, and the same of each replica if there are several."""
    seen = {} if status.seen_at is None else {"age_s": round(max(0.0, time.time() - status.seen_at), 1)}
    each = {"replicas": [_state(one) for one in status.each]} if status.each else {}
    return {"state": status.state, "reason": status.reason, **seen, **_plain(status.facts), **each}


def policy_file(file: PolicyFile) -> dict[str, Any]:
    """A policy's file with its history; times in ISO 8601."""
    versions = [
        {"digest": v.digest, "since": datetime.fromtimestamp(v.since_s, UTC).isoformat(timespec="milliseconds")}
        for v in file.versions
    ]
    return {"name": file.name, "digest": file.digest, "text": file.text, "versions": versions}
