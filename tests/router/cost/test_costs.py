"""Learned seconds, and queues in seconds of work."""

from __future__ import annotations

import json
import logging
import math
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.cost.model import CostModel, Rate, _fit, _level, denoising_steps, plan_seconds
from router.cost.queues import Queues, _Load
from router.planning.plan import make_plan
from router.types import Chain, Fuse, Generate, GenerationRequest, Plan, Recipe, Refine, Step, Upscale
from tests.guarded import Guarded
from tests.router.cards import CATALOGUE, PAIRED, Cards, together

REQUEST = GenerationRequest("a red circle")


def plan(recipe: Recipe, request: GenerationRequest = REQUEST) -> Plan:
    return make_plan("r", recipe, request, CATALOGUE, {})


def generate(steps: int = 30, side: int = 1024) -> Step:
    return plan(Generate("sdxl", steps=steps), GenerationRequest("x", width=side, height=side)).steps[0]


def changed(model: str, **fields: Any) -> Cards:
    return Cards({**CATALOGUE.cards, model: replace(CATALOGUE.cards[model], **fields)})


def test_the_prior_is_the_card() -> None:
    """0.5 s and 0.2 s a step at native size; a quarter of it at a quarter of the pixels."""
    costs = CostModel(CATALOGUE)
    assert costs.seconds(generate()) == pytest.approx(0.5 + 30 * 0.2)
    assert costs.seconds(generate(side=512)) == pytest.approx(0.5 + 30 * 0.2 / 4)
    assert costs.cost_usd(generate(), 3600) == 2.0


def test_shares_of_the_schedule_count() -> None:
    """until, from and strength leave their share of the steps."""
    base, refiner = plan(Chain((Generate("sdxl", until=0.8), Refine("sdxl-refiner", from_=0.8)))).steps
    assert (denoising_steps(base), denoising_steps(refiner)) == (pytest.approx(24), pytest.approx(6))
    again = plan(Chain((Generate("flux"), Refine("sdxl-refiner", strength=0.5)))).steps[1]
    assert denoising_steps(again) == 15


def test_two_models_together_take_the_time_of_both() -> None:
    """Each step runs both networks; the guest's pace is its own, at the pixels of the picture, and its price the host's
    accelerator's. What is measured belongs to the two together, not to the host alone."""
    step = together(Generate("sdxl", steps=20), Generate("small")).steps[0]
    costs = CostModel(PAIRED)
    assert costs.seconds(step) == pytest.approx(0.5 + 0.25 + 20 * (0.2 + 4 * 0.1))
    assert costs.cost_usd(step, 3600) == 2.0
    costs.observe(step, 100.0)
    assert costs.seconds(step) == pytest.approx(100.0, rel=0.02)
    assert costs.seconds(generate()) == pytest.approx(0.5 + 30 * 0.2)


def test_learning_finds_the_true_law_from_varied_steps() -> None:
    """From a card that is wrong by a factor of ten, thirty noisy measurements lead to within five per cent."""
    costs, rng = CostModel(CATALOGUE), random.Random(0)
    for _ in range(30):
        step = generate(steps=rng.randint(5, 50))
        costs.observe(step, (3.0 + 2.0 * denoising_steps(step)) * rng.uniform(0.95, 1.05))
    assert costs.seconds(generate(steps=10)) == pytest.approx(23.0, rel=0.05)
    assert costs.seconds(generate(steps=40)) == pytest.approx(83.0, rel=0.05)


def test_one_measurement_is_enough_to_leave_the_prior() -> None:
    """After a single step at 60 s, the same step is expected to take 60 s, and one of half the steps about half."""
    costs = CostModel(CATALOGUE)
    costs.observe(generate(), 60.0)
    assert costs.seconds(generate()) == pytest.approx(60.0, rel=0.02)
    assert 28 < costs.seconds(generate(steps=15)) < 36


def test_a_slow_first_call_is_forgotten_at_the_second() -> None:
    """A warm-up of ten times the usual does not outlive the first usual step, nor does a hiccup move the rest."""
    costs = CostModel(CATALOGUE)
    costs.observe(generate(), 65.0)
    costs.observe(generate(), 6.5)
    assert costs.seconds(generate()) == pytest.approx(6.5, rel=0.02)
    for seconds in (6.5, 6.5, 100.0, 6.5):
        costs.observe(generate(), seconds)
    assert costs.seconds(generate()) == pytest.approx(6.5, rel=0.02)


def test_a_lasting_change_is_followed() -> None:
    """When a worker becomes twice as slow for good, the estimate follows within twenty steps."""
    costs = CostModel(CATALOGUE)
    for seconds in [6.5] * 32 + [13.0] * 20:
        costs.observe(generate(), seconds)
    assert costs.seconds(generate()) == pytest.approx(13.0, rel=0.15)


def test_a_worker_that_is_five_times_as_slow_is_followed_at_the_third_step_and_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """After a window full of 2 s, the third of 10 s moves the estimate to 10 s, and the log says so; and back again."""
    costs = CostModel(CATALOGUE)
    with caplog.at_level(logging.INFO, "triptych.cost"):
        for _ in range(40):
            costs.observe(generate(), 2.0)
        assert not caplog.messages
        for _ in range(2):
            costs.observe(generate(), 10.0)
            assert costs.seconds(generate()) == pytest.approx(2.0, rel=0.02)
        costs.observe(generate(), 10.0)
        assert costs.seconds(generate()) == pytest.approx(10.0, rel=0.02)
        assert [m for m in caplog.messages if "5 times as long as before" in m and m.startswith("sdxl/generate/")]
        for _ in range(3):
            costs.observe(generate(), 2.0)
        assert costs.seconds(generate()) == pytest.approx(2.0, rel=0.02)
        assert len(caplog.messages) == 2


def test_the_change_of_a_worker_is_followed_for_steps_it_did_not_do_since() -> None:
    """When steps of one size have become five times as slow, those of a size never seen are expected to be, too."""
    costs = CostModel(CATALOGUE)
    for seconds in [6.5] * 20 + [32.5] * 5:
        costs.observe(generate(), seconds)
    assert costs.seconds(generate(side=512)) == pytest.approx(5 * (0.5 + 30 * 0.2 / 4), rel=0.05)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(8, 40), st.floats(4.0, 100.0), st.booleans(), st.integers(0, 10_000))
def test_single_outliers_never_move_an_estimate(count: int, factor: float, slow: bool, seed: int) -> None:
    """Whatever hiccups come with three usual steps between them, the estimate stays at the usual seconds."""
    costs, rng = CostModel(CATALOGUE), random.Random(seed)
    for k in range(count):
        costs.observe(generate(), 6.5 * rng.uniform(0.98, 1.02))
        if k >= 4 and k % 3 == 0:
            costs.observe(generate(), 6.5 * (factor if slow else 1 / factor))
            assert costs.seconds(generate()) == pytest.approx(6.5, rel=0.05)


def test_guidance_is_twice_the_work_and_keeps_a_law_of_its_own() -> None:
    """One pass a step takes half of two before anything was measured, and what is measured of one is not mixed into the
    other: 1 s and 2 s stay 1 s and 2 s."""
    costs = CostModel(CATALOGUE)

    def guided(scale: float) -> Step:
        return plan(Generate("sdxl", guidance_scale=scale)).steps[0]

    assert costs.work(guided(1.0)) == costs.work(guided(7.5)) / 2 == 15
    assert costs.seconds(guided(1.0)) == pytest.approx(0.5 + 30 * 0.1)
    for _ in range(10):
        costs.observe(guided(1.0), 1.0)
        costs.observe(guided(7.5), 2.0)
    assert costs.seconds(guided(1.0)) == pytest.approx(1.0, rel=0.02)
    assert costs.seconds(guided(7.5)) == pytest.approx(2.0, rel=0.02)


@pytest.mark.parametrize("other", ["size", "batch", "engine", "kind", "tiles"])
def test_what_changes_the_work_has_a_law_of_its_own(other: str) -> None:
    """Sizes, batches, engines, kinds of step and tiles of one model are measured apart, even where the seconds are not
    in proportion to the work."""
    costs = CostModel(CATALOGUE)
    usual, changed, how = generate(), generate(), {}
    if other == "size":
        changed = generate(side=512)
    elif other == "batch":
        how = {"batch": 4}
    elif other == "engine":
        how = {"engine": "onnx"}
    elif other == "kind":
        changed = plan(Chain((Generate("flux"), Refine("sdxl", strength=0.5)))).steps[1]
    else:
        large = Chain((Generate("sdxl"), Upscale(1.5), Refine("sdxl", strength=0.5, tile="native")))
        usual = plan(Chain((Generate("sdxl"), Refine("sdxl", strength=0.5)))).steps[1]
        changed = plan(large).steps[2]
    for _ in range(10):
        costs.observe(usual, 4.0)
        costs.observe(changed, 3.0, **how)  # type: ignore[arg-type]
    assert costs.seconds(usual) == pytest.approx(4.0, rel=0.02)
    assert costs.seconds(changed, **how) == pytest.approx(3.0, rel=0.02)  # type: ignore[arg-type]


def test_alone_is_what_is_meant_if_nothing_is_said() -> None:
    """Observed and expected, a step is made alone by the usual engine unless it is said otherwise."""
    costs = CostModel(CATALOGUE)
    for _ in range(3):
        costs.observe(generate(), 12.0)
        costs.observe(generate(), 6.0, batch=2)
        costs.observe(generate(), 3.0, engine="onnx")
    assert costs.seconds(generate()) == pytest.approx(12.0, rel=0.02)
    assert costs.seconds(generate(), batch=2) == pytest.approx(6.0, rel=0.02)
    assert costs.seconds(generate(), engine="onnx") == pytest.approx(3.0, rel=0.02)
    assert costs.rate(generate()) == costs.rate(generate(), 1) != costs.rate(generate(), 2)
    assert [costs.measured(generate(), *one) for one in ((), (1,), (2,), (1, "onnx"), (3,))] == [3, 3, 3, 3, 0]


def test_a_tuned_model_has_a_law_of_its_own() -> None:
    """What was measured before a model was tuned stands in until its first step, and is then forgotten for it."""
    plain = CostModel(CATALOGUE)
    for _ in range(5):
        plain.observe(generate(), 10.0)
    tuned = CostModel(changed("sdxl", tuned="compile=full"))
    tuned.restore(plain.snapshot())
    assert tuned.seconds(generate()) == pytest.approx(10.0, rel=0.02)
    tuned.observe(generate(), 4.0)
    assert tuned.seconds(generate()) == pytest.approx(4.0, rel=0.02)
    assert plain.seconds(generate()) == pytest.approx(10.0, rel=0.02)


def test_a_snapshot_of_before_is_still_read() -> None:
    """One law for all of a model and kind, as version 1 had it, stands in until more is seen."""
    costs = CostModel(CATALOGUE)
    costs.restore({"version": 1, "observations": {"sdxl/generate": [[30.0, 13.0]] * 5}})
    assert costs.seconds(generate()) == pytest.approx(13.0, rel=0.02)


def test_img2img_in_flow_matching_counts_the_steps_that_it_runs() -> None:
    """Four steps at strength .3 are two steps of work, not 1.2."""
    step = plan(
        Chain((Generate("sd15"), Refine("flux", strength=0.3))), GenerationRequest("x", width=1024, height=1024)
    )
    assert CostModel(CATALOGUE).work(step.steps[-1]) == pytest.approx(2.0)


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf])
def test_nonsense_is_not_learned(seconds: float) -> None:
    """A measurement that cannot be true changes nothing."""
    costs = CostModel(CATALOGUE)
    costs.observe(generate(), seconds)
    assert costs.seconds(generate()) == CostModel(CATALOGUE).seconds(generate())


def test_what_was_learned_survives_a_restart() -> None:
    """A snapshot goes through JSON, and a fresh model that restores it estimates the same."""
    costs, fresh = CostModel(CATALOGUE), CostModel(CATALOGUE)
    for k in range(5):
        costs.observe(generate(steps=10 + k), 30.0 + k)
    fresh.restore(json.loads(json.dumps(costs.snapshot())))
    assert fresh.seconds(generate()) == costs.seconds(generate())
    with pytest.raises(ValueError, match="delete the file"):
        fresh.restore({"version": 1, "observations": {"sdxl/generate": [["x"]]}})


def test_branches_on_different_models_overlap() -> None:
    """The latency of a fusion is its longer branch and what follows; its work is the sum."""
    queues = Queues(CostModel(CATALOGUE))
    fused = plan(Fuse("best_of", (Generate("sdxl"), Generate("flux")), "alignment"))
    sdxl, flux, score = 0.5 + 30 * 0.2, 4 * 1.0, 2 * 0.05
    timing = queues.estimate(fused)
    assert timing.work_s == pytest.approx(sdxl + flux + score)
    assert timing.latency_s == pytest.approx(max(sdxl, flux) + score, abs=0.01)
    assert timing.queue_s == 0
    assert timing.cost_usd == pytest.approx((sdxl * 2 + flux * 4 + score * 1) / 3600)


def test_branches_on_the_same_model_follow_one_another_unless_there_are_replicas() -> None:
    """Two pictures of one model take twice as long on one worker, and as long as one on two."""
    twice = plan(Fuse("average", (Generate("sd15"), Generate("sd15"))))
    assert Queues(CostModel(CATALOGUE)).estimate(twice).latency_s == pytest.approx(5.0, abs=0.1)
    assert Queues(CostModel(CATALOGUE), {"sd15": 2}).estimate(twice).latency_s == pytest.approx(2.5, abs=0.1)
    several = Queues(CostModel(CATALOGUE), {"sd15": 3}).estimate(plan(Generate("sd15")), 4)
    assert (several.work_s, several.latency_s) == (pytest.approx(10.0), pytest.approx(5.0))


def test_a_worker_that_runs_several_steps_at_once_counts_as_so_many() -> None:
    """Slots of a replica count as replicas in what is expected, and are kept when replicas come, and in copies."""
    twice = plan(Fuse("average", (Generate("sd15"), Generate("sd15"))))
    queues = Queues(CostModel(CATALOGUE), slots={"sd15": 2})
    assert queues.estimate(twice).latency_s == pytest.approx(2.5, abs=0.1)
    assert (queues.replicas("sd15"), queues.at_once("sd15"), queues.at_once("sdxl")) == (1, 2, 1)
    queues.set_replicas("sd15", 3)
    copies = (queues, queues.empty(), queues.before(queues.reserve(twice)))
    assert {(copy.replicas("sd15"), copy.at_once("sd15")) for copy in copies} == {(3, 6)}


def test_models_of_one_worker_wait_for_each_other() -> None:
    """Branches on two models that share a process follow one another, and the work of one is waiting for the other."""
    places = {"sdxl": "gpu0", "flux": "gpu0"}
    fused = plan(Fuse("best_of", (Generate("sdxl"), Generate("flux")), "alignment"))
    sdxl, flux, score = 0.5 + 30 * 0.2, 4 * 1.0, 2 * 0.05
    queues = Queues(CostModel(CATALOGUE), {}, places)
    assert queues.estimate(fused).latency_s == pytest.approx(sdxl + flux + score, abs=0.01)
    shared = Queues(CostModel(CATALOGUE), {"gpu0": 2}, places)
    assert shared.estimate(fused).latency_s == pytest.approx(max(sdxl, flux) + score, abs=0.01)
    queues.reserve(plan(Generate("sdxl")))
    assert queues.outstanding_s("flux") == queues.estimate(plan(Generate("flux"))).queue_s == pytest.approx(sdxl)
    assert queues.outstanding_s("sd15") == queues.estimate(plan(Generate("sd15"))).queue_s == 0


def test_weights_that_are_not_in_memory_are_waited_for_until_they_are() -> None:
    """Loading stands before a plan as the work of others does, whole on any number of replicas, in copies too, and for
    its own models only; without it, estimates are what they were."""
    queues = Queues(CostModel(CATALOGUE), {"gpu": 2}, {"sd15": "gpu", "flux": "gpu"})
    warm = queues.estimate(plan(Generate("sd15")))
    queues.set_loading({"sd15": 7.0, "flux": 0.0})
    for cold in (queues, queues.empty(), queues.before(queues.reserve(plan(Generate("sdxl"))))):
        found = cold.estimate(plan(Generate("sd15")))
        assert (found.queue_s, found.work_s) == (pytest.approx(7.0), warm.work_s)
        assert cold.estimate(plan(Generate("flux"))).queue_s == 0
    queues.reserve(plan(Generate("flux")))
    half = queues.outstanding_s("flux") / 2
    assert queues.estimate(plan(Generate("sd15"))).queue_s == pytest.approx(7.0 + half)
    state = queues.state
    queues.set_loading({"sd15": 7.0})
    assert queues.state == state
    queues.set_loading({"sd15": 0.0})
    assert queues.estimate(plan(Generate("sd15"))).queue_s == pytest.approx(half)


def test_waiting_is_the_work_of_others_by_replica() -> None:
    """Ten seconds reserved on a model are ten seconds of waiting, or five with two replicas, until released."""
    queues = Queues(CostModel(CATALOGUE))
    alone = queues.estimate(plan(Generate("sd15")))
    ticket = queues.reserve(plan(Generate("sd15")), n=4)
    assert queues.outstanding_s("sd15") == pytest.approx(10.0)
    assert queues.estimate(plan(Generate("sd15"))).queue_s == pytest.approx(10.0)
    assert queues.estimate(plan(Generate("flux"))).queue_s == 0
    queues.set_replicas("sd15", 2)
    assert queues.estimate(plan(Generate("sd15"))).latency_s == pytest.approx(alone.latency_s + 5.0)
    queues.release(ticket, "1-generate-sd15", 3)
    queues.release(ticket, "1-generate-sd15", 3)
    assert queues.outstanding_s("sd15") == pytest.approx(7.5)
    queues.release(ticket)
    queues.release(ticket)
    assert queues.estimate(plan(Generate("sd15"))) == alone


PLANS = tuple(
    map(
        plan,
        (
            Generate("sd15"),
            Generate("sd15", steps=2),
            Generate("flux"),
            Chain((Generate("sd15"), Refine("flux", strength=0.5))),
        ),
    )
)


@given(
    st.lists(st.tuples(st.sampled_from(PLANS), st.integers(1, 3)), min_size=1, max_size=6),
    st.data(),
)
def test_a_place_in_the_queues_sees_what_came_before_it_and_can_be_another_plan_s(
    reserved: list[tuple[Plan, int]], data: st.DataObject
) -> None:
    """`before` is as if nothing had come since; `move` leaves what a reservation of the new plan would have made; and
    `delays_nobody` is false exactly if a later one waits at a worker of which more is asked."""
    queues = Queues(CostModel(CATALOGUE))
    tickets = [queues.reserve(one, n) for one, n in reserved]
    k = data.draw(st.integers(0, len(tickets) - 1))
    other, n = data.draw(st.sampled_from(PLANS)), reserved[k][1]

    def asked(of: list[tuple[Plan, int]]) -> dict[str, float]:
        fresh = Queues(CostModel(CATALOGUE))
        for one, count in of:
            fresh.reserve(one, count)
        return {model: fresh.outstanding_s(model) for model in ("sd15", "flux")}

    def seen(of: Queues) -> dict[str, float]:
        return {model: of.outstanding_s(model) for model in ("sd15", "flux")}

    assert seen(queues.before(tickets[k])) == pytest.approx(asked(reserved[:k]))
    own, new, later = asked([reserved[k]]), asked([(other, n)]), asked(reserved[k + 1 :])
    more = any(new[model] > own[model] and later[model] > 0 for model in own)
    assert queues.delays_nobody(tickets[k], other, n) is not more
    queues.move(tickets[k], other, n)
    assert seen(queues) == pytest.approx(asked([*reserved[:k], (other, n), *reserved[k + 1 :]]))
    for ticket in tickets:
        queues.release(ticket)
    assert seen(queues) == {"sd15": 0.0, "flux": 0.0}


def test_costs_and_queues_touch_what_threads_share_only_under_their_lock() -> None:
    """Every method that reads or changes laws, tickets or kept estimates holds the lock while it does."""
    costs = CostModel(CATALOGUE)
    costs._seen, costs._rates = Guarded(costs._lock), Guarded(costs._lock)  # type: ignore[assignment]
    costs.observe(generate(), 6.0)
    costs.rate(generate())
    costs.snapshot()
    assert costs._seen.touched and costs._rates.touched

    class Watched(CostModel):
        def __setattr__(self, name: str, value: object) -> None:
            assert "version" not in self.__dict__ or self._lock.locked(), name
            super().__setattr__(name, value)

    Watched(CATALOGUE).restore(costs.snapshot())

    queues = Queues(CostModel(CATALOGUE))
    for name in ("_replicas", "_tickets", "_loads", "_alone", "_estimates"):
        setattr(queues, name, Guarded(queues._lock))
    queues.set_replicas("sd15", 2)
    ticket = queues.reserve(plan(Generate("sd15")))
    queues.estimate(plan(Generate("sd15")))
    queues.empty()
    queues.before(ticket)
    queues.delays_nobody(ticket, plan(Generate("flux")))
    queues.move(ticket, plan(Generate("flux")))
    queues.release(ticket)
    assert all(getattr(queues, name).touched for name in ("_replicas", "_tickets", "_loads", "_alone", "_estimates"))


def test_no_two_states_of_queues_are_called_the_same() -> None:
    """Whatever changes an estimate changes the state for good: reserving, releasing, replicas and what is learned; what
    changes nothing leaves it."""
    costs = CostModel(CATALOGUE)
    queues, one = Queues(costs), plan(Generate("sd15"))
    states = [queues.state]

    def told() -> None:
        states.append(queues.state)

    ticket = queues.reserve(one)
    told()
    queues.release(ticket, "1-generate-sd15")
    told()
    queues.release(ticket, "1-generate-sd15")
    queues.release(ticket, "no such step")
    queues.release(12345)
    assert queues.state == states[-1]
    second = queues.reserve(plan(Generate("flux")))
    told()
    queues.release(second)
    told()
    queues.set_replicas("sd15", 2)
    told()
    queues.set_replicas("sd15", 2)
    assert queues.state == states[-1]
    queues.set_loading({"sd15": 1.0})
    told()
    queues.set_loading({"sd15": 1.0, "flux": 0.0})
    assert queues.state == states[-1]
    queues.set_loading({"sd15": 0.0})
    told()
    costs.observe(generate(), 6.0)
    told()
    costs.restore(costs.snapshot())
    told()
    assert len(set(states)) == len(states)
    assert second != ticket


@pytest.mark.parametrize("steps", [1, 2, 30])
def test_what_follows_one_another_takes_as_long_as_its_steps_together(steps: int) -> None:
    """However short they are: on one worker, on several and on none."""
    costs = CostModel(CATALOGUE)
    for second in ("sd15", "sdxl"):
        chain = plan(Chain((Generate("sd15", steps=steps), Upscale(2), Refine(second, strength=1.0, steps=steps))))
        takes = Queues(costs).estimate(chain)
        assert takes.latency_s == pytest.approx(sum(plan_seconds(chain, costs).values()))


def test_steps_are_released_one_by_one_and_leave_exactly_nothing() -> None:
    """A step of a picture is released once, without a picture the next of its kind; after the last, what waits is 0,
    not what rounding left."""
    queues, one = Queues(CostModel(CATALOGUE)), plan(Generate("sd15", steps=7))
    taken = 0.7
    first, second = queues.reserve(one, n=3), queues.reserve(one)
    for left, picture in ((3, 1), (3, 1), (2, None), (1, None), (1, None)):
        queues.release(first, "1-generate-sd15", picture)
        assert queues.outstanding_s("sd15") == pytest.approx(taken * left)
    queues.release(second)
    assert queues.outstanding_s("sd15") == 0.0
    assert queues._loads == {}


def test_replicas_that_come_or_go_change_what_was_estimated_before() -> None:
    """An estimate kept from one worker is not given for two, and none at all counts as one."""
    queues, one = Queues(CostModel(CATALOGUE)), plan(Generate("sd15"))
    assert queues.estimate(one, 4).latency_s == pytest.approx(10.0)
    queues.set_replicas("sd15", 2)
    assert queues.estimate(one, 4).latency_s == pytest.approx(5.0)
    queues.set_replicas("sd15", 0)
    assert queues.estimate(one, 4).latency_s == pytest.approx(10.0)


def test_one_picture_is_meant_if_nothing_is_said() -> None:
    """In estimates of one plan or of several, in what is reserved, and in what takes its place."""
    queues, one, other = Queues(CostModel(CATALOGUE)), plan(Generate("sd15")), plan(Generate("sd15", steps=20))
    assert queues.estimate(one) == queues.estimates({"a": one})["a"] == queues.estimate(one, 1)
    ticket = queues.reserve(one)
    assert queues.outstanding_s("sd15") == pytest.approx(2.5)
    queues.reserve(one)
    assert queues.delays_nobody(ticket, other) and not queues.delays_nobody(ticket, other, 2)
    queues.move(ticket, other)
    assert queues.outstanding_s("sd15") == pytest.approx(2.0 + 2.5)


def test_waiting_is_what_the_queue_adds_and_falls_as_it_does() -> None:
    """The same plan is estimated anew as others are released: 5, 2.5 and 0 seconds of waiting, for one or several."""
    queues, one, several = Queues(CostModel(CATALOGUE)), plan(Generate("sd15")), plan(Generate("sd15"))
    first, second = queues.reserve(one), queues.reserve(one)
    for ticket, waits in ((first, 5.0), (second, 2.5), (None, 0.0)):
        for n in (1, 3):
            assert queues.estimate(several, n).queue_s == pytest.approx(waits)
            assert queues.estimate(several, n).latency_s == pytest.approx(waits + 2.5 * n)
        if ticket is not None:
            queues.release(ticket)


def test_a_short_wait_is_told_as_short_as_it_is() -> None:
    """A tenth of a second of others' work is a tenth of a second of waiting."""
    queues, one = Queues(CostModel(CATALOGUE)), plan(Generate("sd15"))
    alone = queues.estimate(one)
    queues._loads["sd15"] = _Load()
    queues._loads["sd15"].add(0.125)
    assert queues.estimate(one).queue_s == pytest.approx(0.125)
    assert queues.estimate(one).latency_s == pytest.approx(alone.latency_s + 0.125)


def test_estimates_of_searches_wait_only_where_work_is() -> None:
    """Behind two models with different loads, each branch waits for its own, and the longer one decides."""
    queues = Queues(CostModel(CATALOGUE))
    fused = plan(Fuse("best_of", (Generate("sd15"), Generate("flux")), "alignment"))
    alone = queues.estimate(fused)
    assert alone.latency_s == pytest.approx(2.5 + 0.1, abs=0.01)
    queues.reserve(plan(Generate("sd15")), n=4)
    busy = queues.estimate(fused)
    assert busy.latency_s == pytest.approx(10.0 + 2.5 + 0.1, abs=0.01)
    assert busy.queue_s == pytest.approx(busy.latency_s - alone.latency_s)
    assert busy.work_s == alone.work_s and busy.cost_usd == alone.cost_usd


def test_work_of_what_needs_no_model_is_its_pixels_times_its_pictures() -> None:
    """Blending two pictures of a megapixel is twice the work of enlarging to one; selecting takes no time by pixels."""
    costs, pixels = CostModel(CATALOGUE), 1_000_000
    blend = Step("b", "blend", None, ("x", "y"), "image", {})
    enlarge = Step("u", "upscale", None, ("x",), "image", {"width": 1000, "height": 1000})
    assert costs.seconds(blend, pixels) == pytest.approx(0.001 + 2 * 0.05)
    assert costs.seconds(enlarge) == pytest.approx(0.001 + 0.02)
    assert costs.seconds(Step("s", "select", None, ("x", "y"), "image", {}), pixels) == pytest.approx(0.0005)
    assert costs.work(Step("n", "upscale", None, (), "image", {}), pixels) == 1.0
    for side in ("width", "height"):  # one side is no size
        assert costs.work(Step("n", "upscale", None, (), "image", {side: 3000}), pixels) == 1.0
    assert costs.cost_usd(blend, 3600) == 0.0
    looks = Step("v", "score", "alignment", ("x", "y"), "scores", {"segments": 6})
    assert costs.work(looks) == 2 * 4
    assert costs.work(Step("v", "score", "alignment", ("x",), "scores", {"segments": 1})) == 1


def test_tiles_and_part_of_a_schedule_are_the_work_that_they_are() -> None:
    """Nine tiles of half a megapixel are four and a half megapixels; a share below one step is one step."""
    costs = CostModel(CATALOGUE)
    tiled = Step("r", "refine", "sdxl", ("x",), "image",
                 {"steps": 10, "strength": 0.5, "width": 2048, "height": 2048, "tiles": 9, "tile_width": 1024,
                  "tile_height": 512})  # fmt: skip
    assert costs.work(tiled) == pytest.approx(5 * 9 / 2)
    assert denoising_steps(Step("g", "generate", "sdxl", (), "image", {"steps": 10, "strength": 0.01})) == 1.0
    assert denoising_steps(Step("g", "generate", "sdxl", (), "image", {})) == 1.0
    assert denoising_steps(Step("g", "generate", "sdxl", (), "image", {"steps": 20, "from": 0.25, "until": 0.75})) == 10
    assert denoising_steps(Step("g", "generate", "sdxl", (), "image", {"steps": 20, "from": 0.25})) == 15


def test_a_law_is_of_a_size_only_where_a_model_has_one() -> None:
    """A seen size is told from another by its tile first, then its sides; a step off any model has one law for all."""
    costs = CostModel(CATALOGUE)
    keys = {
        costs._key(Step("r", "refine", "sdxl", ("x",), "image", settings), 1, "")
        for settings in (
            {"width": 1024, "height": 1024},
            {"width": 1024, "height": 512},
            {"width": 1024, "height": 1024, "tiles": 4, "tile_width": 512, "tile_height": 512},
            {"width": 2048, "height": 1024, "tiles": 9, "tile_width": 512, "tile_height": 512},
            {"width": 512, "height": 512},
        )
    }
    assert keys == {f"sdxl/refine/{size}/-/1/-" for size in ("1024x1024", "1024x512", "512x512 tiles", "512x512")}
    off = [costs._key(Step("u", "upscale", None, ("x",), "image", {"width": w, "height": w}), 1, "") for w in (64, 128)]
    assert off == ["-/upscale/-/-/1/-"] * 2


def test_a_change_is_told_from_a_warm_up_and_from_small_changes(caplog: pytest.LogCaptureFixture) -> None:
    """A slow first call and what follows below it is no change, nor is half as much again; three times as long is, and
    is told once. A law of one machine tells nothing of another."""
    costs = CostModel(CATALOGUE)
    with caplog.at_level(logging.INFO, "triptych.cost"):
        for seconds in (60.0, 6.0, 6.0, 6.0, 6.0, 6.0, 9.0, 9.0, 9.0, 9.0, 9.0):
            costs.observe(generate(), seconds)
        assert caplog.messages == []
        for _ in range(5):
            costs.observe(generate(), 18.0)
        assert len(caplog.messages) == 1 and "3 times as long" in caplog.messages[0]
        for _ in range(5):
            costs.observe(generate(), 100.0, engine="onnx")
        assert len(caplog.messages) == 1


@pytest.mark.parametrize("pixels", [250_000, 1_000_000])
def test_more_work_is_no_change(pixels: int, caplog: pytest.LogCaptureFixture) -> None:
    """Eight times the work in eight times the seconds is as quick as before, also where both are below a second."""
    costs, enlarge = CostModel(CATALOGUE), Step("1", "upscale", None, ("x",), "image")
    with caplog.at_level(logging.INFO, "triptych.cost"):
        for times in [1] * 6 + [8] * 6:
            costs.observe(enlarge, 0.001 + 0.02 * times * pixels / 1e6, times * pixels)
    assert caplog.messages == []


@pytest.mark.parametrize(("factor", "told"), [(2.0, True), (1.75, False), (0.5, True), (0.625, False)])
def test_twice_or_half_as_long_is_a_change(factor: float, told: bool, caplog: pytest.LogCaptureFixture) -> None:
    """From exactly twice as long on, or half, it is told; below that it is not."""
    costs, select = CostModel(CATALOGUE), Step("1", "select", None, (), "image")
    with caplog.at_level(logging.INFO, "triptych.cost"):
        for seconds in [1.0] * 6 + [factor] * 5:
            costs.observe(select, seconds)
    assert len(caplog.messages) == told


def test_observations_of_one_model_leave_the_laws_of_others() -> None:
    """What is learned of sdxl changes no law of sdxl-refiner or of another kind of step, and is not lost itself."""
    costs = CostModel(CATALOGUE)
    refine = plan(Chain((Generate("sdxl"), Refine("sdxl-refiner", strength=0.5)))).steps[1]
    costs.observe(refine, 8.0)
    kept = costs.rate(refine)
    costs.observe(generate(), 60.0)
    assert costs.rate(refine) is kept
    assert costs.version == 2
    assert costs.seconds(generate(), batch=3) == pytest.approx(60.0, rel=0.02)


def test_the_law_of_a_fit_is_worked_out_by_hand() -> None:
    """Two observations of one work leave the card's proportions; observations of two works settle both numbers; neither
    is below zero."""
    prior = Rate(1.0, 1.0)
    same = _fit(prior, [(9.0, 20.0), (9.0, 20.0)])
    assert (same.overhead_s, same.per_unit_s) == (pytest.approx(2.0), pytest.approx(2.0))
    law = _fit(prior, [(float(w), 3.0 + 2.0 * w) for w in (1, 5, 20, 40) * 8])
    assert law.overhead_s == pytest.approx(3.0, abs=0.1) and law.per_unit_s == pytest.approx(2.0, abs=0.02)
    falling = _fit(prior, [(float(w), max(0.5, 40.0 - w)) for w in (20, 30, 35) * 8])
    assert falling.per_unit_s >= 0.0 and falling.overhead_s >= 0.0
    none = _fit(Rate(0.0, 0.0), [(0.0, 2.0), (0.0, 2.0)])
    assert math.isfinite(none.overhead_s) and math.isfinite(none.per_unit_s)


def test_what_observations_leave_open_is_settled_by_the_card() -> None:
    """Of observations of one work, which say nothing of overhead against steps, both move by as much of a job, and the
    card, scaled to the present level, counts a twentieth of an observation against them."""
    seen = [(4.0, 4.0), (4.0, 4.0), (4.0, 6.0)]
    level = _level(np.array([1.0, 1.0, 1.5]))
    law = _fit(Rate(2.0, 0.5), seen)
    above = law.overhead_s - 2.0 * level, 4.0 * (law.per_unit_s - 0.5 * level)
    assert above[0] == pytest.approx(above[1])
    weights = 0.81, 0.9, 1.0
    missed = sum(w * (seconds / (4.0 * level) - 1.0) for w, (_, seconds) in zip(weights, seen, strict=True))
    assert sum(above) / (4.0 * level) == pytest.approx(2 * missed / (2 * sum(weights) + 0.05))


@pytest.mark.parametrize(("seconds", "learned"), [(3.0, True), (3.01, False), (1 / 3, True), (0.33, False)])
def test_what_is_learned_lies_within_three_times_the_usual(seconds: float, learned: bool) -> None:
    """At exactly three times the usual seconds, or a third of them, an observation counts; beyond it is a hiccup."""
    law = _fit(Rate(0.0, 1.0), [*[(1.0, 1.0)] * 6, (1.0, seconds)])
    assert (abs(law.seconds(1.0) - 1.0) > 0.01) is learned


def test_recent_observations_weigh_more() -> None:
    """Of observations within the bounds of a hiccup, the last ones decide: ten of 12 s after ten of 8 s are nearer to
    12 than to 8, by the weights .9 to the power of their age."""
    costs = CostModel(CATALOGUE)
    for seconds in [8.0] * 10 + [12.0] * 10:
        costs.observe(generate(), seconds)
    weights = [0.9**age for age in range(20)]
    old, new = sum(weights[10:]), sum(weights[:10])
    # Relative errors to the present level, 12 s: a small part remains of the card's pull to that level.
    assert costs.seconds(generate()) == pytest.approx((8 * old + 12 * new) / (old + new), rel=0.01)


def test_only_the_latest_observations_are_kept() -> None:
    """Thirty-two of a law, so that what was long ago is gone."""
    costs = CostModel(CATALOGUE)
    for k in range(50):
        costs.observe(generate(), 1.0 + k)
    assert {len(pairs) for pairs in costs.snapshot()["observations"].values()} == {32}
    assert costs.snapshot()["observations"]["sdxl/generate/*"][0][1] == 19.0


def test_only_flow_matching_rounds_its_steps_up() -> None:
    """A third of ten steps is three and a third of work in diffusion; in flow matching, four whole ones."""
    settings = {"steps": 10, "strength": 0.33, "width": 1024, "height": 1024}
    costs = CostModel(CATALOGUE)
    assert costs.work(Step("r", "refine", "sdxl", ("x",), "image", settings)) == pytest.approx(3.3)
    assert costs.work(Step("r", "refine", "flux", ("x",), "image", settings)) == pytest.approx(4.0)
    assert costs.work(Step("r", "refine", "flux", (), "image", {**settings, "strength": None})) == pytest.approx(10.0)
    assert costs.work(Step("r", "refine", "flux", (), "image", {**settings, "steps": None})) == pytest.approx(1.0)


def test_a_price_for_each_picture_is_asked_with_its_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sides, or none of them are known."""
    asked = list[tuple[float, int]]()
    monkeypatch.setattr(
        type(CATALOGUE["sdxl"]), "cost_usd", lambda card, seconds, pixels: asked.append((seconds, pixels))
    )
    costs = CostModel(CATALOGUE)
    for sides in ({"width": 20, "height": 30}, {"width": 20}, {"height": 30}, {}):
        costs.cost_usd(Step("g", "generate", "sdxl", (), "image", sides), 2.5)
    assert asked == [(2.5, 600), (2.5, 0), (2.5, 0), (2.5, 0)]


def test_what_has_no_size_and_no_kind_that_is_known_takes_a_moment() -> None:
    """Without pixels there is no work, and of other kinds without a model pixels cost nothing."""
    costs = CostModel(CATALOGUE)
    assert costs.work(Step("u", "upscale", None, ("x",), "image", {})) == 0.0
    other: Any = "stitch"
    assert costs.seconds(Step("s", other, None, ("x",), "image", {}), 5_000_000) == pytest.approx(0.001)


def test_who_waits_for_nobody_is_as_quick_as_alone() -> None:
    """Where the longer branch has its worker for itself, what waits for the other one delays nothing."""
    queues = Queues(CostModel(CATALOGUE))
    fused = plan(Fuse("best_of", (Generate("sd15"), Generate("sdxl", steps=150)), "alignment"))
    alone = queues.estimate(fused)
    queues.reserve(plan(Generate("sd15")))
    busy = queues.estimate(fused)
    assert (busy.latency_s, busy.queue_s) == (pytest.approx(alone.latency_s), pytest.approx(0.0, abs=1e-9))
