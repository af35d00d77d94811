"""The presets for published checkpoints, on the cards of these: what they say of sizes, letters and refining."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.assembly import catalogue_of, policies_of
from deployments.offline.probes import run_probes
from deployments.offline.rehearsal import Rehearsal
from deployments.settings import DEFAULT_CONFIG, AppSettings, PolicySettings, load_serve_config
from policies import PRESETS
from router.planning.plan import make_plan
from router.types import GenerationRequest

REAL = PRESETS / "real"


@pytest.fixture(scope="module")
def settings() -> AppSettings:
    """The shipped config for real checkpoints, with these presets."""
    config = load_serve_config(DEFAULT_CONFIG.with_name("real.yaml")).settings
    return config.model_copy(update={"policies": PolicySettings(directory="policies/presets/real")})


def test_they_load_with_the_real_cards(settings: AppSettings) -> None:
    """All of them are sound on the real catalogue, each has a twin for the embedded family, and what OpenAI's
    `quality` stands for is among them."""
    names = set(policies_of(settings, catalogue_of(settings)).names())
    assert names == {path.stem for path in REAL.glob("*.yaml")} == {path.stem for path in PRESETS.glob("*.yaml")}
    assert names >= set(settings.limits.quality.values())


@pytest.fixture(scope="module")
def rehearsal(settings: AppSettings) -> Rehearsal:
    """Decisions on the real catalogue, with the artefact that is shipped for it."""
    return Rehearsal(settings)


@pytest.mark.shipped_weights
@pytest.mark.parametrize("path", sorted(REAL.glob("*.yaml")), ids=lambda path: path.stem)
def test_each_passes_its_probes(rehearsal: Rehearsal, path: Path) -> None:
    """Each does what its probes say."""
    verdicts = run_probes(REAL / "probes" / path.name, rehearsal)
    assert {verdict.probe: verdict.failures for verdict in verdicts if verdict.failures} == {}
    assert len(verdicts) >= 3


def test_every_model_draws_at_sizes_that_it_was_trained_on(settings: AppSettings) -> None:
    """Whatever recipe makes 1024x1024, SDXL-Turbo draws 512x512 of it, others a size of their own; drafts cannot."""
    catalogue = catalogue_of(settings)
    book = policies_of(settings, catalogue)
    for policy in map(book.get, book.names()):
        for name, recipe in policy.recipes.items():
            if name in ("draft", "packshot", "restaged"):  # two of them need a picture
                continue
            plan = make_plan(name, recipe, GenerationRequest("x", width=1024, height=1024), catalogue, policy.recipes)
            drawn = {str(step.model): step.settings for step in plan.steps if step.kind == "generate"}
            sizes = {model: (int(told["width"] or 0), int(told["height"] or 0)) for model, told in drawn.items()}
            assert sizes.get("sdxl-turbo", (512, 512)) == (512, 512)
            assert all(catalogue[model].good_at(*size) for model, size in sizes.items())
            assert (plan.width, plan.height) == (1024, 1024)
