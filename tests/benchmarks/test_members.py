"""Whether each family earns its place: bars on outcomes that are made up, so that what holds is known."""

import numpy as np
import pytest

from benchmarks.frontier.members import (
    Bar,
    Known,
    against_best,
    at_budgets,
    page,
    put_into,
    routed,
    share_bars,
    shares,
    without_each,
)
from benchmarks.frontier.run import Outcomes, always
from router.verification.score_reading import ScoreModel

PRICES = np.geomspace(0.01, 10, 6)
JUDGE = ScoreModel(1.0, 1.0, 0.0, (4.0,) * 4, (-4.0,) * 4)


def drawn(n: int = 60) -> Outcomes:
    """Three recipes: cheap and right on every third prompt, middling on two of three, dear on all; a useless fourth."""
    kind = np.arange(n) % 3
    chance = np.stack([kind == 0, kind < 2, kind < 3, kind < 0], 1)[..., None].astype(float)
    exact = np.repeat(chance, 4, axis=2)
    names = ("sd15", "sdxl", "flux", "useless")
    seconds = np.array([0.1, 0.3, 1.0, 1.0])
    return Outcomes(tuple(f"p {i}" for i in range(n)), ("counts",) * n, names, exact, exact, seconds, 0.001)


@pytest.fixture(scope="module")
def known() -> Known:
    """Chances that are the truth."""
    return Known(drawn().exact.mean(2).clip(0.01, 0.99), JUDGE, 3.0)


FAMILY = ["sd15", "sdxl", "flux", "flux"]


def test_each_family_is_chosen_where_it_is_the_cheapest_that_is_right(known: Known) -> None:
    """A third of the prompts each, by what is predicted; and nothing of a family that nobody would choose."""
    first = shares(drawn(), known.predicted, FAMILY)[0]
    assert [first[name] for name in ("sd15", "sdxl", "flux")] == pytest.approx([1 / 3] * 3)
    bars = share_bars(drawn(), known, ["sd15", "sdxl", "sdxl", "flux"])
    assert [bar.held for bar in bars] == [True, True, False]


def test_what_is_lost_without_a_family_is_what_only_it_can(known: Known) -> None:
    """Without the dear one a third of the marks is gone where it could be paid for; without the useless one nothing."""
    test = drawn()
    everything = routed(test, known, range(4), PRICES)
    needs = [{"sd15"}, {"sdxl"}, {"flux"}, {"none"}]
    curves, bars = without_each(test, known, needs, everything, np.array([0.2, 0.5, 1.1]), PRICES, 50)
    lost = dict(zip(("SD1.5", "SDXL", "FLUX"), bars, strict=True))
    assert lost["FLUX"].value == pytest.approx(100 / 3, abs=3) and lost["FLUX"].low > 10
    assert curves["flux"][-1]["lost"] == pytest.approx(100 / 3, abs=1)
    assert all(bar.held for bar in bars)
    without = routed(test, known, range(3), PRICES)
    weights = np.full((1, 60), 1 / 60)
    assert at_budgets(everything, [1.0], weights) == pytest.approx(at_budgets(without, [1.0], weights), abs=0.01)


def test_routing_gains_where_prompts_differ_and_no_curve_passes_the_oracle(known: Known) -> None:
    """By true chances the router alone gains over mixing at half of the best recipe's cost, and reaches the oracle."""
    test = drawn()
    bars = against_best(test, known, routed(test, known, range(4), PRICES), PRICES, 50)
    half, over, gap = bars[0], bars[2], bars[4]
    assert over.value > 10 and over.held
    assert gap.value == pytest.approx(0, abs=0.5)
    assert half.value == pytest.approx(0, abs=1)


def test_below_the_cheapest_there_is_nothing() -> None:
    """A budget that buys no picture has no marks, rather than some."""
    found = at_budgets(always(drawn()), [0.01, 0.1], np.full((1, 60), 1 / 60))
    assert np.isnan(found[0, 0]) and found[0, 1] == pytest.approx(1 / 3)


def test_a_missed_bar_is_said_to_be_missed() -> None:
    """The page counts what is held and names what is not; a page without its place is refused."""
    bars = [
        Bar("one", 6, 1, 9, 5, "points", True),
        Bar("two", 6, -1, 13, 5, "points", True),
        Bar("three", 1, 0.5, 2, 5, "times"),
    ]
    assert [bar.held for bar in bars] == [True, False, False]
    found = {
        "prompts": 9,
        "seeds": 4,
        "best recipe": "flux",
        "bars": [{**bar.__dict__, "held": bar.held} for bar in bars],
    }
    text = page(found)
    assert "1 of 3 bars are held" in text and text.count("**missed**") == 2
    assert "−1.0" in text
    told = put_into("before\n<!-- members -->\nold\n<!-- /members -->\nafter\n", found)
    assert told.startswith("before\n<!-- members -->\n1 of 3") and told.endswith("<!-- /members -->\nafter\n")
    assert put_into(told, found) == told
    with pytest.raises(SystemExit, match="no <!-- members -->"):
        put_into("nothing", found)
