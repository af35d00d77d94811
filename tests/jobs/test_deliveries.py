"""One delivery of a webhook, without sockets: what counts as taken, when it is tried again, how many at once."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from deployments.jobs import webhooks as module
from deployments.jobs.webhooks import AT_ONCE, WAITS_S, Origin, Webhooks, is_public, origin_of, secret_of, signature
from deployments.settings import WebhookSettings
from deployments.store.errors import FencedError, StoreError
from router.errors import NotFoundError, StepError
from tests.store.values import job

URL = "https://hooks.example.org/done"


class Keeper:
    """A store of webhooks that are due, and of what became of them."""

    def __init__(self, *due: Any) -> None:
        self.due, self.kept, self.asked = list(due), list[Any](), list[int]()
        self.failures: list[Exception] = []

    def due_webhooks(self, now: float, most: int) -> list[Any]:
        self.asked.append(most)
        assert now == pytest.approx(time.time(), abs=60)
        return list(self.due)

    def set_webhook(self, id: str, fence: int, hook: dict[str, Any]) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.kept.append((id, fence, hook))
        self.due = [one for one in self.due if one.id != id]


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What receivers say (`status`, an exception to be raised) and what they got."""
    said: dict[str, Any] = {"status": 200, "got": []}

    async def post(url: str, body: bytes, headers: dict[str, str], private: bool) -> int:
        said["got"].append((url, body, headers, private))
        if isinstance(said["status"], Exception):
            raise said["status"]
        if "hold" in said:
            await said["hold"].wait()
        return int(said["status"])

    monkeypatch.setattr(module, "post", post)
    return said


def hooks(keeper: Keeper, allow: tuple[str, ...] = ("https://hooks.example.org",)) -> Webhooks:
    async def report(record: Any) -> dict[str, Any]:
        return {"id": record.id, "é": 1}

    made = Webhooks(keeper, WebhookSettings(allow=allow), report, lambda: b"master")
    made._fence = 7
    return made


def due(name: str = "a", **hook: Any) -> Any:
    return job(name, webhook={"url": URL, "base": "b", **hook})


@pytest.mark.parametrize(
    ("status", "tries", "state", "wait_s", "last"),
    [
        (200, 0, "delivered", None, ""), (299, 2, "delivered", None, ""), (300, 0, "waiting", 5.0, "HTTP 300"),
        (199, 1, "waiting", 30.0, "HTTP 199"), (500, 2, "waiting", 120.0, "HTTP 500"),
        (409, 5, "waiting", 21_600.0, "HTTP 409"),
        (500, 6, "failed", None, "HTTP 500"), (410, 0, "failed", None, "HTTP 410: it wants no more"),
        (OSError("no route"), 3, "waiting", 600.0, "no route"), (StepError("gone"), 4, "waiting", 3600.0, "gone"),
        (OSError("x" * 300), 0, "waiting", 5.0, "x" * 200),
    ],
)  # fmt: skip
async def test_a_try_is_taken_put_off_or_given_up(
    answer: dict[str, Any], status: Any, tries: int, state: str, wait_s: float | None, last: str
) -> None:
    """2xx takes it; what is left is tried again after 5 s, 30 s, ... 6 h, and then given up; 410 ends it at once."""
    keeper = Keeper()
    answer["status"] = status
    await hooks(keeper)._deliver(due(tries=tries))
    ((id, fence, hook),) = keeper.kept
    assert (id, fence, hook["state"], hook["tries"], hook["last"]) == ("a", 7, state, tries + 1, last)
    assert (hook["url"], hook["base"]) == (URL, "b")
    expected = None if wait_s is None else pytest.approx(time.time() + wait_s, abs=4)
    assert hook["next_at"] == expected
    assert WAITS_S == (5.0, 30.0, 120.0, 600.0, 3600.0, 21_600.0)


async def test_what_is_sent_is_signed_over_what_is_sent(answer: dict[str, Any]) -> None:
    """The job as JSON without blanks, under its id and the time, signed by the tenant's secret."""
    keeper = Keeper()
    record = due()
    await hooks(keeper)._deliver(record)
    ((url, body, headers, private),) = answer["got"]
    assert (url, private, json.loads(body)) == (URL, False, {"id": "a", "é": 1}) and b" " not in body
    at = int(headers["webhook-timestamp"])
    assert at == pytest.approx(time.time(), abs=60)
    mark = signature(secret_of(b"master", "acme"), "a", at, body)
    assert headers == {"webhook-id": "a", "webhook-timestamp": str(at), "webhook-signature": mark}


async def test_what_is_not_allowed_any_more_is_not_sent(answer: dict[str, Any]) -> None:
    """The settings may have changed since the job was accepted."""
    keeper = Keeper()
    await hooks(keeper, ("https://elsewhere.example",))._deliver(due())
    assert answer["got"] == [] and keeper.kept[0][2]["state"] == "failed"
    assert keeper.kept[0][2]["last"] == "it is not allowed any more"


@pytest.mark.parametrize("error", [FencedError("another"), NotFoundError("gone"), StoreError("away")])
async def test_what_became_of_it_is_written_until_the_store_takes_it(
    answer: dict[str, Any], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Or says that it is another's to write, or of no job."""
    monkeypatch.setattr(module, "LOOK_S", 0.001)
    keeper = Keeper()
    keeper.failures = [error, error]
    await asyncio.wait_for(hooks(keeper)._deliver(due()), 5)
    again = type(error) is StoreError
    assert (len(keeper.kept), len(keeper.failures)) == ((1, 0) if again else (0, 1))


async def test_sixteen_are_under_way_at_once_and_each_once(
    answer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often one looks; when one is through, the next begins, at once if somebody wakes it."""
    monkeypatch.setattr(module, "LOOK_S", 0.005)
    answer["hold"] = asyncio.Event()
    keeper = Keeper(*(due(f"j{k}") for k in range(20)))
    made = hooks(keeper)
    made.start(9)
    made.start(9)
    for _ in range(200):
        await asyncio.sleep(0.005)
        if len(answer["got"]) >= AT_ONCE and len(keeper.asked) > 3:
            break
    assert len(answer["got"]) == 16 == AT_ONCE == len(made._under_way) and set(keeper.asked) == {16}
    answer["hold"].set()
    for _ in range(200):
        await asyncio.sleep(0.005)
        made.wake()
        if len(keeper.kept) == 20:
            break
    assert sorted(id for id, _, _ in keeper.kept) == sorted(f"j{k}" for k in range(20))
    assert {fence for _, fence, _ in keeper.kept} == {9}
    await asyncio.wait_for(made.stop(), 5)


async def test_stopping_ends_it_also_just_when_something_is_due(answer: dict[str, Any]) -> None:
    """A job that ends in the moment of the end does not keep it going."""
    keeper = Keeper()
    made = hooks(keeper)
    made.start(1)
    for _ in range(200):
        await asyncio.sleep(0.005)
        if keeper.asked:
            break
    await asyncio.sleep(0.05)
    made.wake()
    await asyncio.wait_for(made.stop(), 5)
    assert made._looking is not None and made._looking.cancelled()


async def test_a_store_that_is_away_is_looked_at_again(answer: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """So it is after a bug; where no webhook is allowed, nobody looks."""
    monkeypatch.setattr(module, "LOOK_S", 0.002)
    keeper = Keeper(due())
    look, failures = keeper.due_webhooks, [StoreError("away"), ValueError("a bug")]

    def failing(now: float, most: int) -> Any:
        if failures:
            raise failures.pop(0)
        return look(now, most)

    monkeypatch.setattr(keeper, "due_webhooks", failing)
    made = hooks(keeper)
    made.start(1)
    for _ in range(400):
        await asyncio.sleep(0.005)
        if keeper.kept:
            break
    assert keeper.kept and not failures
    await made.stop()
    none = hooks(keeper, ())
    none.start(1)
    assert none._looking is None
    await none.stop()


def test_an_origin_below_a_star_is_longer_than_it() -> None:
    """`*.shop.example` covers what ends with it, and not itself; scheme and port are the same."""
    star = Origin("https", "*.shop.example", 443)
    assert star.covers(Origin("https", "a.shop.example", 443))
    for other in (Origin("https", ".shop.example", 443), Origin("https", "shop.example", 443),
                  Origin("http", "a.shop.example", 443), Origin("https", "a.shop.example", 444)):  # fmt: skip
        assert not star.covers(other)
    assert origin_of("http://HOST./x") == Origin("http", "host", 80) and origin_of("https://h").port == 443
    assert origin_of("https://h:0") == Origin("https", "h", 443)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("2001:0:4136:e378:8000:63bf:80ff:fffe", False), ("64:ff9b::a00:1", False), ("64:ff9b::808:808", True),
        ("2002:808:808::", True), ("::ffff:8.8.8.8", True), ("ff0e::1", False), ("239.1.1.1", False),
        ("fe80::1%1", False),
    ],
)  # fmt: skip
def test_an_address_within_an_address_counts(address: str, public: bool) -> None:
    """Of Teredo the client's, of NAT64 and 6to4 the one of version 4; what goes to many goes to nobody."""
    assert is_public(address) is public
