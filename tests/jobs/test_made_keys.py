"""What a key may be told to allow, and the budget of whose keys is used most."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.jobs.keys import (
    CLASSES,
    PREFIX,
    SCOPES,
    WINDOWS_S,
    budget_of,
    budget_text,
    hash_of,
    made_key,
    period_of,
)
from deployments.jobs.limits import KEY, KeyLimits, RateLimitError
from deployments.jobs.values import Rate
from deployments.orchestration.budgets import Charge, TenantBudgets
from deployments.store.records import KeyRecord
from router.errors import RequestError


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"tenant": " "}, "tenant"),
        ({"tenant": "x" * 257}, "tenant"),
        ({"name": "x" * 257}, "name"),
        ({"scopes": ("generate", "all")}, "scopes"),
        ({"scopes": ()}, "scopes"),
        ({"priority": "urgent"}, "priority"),
        ({"priority": ""}, "priority"),
        ({"rpm": 0}, "rpm"),
        ({"rpm": 2**31}, "rpm"),
        ({"budget": "5usd"}, "budget"),
    ],
)
def test_a_key_that_cannot_be_is_refused_by_name(said: dict[str, Any], param: str) -> None:
    """Each bound just passed, with the field that is wrong."""
    with pytest.raises(RequestError) as refused:
        made_key(**{"tenant": "acme", **said})
    assert (refused.value.param, refused.value.code) == (param, "invalid_value")


@pytest.mark.parametrize(
    "said",
    [
        {"tenant": "x" * 256}, {"name": "x" * 256}, {"scopes": SCOPES}, {"rpm": 1}, {"rpm": 2**31 - 1},
        *({"priority": one} for one in CLASSES),
    ],
)  # fmt: skip
def test_a_key_may_be_at_each_bound(said: dict[str, Any]) -> None:
    """Whatever is just within it, is kept as it was said."""
    _, record = made_key(**{"tenant": "acme", **said})
    assert all(getattr(record, name) == value for name, value in said.items())


def test_a_key_s_record_has_its_hash_and_its_first_characters_alone() -> None:
    """By default it may generate and rate, in any class, without limits; scopes that are named twice count once."""
    key, record = made_key("acme")
    assert (record.hash, record.prefix) == (hash_of(key), key[: len(PREFIX) + 6])
    assert (record.scopes, record.rpm, record.budget, record.priority) == (
        ("generate", "feedback"),
        None,
        None,
        "interactive",
    )
    assert record.created_at == pytest.approx(time.time(), abs=60) and record.revoked_at is None
    assert made_key("acme", scopes=("admin", "admin"))[1].scopes == ("admin",)


@given(
    st.decimals(min_value="0.01", max_value=10**6, places=2),
    st.sampled_from(sorted(WINDOWS_S)),
    st.none() | st.integers(1, 400),
    st.sampled_from(["/", " / ", "per ", " per "]),
    st.booleans(),
)
def test_a_budget_is_read_as_it_is_said(amount: Any, window: str, count: int | None, by: str, plural: bool) -> None:
    """Dollars, a window, perhaps so many of them, in any case, with or without spaces; and it is told as it is read."""
    text = f" {amount}USD{by}{'' if count is None else count}{window}{'s' * plural} "
    budget = budget_of(text)
    assert budget == {"cost_usd": float(amount), "window_s": WINDOWS_S[window] * (count or 1)}
    again = budget_of(budget_text(budget))
    assert again is not None and again["window_s"] == budget["window_s"]
    assert again["cost_usd"] == pytest.approx(budget["cost_usd"], rel=1e-5)


@pytest.mark.parametrize(
    "text",
    ["", "5", "5usd/year", "0usd/day", "0.00usd/day", "-1usd/day", "5usd/0days", "5usd/00days", "5eur/day",
     "5usd/daysx", "5usd/day" + " " * 92, ".5usd/day", "5.usd/day"],
)  # fmt: skip
def test_what_is_no_budget_is_refused(text: str) -> None:
    """Nothing, another currency or window, no dollars, no days, a hundred characters."""
    with pytest.raises(RequestError, match="write it as 5usd/day"):
        budget_of(text)
    assert budget_of("5usd/day" + " " * 91) == {"cost_usd": 5.0, "window_s": 86_400.0}
    assert budget_of(None) is None and budget_text(None) is None


@pytest.mark.parametrize(
    ("window_s", "words"),
    [(60, "minute"), (90, "90s"), (5400, "90minutes"), (3600, "hour"), (7200, "2hours"), (86_400, "day"),
     (604_800, "week"), (1_209_600, "2weeks"), (2_592_000, "month"), (5_184_000, "2months"), (30, "30s"),
     (0.5, "0.5s")],
)  # fmt: skip
def test_a_window_is_told_in_the_greatest_unit_that_fits(window_s: float, words: str) -> None:
    """Whole units, else seconds."""
    assert period_of(window_s) == words


class _Admitted:
    def __init__(self, cost_usd: float) -> None:
        self.charge, self.cost_usd = Charge(), cost_usd

    def expected(self) -> tuple[float, float]:
        return 1.0, self.cost_usd


def test_of_a_tenant_s_keys_that_one_is_told_whose_budget_is_used_most() -> None:
    """By the share of it, revoked ones and those without a budget left out."""
    limits = KeyLimits(TenantBudgets(lambda: 1000.0), lambda: 1000.0)

    def key(name: str, tenant: str, cost_usd: float | None, **more: Any) -> KeyRecord:
        budget = None if cost_usd is None else {"cost_usd": cost_usd, "window_s": 60.0}
        return KeyRecord(name, name, tenant, budget=budget, **more)

    keys = [key("a", "acme", 10.0), key("b", "acme", 1.0), key("c", "acme", 4.0), key("d", "other", 2.0),
            key("e", "other", 2.0, revoked_at=1.0), key("f", "none", None)]  # fmt: skip
    for one, used in zip(keys, (3.0, 0.5, 1.0, 0.5, 2.0, 9.0), strict=True):
        limits.charge(one, _Admitted(used))  # type: ignore[arg-type]
    found = limits.tightest(keys)
    assert {tenant: (use.limit_usd, use.spent_usd, use.window_s) for tenant, use in found.items()} == {
        "acme": (1.0, pytest.approx(0.5), 60.0),
        "other": (2.0, pytest.approx(0.5), 60.0),
    }
    assert limits.tightest(reversed(keys)) == found
    assert limits.spent_usd(keys[-1]) == pytest.approx(9.0)
    (left,) = limits.allowances(keys[0])
    assert (left.cost_usd, left.whole_usd) == (pytest.approx(7.0), 10.0)
    assert limits.allowances(keys[-1]) == () == limits.allowances(KeyRecord("g", "", "acme", budget={"window_s": 5.0}))


def test_a_request_that_comes_when_none_may_says_when_all_may_again() -> None:
    """The refusal carries what is left, which is nothing, through every process."""
    error = RateLimitError("no", 3.5, Rate(2, 0, 50.0))
    again = type(error)(*error.args)
    assert (again.message, again.retry_after_s, again.rate) == ("no", 3.5, Rate(2, 0, 50.0))
    assert math.isclose(KeyLimits(TenantBudgets()).rate(KeyRecord("k", "", "t", rpm=3)).reset_s, 0.0)  # type: ignore[union-attr]
    assert KEY == ("", "key")
