"""What a further picture is worth, in numbers worked out by hand, and how a search is written down."""

from __future__ import annotations

import pytest

from router.types import Prices, Resources, Turn
from router.verification.n_auto import _rounded
from router.verification.score_reading import ScoreModel
from router.verification.value_of_information import Option, value_of_a_look, weigh

SURE = ScoreModel(1.0, 1.0, 0.0, on_right=(20.0,), on_wrong=(-20.0,))  # which tells right from wrong by itself
CHEAP, STRONG = Option("cheap", 0.5, 2.0, Resources(0.2)), Option("strong", 0.9, 2.0, Resources(1.0))
FREE = Prices()


def test_a_chance_after_verdicts_is_that_of_a_beta_prior() -> None:
    """A chance of .5 worth two pictures is .625 after one that was right and one of which that is even likely."""
    assert CHEAP.after([]) == 0.5
    assert CHEAP.after([1.0, 0.5]) == pytest.approx((1.0 + 1.5) / 4)
    assert CHEAP.after([0.0]) == pytest.approx(1 / 3)


def test_a_recipe_is_tried_four_times_unless_it_is_said_otherwise() -> None:
    """After three failures once more, after four no longer; the others go on."""
    for tries, left in ((3, True), (4, False), (5, False)):
        assert (weigh([CHEAP], {"cheap": [0.0] * tries}, SURE, FREE) is not None) is left
    other = weigh([CHEAP, STRONG], {"strong": [0.0] * 4}, SURE, FREE)
    assert other is not None and other.recipe == "cheap"
    twice = weigh([CHEAP, STRONG], {"strong": [0.0] * 2}, SURE, FREE, most=2)
    assert twice is not None and twice.recipe == "cheap"


def test_of_equal_options_the_last_by_name_is_taken() -> None:
    """In whatever order they come; and each is told with its price, and the gain over the best so far."""
    alike = [Option(name, 0.5, 2.0, Resources(0.2)) for name in ("b", "c", "a")]
    found = weigh(alike, {}, SURE, Prices(per_s=0.1))
    assert found is not None and (found.recipe, found.worth_it) == ("c", True)
    assert found.price == pytest.approx(0.02) and found.gain == pytest.approx(0.5, abs=1e-6)
    later = weigh(alike, {"b": [0.4], "x": [0.2]}, SURE, Prices(per_s=0.1))
    assert later is not None and later.gain == pytest.approx(0.5 * 0.6, abs=1e-6)


def test_a_try_is_worth_it_above_the_best_and_not_at_it() -> None:
    """The reservation value has to be more than what is there already."""
    price = Prices(per_s=0.1)
    bar = float(SURE.reservation(0.5, 0.02))
    for best, worth_it in ((bar - 1e-9, True), (bar, False), (bar + 1e-9, False)):
        found = weigh([CHEAP], {"other": [best]}, SURE, price)
        assert found is not None and found.worth_it is worth_it


def test_a_look_is_worth_what_may_follow_it() -> None:
    """Nothing where nothing may; after a picture that is right by chance .5, half of what the strong one then gains."""
    assert value_of_a_look(CHEAP, [], SURE, FREE) == 0.0
    assert value_of_a_look(CHEAP, [STRONG], SURE, FREE) == pytest.approx(0.5 * 0.9, abs=1e-6)
    dear = Prices(per_s=0.4)
    assert value_of_a_look(CHEAP, [STRONG], SURE, dear) == pytest.approx(0.5 * (0.9 - 0.4), abs=1e-6)
    assert value_of_a_look(CHEAP, [STRONG], SURE, Prices(per_s=2.0)) == 0.0
    # What failed once fails more easily again: the cheap one by 1/3, for .08.
    assert value_of_a_look(CHEAP, [CHEAP], SURE, dear) == pytest.approx(0.5 * (1 / 3 - 0.08), abs=1e-6)
    assert value_of_a_look(CHEAP, [CHEAP, STRONG], SURE, dear) == pytest.approx(0.5 * 0.5, abs=1e-6)


def test_turns_are_written_down_with_numbers_that_survive_it() -> None:
    """The bar to four digits, all else to six, and the branch by its key."""
    turn = Turn("1", 0.12345678, 1.23456789, -2.34567891, 0.45678912)
    assert _rounded(turn, {"0": "sd15", "1": "sdxl"}) == Turn("sdxl", 0.1235, 1.234568, -2.345679, 0.456789)
