"""Webhooks: signed, allowed, never to private addresses, again until they are taken; over a real store and sockets."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from deployments.jobs import webhooks as module
from deployments.jobs.webhooks import Allowed, is_public, post, secret_of, shown, signature
from deployments.settings import AppSettings, WebhookSettings, parse_settings
from router.errors import RequestError
from tests.deployments.support.scripted import Script
from tests.deployments.support.served import BODY, JOBS, Served, served


@dataclass
class Receiver:
    """An HTTP server on loopback that keeps what it gets. statuses: of its answers, the last one from then on"""

    port: int
    statuses: list[str] = field(default_factory=lambda: ["204 No Content"])
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/done"

    @property
    def settings(self) -> WebhookSettings:
        return WebhookSettings(allow=(f"http://127.0.0.1:{self.port}",), private=True)

    async def until(self, count: int) -> None:
        """Wait until so many deliveries came."""
        for _ in range(1000):
            if len(self.got) >= count:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"{len(self.got)} deliveries came, not {count}")


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver that listens."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = dict(line.lower().split(": ", 1) for line in head.splitlines()[1:] if line)
        body = await reader.readexactly(int(headers["content-length"]))
        made.got.append((dict(line.split(": ", 1) for line in head.splitlines()[1:] if line), body))
        status = made.statuses.pop(0) if len(made.statuses) > 1 else made.statuses[0]
        writer.write(f"HTTP/1.1 {status}\r\nlocation: {made.url}\r\ncontent-length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    made = Receiver(server.sockets[0].getsockname()[1])
    async with server:
        yield made


@pytest.fixture
async def receiver(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Receiver]:
    """One that is told quickly, and again after a moment."""
    monkeypatch.setattr(module, "LOOK_S", 0.02)
    async with receiving() as made:
        yield made


def soon(jobs: Any) -> None:
    """Try again after hundredths of a second."""
    jobs._webhooks.waits_s = (0.02, 0.02, 0.02)


async def hook_of(app: Served, id: str) -> dict[str, Any]:
    """What became of a job's webhook, once it is no longer waited for."""
    for _ in range(500):
        record = app.store.job(id)
        if record is not None and (record.webhook or {}).get("state") in ("delivered", "failed"):
            return dict(record.webhook or {})
        await asyncio.sleep(0.01)
    raise AssertionError("nothing came of it")


async def test_a_job_that_has_ended_is_told_signed(settings: AppSettings, tmp_path: Path, receiver: Receiver) -> None:
    """The body is the job with addresses of its pictures, none of their bytes; the signature is the tenant's, over id,
    time and body; the job says that it was delivered."""
    async with served(settings, tmp_path, webhooks=receiver.settings) as app:
        header = app.key("acme")
        id = (await app.http.post(JOBS, json={**BODY, "webhook": receiver.url}, headers=header)).json()["id"]
        await receiver.until(1)
        (headers, body), told = receiver.got[0], json.loads(receiver.got[0][1])
        assert (told["id"], told["state"], headers["webhook-id"]) == (id, "done", id)
        assert b"b64_json" not in body
        picture = await app.http.get(told["pictures"][0]["url"])
        assert picture.content.startswith(b"\x89PNG") and told["result"]["data"][0]["url"]
        secret = secret_of((tmp_path / "state" / "webhook-secret").read_bytes(), "acme")
        content = f"{id}.{headers['webhook-timestamp']}.".encode() + body
        mark = base64.b64encode(hmac.new(secret, content, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == f"v1,{mark}"
        assert (await hook_of(app, id))["state"] == "delivered"
        shown_job = (await app.http.get(f"{JOBS}/{id}", headers=header)).json()
        assert shown_job["webhook"] == {"url": receiver.url, "state": "delivered", "tries": 1}


def test_signatures_are_those_of_standard_webhooks() -> None:
    """The example of its specification: what libraries for it check is what is sent."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    assert shown(secret) == "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    assert (
        signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
        == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


async def test_failed_and_cancelled_jobs_are_told_too(
    settings: AppSettings, tmp_path: Path, receiver: Receiver
) -> None:
    """Whatever its end was."""
    async with served(settings, tmp_path, Script({}, delay_s=60), webhooks=receiver.settings) as app:
        id = (await app.http.post(JOBS, json={**BODY, "webhook": receiver.url})).json()["id"]
        await app.http.delete(f"{JOBS}/{id}")
        await receiver.until(1)
        assert json.loads(receiver.got[0][1])["state"] == "cancelled"


async def test_what_is_not_taken_is_sent_again(settings: AppSettings, tmp_path: Path, receiver: Receiver) -> None:
    """5xx, and even a redirect, which is not followed, until one is taken; each time under the same id."""
    receiver.statuses = ["500 No", "302 Found", "200 OK"]
    async with served(settings, tmp_path, change=soon, webhooks=receiver.settings) as app:
        id = (await app.http.post(JOBS, json={**BODY, "webhook": receiver.url})).json()["id"]
        assert {**await hook_of(app, id), "base": ""} == {
            "url": receiver.url, "base": "", "state": "delivered", "tries": 3, "next_at": None, "last": "",
        }  # fmt: skip
        assert [headers["webhook-id"] for headers, _ in receiver.got] == [id] * 3


@pytest.mark.parametrize(("statuses", "tries", "last"), [(["410 Gone"], 1, "410"), (["500 No"], 4, "HTTP 500")])
async def test_it_ends_some_time(
    settings: AppSettings, tmp_path: Path, receiver: Receiver, statuses: list[str], tries: int, last: str
) -> None:
    """After the last wait, or at once when the receiver says 410, it has failed, with the reason."""
    receiver.statuses = statuses
    async with served(settings, tmp_path, change=soon, webhooks=receiver.settings) as app:
        id = (await app.http.post(JOBS, json={**BODY, "webhook": receiver.url})).json()["id"]
        hook = await hook_of(app, id)
        assert (hook["state"], hook["tries"], last in hook["last"]) == ("failed", tries, True)
        await asyncio.sleep(0.2)
        assert len(receiver.got) == tries


async def test_what_waits_is_told_by_the_next_orchestrator(
    settings: AppSettings, tmp_path: Path, receiver: Receiver
) -> None:
    """A receiver that is away, a restart, and it is told then."""
    receiver.statuses = ["503 Away", "200 OK"]
    async with served(settings, tmp_path, webhooks=receiver.settings) as first:
        id = (await first.http.post(JOBS, json={**BODY, "webhook": receiver.url})).json()["id"]
        await receiver.until(1)
        record = await first.done(id)
        assert record["state"] == "done"
        while not (hook := (first.store.job(id)).webhook or {}).get("tries"):  # type: ignore[union-attr]
            await asyncio.sleep(0.01)
        first.store.set_webhook(id, first.jobs._open.fence, {**hook, "next_at": 0.0})  # its time has come, but it dies
        await first.jobs._webhooks.stop()  # type: ignore[union-attr]
    seen = len(receiver.got)
    async with served(settings, tmp_path, webhooks=receiver.settings) as second:
        await second.jobs.start()
        await receiver.until(max(2, seen))
        assert (await hook_of(second, id))["state"] == "delivered"


# ---------------------------------------------------------------------------------------------------------- addresses

ALLOWED = Allowed(
    WebhookSettings(allow=("https://hooks.example.org", "https://*.shop.example", "http://10.0.0.7:8080"))
)


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.org/a?b=c", "https://HOOKS.example.org:443/", "https://a.b.shop.example/x",
        "http://10.0.0.7:8080/x", "https://hooks.example.org./x",
    ],
)  # fmt: skip
def test_an_allowed_origin_is_allowed(url: str) -> None:
    """By scheme, host and port, in any case of letters, with any path."""
    ALLOWED.check(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.org/", "https://hooks.example.org:444/", "https://hooks.example.org.evil.net/",
        "https://evil.net/hooks.example.org", "https://shop.example/", "https://evilshop.example/", "https://.shop.example/",
        "https://hooks.example.org@evil.net/", "https://user:pw@hooks.example.org/", "https://evil.net\\@hooks.example.org/",
        "https://evil.net#@hooks.example.org/", "ftp://hooks.example.org/", "//hooks.example.org/", "hooks.example.org",
        "https://hooks.example.org/\r\nx: y", "https://hooks.example.org/ x", "https://hööks.example.org/", "https://",
        "https://hooks.example.org:99999/", "https://[::1/", "file:///etc/passwd", "",
    ],
)  # fmt: skip
def test_what_only_looks_allowed_is_refused(url: str) -> None:
    """Other schemes and ports, longer and shorter hosts, users, and what parsers read in two ways."""
    with pytest.raises(RequestError) as refused:
        ALLOWED.check(url)
    assert (refused.value.param, refused.value.code) == ("webhook", "webhook_refused")


async def test_a_webhook_that_is_not_allowed_is_refused_before_anything_is_made(
    settings: AppSettings, tmp_path: Path
) -> None:
    """400 at once, none is allowed by default, and no job is left behind."""
    async with served(settings, tmp_path) as app:
        for path in (JOBS, "/v1/images/generations"):
            answer = await app.http.post(path, json={**BODY, "webhook": "https://hooks.example.org"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "webhook_refused")
        assert (app.script.ran, app.store.jobs()[0]) == ([], [])


def test_wrong_origins_in_the_settings_are_refused(settings: AppSettings) -> None:
    """Without a scheme, with a path or a user."""
    for wrong in ("hooks.example.org", "https://x/y", "https://a@b", "ftp://x"):
        with pytest.raises(Exception, match=r"webhooks\.allow"):
            parse_settings({**settings.model_dump(mode="json"), "webhooks": {"allow": [wrong]}})


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True), ("2606:2800:220:1:248:1893:25c8:1946", True), ("127.0.0.1", False),
        ("10.1.2.3", False), ("172.16.0.1", False), ("192.168.1.1", False), ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False), ("224.0.0.1", False), ("255.255.255.255", False), ("::1", False), ("::", False),
        ("fe80::1%eth0", False), ("fd00::1", False), ("::ffff:127.0.0.1", False), ("::ffff:169.254.169.254", False),
        ("64:ff9b::7f00:1", False), ("2002:7f00:1::", False), ("64:ff9b::5db8:d822", True),
    ],
)  # fmt: skip
def test_only_addresses_of_the_open_internet_are_public(address: str, public: bool) -> None:
    """Not loopback, private, link-local (metadata services), shared, multicast, nor such addresses within IPv6."""
    assert is_public(address) is public


async def test_private_addresses_are_refused_when_connecting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A public name that leads to loopback, also beside a public address, gets no connection; what was looked at is
    what is connected to, however the name is answered later."""
    answers = [["127.0.0.1"], ["93.184.216.34", "127.0.0.1"]]

    async def resolved(host: str, port: int) -> list[str]:
        return answers.pop(0)

    monkeypatch.setattr(module, "addresses_of", resolved)
    async with receiving() as receiver:
        for _ in range(2):
            with pytest.raises(OSError, match="not public"):
                await post(f"http://hooks.example.org:{receiver.port}/", b"{}", {}, private=False)
        assert (receiver.got, answers) == ([], [])
        answers.append(["127.0.0.1"])
        assert await post(f"http://hooks.example.org:{receiver.port}/x", b"{}", {}, private=True) == 204
        assert receiver.got[0][0]["host"] == f"hooks.example.org:{receiver.port}"


async def test_a_receiver_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A try ends in time, whatever the other side does."""
    monkeypatch.setattr(module, "WHOLE_S", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(OSError, match="no answer within"):
            await post(f"http://127.0.0.1:{silent.getsockname()[1]}/", b"{}", {}, private=True)


def test_the_example_of_the_documents_checks_deliveries() -> None:
    """What docs/jobs.md shows takes a genuine delivery, and none that was changed or is old."""
    text = (Path(__file__).resolve().parents[3] / "docs" / "jobs.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    exec(text.partition("```python\n")[2].partition("```")[0], names)
    secret, now = secret_of(b"master", "acme"), int(time.time())

    def headers(at: int) -> dict[str, str]:
        mark = signature(secret, "job_1", at, b"{}")
        return {"webhook-id": "job_1", "webhook-timestamp": str(at), "webhook-signature": mark}

    assert names["is_genuine"](headers(now), b"{}", shown(secret))
    assert not names["is_genuine"](headers(now), b"{ }", shown(secret))
    assert not names["is_genuine"](headers(now - 1000), b"{}", shown(secret))


def test_every_tenant_has_a_secret_of_its_own() -> None:
    """None can sign what another receives."""
    assert len({secret_of(b"master", tenant) for tenant in ("", "acme", "other")} | {b"master"}) == 4
