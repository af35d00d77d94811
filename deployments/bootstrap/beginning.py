"""What is asked for, in words, to what a study is made of: prompts, recipes, the judge."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from deployments.bootstrap.study import different
from deployments.settings import AppSettings
from models.judging.judges import Combined, Judge, ScorerJudge
from models.weights.revisions import revision
from policies import Policy
from router.errors import ArtifactError, PolicyError, RequestError, did_you_mean
from router.planning.recipes import recipe_key
from router.types import Catalogue

EVERYDAY, SHAPES, LOG = "everyday", "shapes", "log"
SHAPES_A_TIER = 160
LETTERING = "ocr"


def prompts_for(wanted: str | None, settings: AppSettings, catalogue: Catalogue) -> tuple[str, ...]:
    """Different prompts of a file, of the log of decisions (`log`), or that come with Triptych: `everyday`, or `shapes`
    for models that draw nothing else, which is the default for these. Raises `ArtifactError`."""
    drawing = [catalogue[model] for model in catalogue.ids() if catalogue[model].role == "base"]
    wanted = wanted or (SHAPES if drawing and all(card.words for card in drawing) else EVERYDAY)
    if wanted == EVERYDAY:
        from router.bootstrap.prompts import everyday_prompts

        return different(everyday_prompts())
    if wanted == SHAPES:
        from models.embedded.outcomes import held_out_prompts
        from models.embedded.world import TIERS

        by_tier = [held_out_prompts(tier, SHAPES_A_TIER, seed=170) for tier in TIERS]
        return different([some[k].text for k in range(SHAPES_A_TIER) for some in by_tier])
    if wanted == LOG:
        from deployments.assembly import log_of

        if not (found := different(log_of(settings).prompts())):
            raise ArtifactError(
                "the log of decisions holds no prompt's text; it keeps them with `feedback: {store_prompts: text}` in "
                "the config. Or give a file with --prompts"
            )
        return found
    from router.learning.tables.prompts import read_prompts

    return different(read_prompts(Path(wanted)))


def recipes_of(policy: Policy, catalogue: Catalogue) -> dict[str, str]:
    """The names of a policy's recipes by key, equal ones once. Raises `PolicyError` for one that looks at pictures by a
    ladder, for then what is drawn is not what was asked for."""
    if policy.verify is not None and policy.verify.by == "ladder":
        raise PolicyError(
            f"policy {policy.name!r} verifies by a ladder, so another recipe may answer than the one that is measured; "
            "take a policy without, or with `verify: {by: expected_gain}`"
        )
    found: dict[str, str] = {}
    for name, recipe in policy.recipes.items():
        found.setdefault(recipe_key(recipe, policy.recipes, catalogue), name)
    return found


def judge_for(wanted: str | None, policy: Policy, settings: AppSettings, catalogue: Catalogue) -> tuple[Judge, str]:
    """The judge by its name, or several joined by "+", and the revision of their weights. By default the scorer that
    the policy verifies with, else the first of the config. Raises `RequestError`."""
    scorers = [model for model in catalogue.ids() if catalogue[model].role == "scorer"]
    if wanted is None:
        wanted = policy.verify.scorer if policy.verify is not None else next(iter(scorers), None)
    if not wanted:
        raise RequestError(
            "the config has no scorer, so nothing can judge pictures; add a model such as {card: real/vqa-alignment}",
            "judge",
        )
    judges: list[Judge] = []
    revisions: list[str] = []
    for name in wanted.split("+"):
        if name == LETTERING:
            from models.judging.lettering import VERSION, LetteringJudge

            judges.append(LetteringJudge())
            revisions.append(VERSION)
        elif name in scorers:
            placed = settings.models[name]
            judges.append(ScorerJudge(catalogue[name], placed.device, placed.dtype))
            revisions.append(revision(catalogue[name]))
        else:
            known = [*scorers, LETTERING]
            raise RequestError(f"the config has no scorer {name!r}{did_you_mean(name, known)}", "judge")
    return (judges[0] if len(judges) == 1 else Combined(tuple(judges))), "+".join(revisions)


def cards_of(recipes: Mapping[str, str], policy: Policy, catalogue: Catalogue) -> dict[str, dict[str, object]]:
    """What the cards of the recipes' models say now, for the artefact."""
    from router.planning.recipes import models_of, resolve
    from router.quality.composition import card_record

    used = {m for name in recipes.values() for m in models_of(resolve(policy.recipes[name], policy.recipes, (name,)))}
    return {model: card_record(model, catalogue) for model in sorted(used) if catalogue[model].role != "scorer"}
