"""Editors beside img2img: FLUX Fill draws in a mask, Kontext and klein draw anew while they look at given pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest

from models import Catalogue, Engine
from models.engine.warmup import warm_up_step
from models.fusion.kinds import run_step, side_by_side
from router.errors import PlanError, StepError
from router.planning.plan import make_plan
from router.types import Edit, Generate, GenerationRequest, GivenPicture, Mask, ModelCard, Picture, Plan, Step, Value

Engines = Callable[[str], Engine]
SIDE = 64
LOOKING = ("flux-kontext", "flux2-klein")
PICTURES = {
    digit * 64: np.random.default_rng(int(digit)).integers(0, 256, (SIDE, SIDE, 3), np.uint8) for digit in "123"
}
MASK = np.zeros((SIDE, SIDE), np.uint8)
MASK[: SIDE // 2] = 255


@pytest.fixture(scope="module")
def catalogue(cards: Mapping[str, ModelCard]) -> Catalogue:
    return Catalogue(dict(cards))


def request(count: int = 1, masked: bool = False, **asked: object) -> GenerationRequest:
    """One that brings so many of `PICTURES`."""
    given = [GivenPicture("image", digest, SIDE, SIDE) for digest in list(PICTURES)[:count]]
    given += [GivenPicture("mask", "f" * 64, SIDE, SIDE, 0.5)] if masked else []
    return replace(GenerationRequest("red dot", seed=1, given=tuple(given)), **asked)  # type: ignore[arg-type]


def drawn(engine: Engines, plan: Plan, pictures: Mapping[str, np.ndarray] = PICTURES) -> np.ndarray:
    """The picture of a plan."""
    values: dict[str, Value] = {}
    for step in plan.steps:
        inputs = [values[name] for name in step.inputs]
        if step.kind == "given":
            mask = step.produces == "mask"
            values[step.id] = Mask(MASK) if mask else Picture(pictures[str(step.settings["digest"])])
        else:
            values[step.id] = (engine(step.model).run(step, inputs) if step.model else run_step(step, inputs)).value
    made = values[plan.output]
    assert isinstance(made, Picture)
    return made.pixels


@pytest.mark.parametrize("model", ["flux-fill", *LOOKING])
def test_within_a_mask_every_byte_outside_stays(engine: Engines, catalogue: Catalogue, model: str) -> None:
    """Fill, Kontext and klein draw what a mask leaves open, by prompt and seed, and nothing else."""
    plan = make_plan("it", Edit(model, steps=2), request(masked=True), catalogue, {})
    given, made = next(iter(PICTURES.values())), drawn(engine, plan)
    assert np.array_equal(made[SIDE // 2 :], given[SIDE // 2 :])
    assert not np.array_equal(made[: SIDE // 4], given[: SIDE // 4])
    assert np.array_equal(made, drawn(engine, plan))
    assert not np.array_equal(made, drawn(engine, plan.with_seed(2)))


@pytest.mark.parametrize("model", LOOKING)
def test_an_instruction_is_followed_while_looking_at_every_picture(
    engine: Engines, catalogue: Catalogue, model: str
) -> None:
    """The picture that is drawn changes with each given one, and with what is said; it is not one of them noised."""
    plan = make_plan("it", Edit(model, steps=2), request(3), catalogue, {})
    made = drawn(engine, plan)
    assert made.shape == (SIDE, SIDE, 3)
    for digest in PICTURES:
        other = {**PICTURES, digest: np.zeros((SIDE, SIDE, 3), np.uint8)}
        assert not np.array_equal(made, drawn(engine, plan, other))
    without = make_plan(
        "it", Generate(model, steps=2), replace(request(), given=(), width=SIDE, height=SIDE), catalogue, {}
    )
    assert not np.array_equal(made, drawn(engine, without))


@pytest.mark.parametrize("model", LOOKING)
def test_further_pictures_are_looked_at_within_a_mask_too(engine: Engines, catalogue: Catalogue, model: str) -> None:
    """Those after the first are one picture side by side to the classes that draw within a mask."""
    plan = make_plan("it", Edit(model, steps=2), request(3, masked=True), catalogue, {})
    assert [step.kind for step in plan.steps] == ["given", "given", "given", "blend", "given", "inpaint", "paste"]
    made = drawn(engine, plan)
    other = drawn(engine, plan, {**PICTURES, "3" * 64: np.zeros((SIDE, SIDE, 3), np.uint8)})
    assert not np.array_equal(made[: SIDE // 2], other[: SIDE // 2]) and np.array_equal(
        made[SIDE // 2 :], other[SIDE // 2 :]
    )


def test_several_pictures_are_one_to_kontext_and_a_list_to_klein(catalogue: Catalogue) -> None:
    """Kontext's pipeline takes a list for a batch, so its pictures stand side by side; klein's takes a list."""
    one = make_plan("it", Edit("flux-kontext"), request(3), catalogue, {})
    assert [step.kind for step in one.steps] == ["given", "given", "given", "blend", "edit"]
    assert one.steps[3].settings["method"] == "side_by_side" and "references" not in one.steps[4].settings
    many = make_plan("it", Edit("flux2-klein"), request(3), catalogue, {})
    assert many.steps[-1].kind == "edit" and many.steps[-1].settings["references"] == 2
    assert len(many.steps[-1].inputs) == 3
    assert not one.overlooks and not many.overlooks


def test_pictures_side_by_side_keep_their_order_and_their_shapes() -> None:
    """A tall and a wide picture, brought to one height, fill their parts from left to right."""
    red, blue = np.full((40, 20, 3), (255, 0, 0), np.uint8), np.full((20, 40, 3), (0, 0, 255), np.uint8)
    made = side_by_side([red, blue], 100, 40)
    assert made.shape == (40, 100, 3)
    assert (made[:, :18] == (255, 0, 0)).all() and (made[:, 22:] == (0, 0, 255)).all()


@pytest.mark.parametrize(
    ("model", "asked", "why"),
    [
        ("flux-fill", request(), "only draws what a mask leaves open of a picture; send a mask"),
        ("flux-kontext", request(strength=0.4), "noises no picture again; leave out strength"),
        ("flux2-klein", request(strength=0.4), "noises no picture again; leave out strength"),
    ],
)
def test_what_an_editor_cannot_is_said(catalogue: Catalogue, model: str, asked: GenerationRequest, why: str) -> None:
    """A recipe whose model cannot take what is asked is refused with the reason."""
    with pytest.raises(PlanError, match=why):
        make_plan("it", Edit(model), asked, catalogue, {})


def test_an_editor_draws_nothing_from_noise(engine: Engines, catalogue: Catalogue) -> None:
    """Planner and engine refuse it, with what it is for; its warm-up is an edit."""
    with pytest.raises(PlanError, match="'flux-fill' is an editor and cannot generate; give it a picture and a mask"):
        make_plan("it", Generate("flux-fill"), GenerationRequest("red dot"), catalogue, {})
    with pytest.raises(StepError, match="is an editor and cannot 'generate'"):
        engine("flux-fill").run(Step("it", "generate", "flux-fill", (), "image", {"prompt": "red"}))
    assert warm_up_step(engine("flux-fill").card)[0].kind == "inpaint" and engine("flux-fill").warm_up() > 0


def test_staying_near_a_picture_is_no_strength_to_who_looks_at_it(catalogue: Catalogue) -> None:
    """`input_fidelity: high` is a low strength where a picture is noised, and nothing where it is looked at."""
    asked = request(faithful=True)
    assert "strength" not in make_plan("it", Edit("flux-kontext"), asked, catalogue, {}).steps[-1].settings
    assert make_plan("it", Edit("flux"), asked, catalogue, {}).steps[-1].settings["strength"] == 0.35


def test_what_is_seen_beside_what_is_drawn_costs(catalogue: Catalogue) -> None:
    """An edit that looks at pictures is as much work as drawing, once more for each that the network reads."""
    from router.cost.model import CostModel

    costs = CostModel(catalogue)

    def work(recipe: Edit | Generate, count: int) -> float:
        asked = request(count) if count else GenerationRequest("red", width=SIDE, height=SIDE)
        return costs.work(make_plan("it", recipe, asked, catalogue, {}).steps[-1])

    bare = work(Generate("flux2-klein"), 0)
    assert [work(Edit("flux2-klein"), count) / bare for count in (1, 2, 3)] == [2, 3, 4]
    assert [work(Edit("flux-kontext"), count) / work(Generate("flux-kontext"), 0) for count in (1, 3)] == [2, 2]
