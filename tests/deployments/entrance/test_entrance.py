"""The entrance, without a server: whose key it is and how long that is believed, addresses, bodies, statuses."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.datastructures import Headers

from deployments.api import keys as keys_module
from deployments.api import urls as urls_module
from deployments.api.calls import base_url, prefers_async
from deployments.api.edge import middleware as edge_module
from deployments.api.edge.middleware import (
    ARRIVED,
    BODY_BYTES,
    BODY_TIMEOUT_S,
    INSIDE,
    UPLOAD_BYTES,
    Edge,
    arrived_s,
    for_serve_proxy,
    told_by_serve,
)
from deployments.api.errors import FULL, STATUS_OF_CODE, envelope, headers, rate_headers, status_of
from deployments.api.keys import OPEN, Access, Gate, Keys, access_of, given_key, warned
from deployments.api.request_ids import HEADER, RequestIds, new_job_id, new_request_id
from deployments.api.urls import UrlSigner
from deployments.jobs.keys import SCOPES, hash_of
from deployments.jobs.values import Caller, Identity, Rate
from deployments.store.errors import StoreError
from deployments.store.records import KeyRecord
from router import errors
from router.errors import RequestError

KEY = "tp_" + "k" * 43


class Door:
    """Keys over a table of identities, by a clock that goes when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, gate: Gate | None = None, keyed: bool = True) -> None:
        self.now_s, self.asked, self.away = 1000.0, list[str | None](), False
        self.records: dict[str, KeyRecord] = {}
        self.keyed = keyed
        monkeypatch.setattr(keys_module, "time", SimpleNamespace(monotonic=lambda: self.now_s))

        async def authenticate(hash: str | None) -> Identity:
            self.asked.append(hash)
            if self.away:
                raise StoreError("away")
            return Identity(self.records.get(hash or ""), self.keyed)

        self.keys = Keys(lambda *_: None, gate or Gate(True), authenticate)  # type: ignore[arg-type, return-value]

    def add(self, key: str = KEY, **more: Any) -> None:
        self.records[hash_of(key)] = KeyRecord("key_1", hash_of(key), "acme", **more)


async def test_an_answer_about_a_key_is_believed_for_three_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """And for a minute while nobody answers; then it is an error."""
    door = Door(monkeypatch)
    door.add()
    for now_s, asked in ((1000.0, 1), (1002.999, 1), (1003.0, 2)):
        door.now_s = now_s
        assert (await door.keys.access(KEY)).key_id == "key_1"
        assert len(door.asked) == asked
    door.away = True
    for now_s in (1006.0, 1062.999):
        door.now_s = now_s
        assert (await door.keys.access(KEY)).key_id == "key_1"
    door.now_s = 1063.0
    with pytest.raises(StoreError):
        await door.keys.access(KEY)
    with pytest.raises(StoreError):
        await door.keys.access(KEY + "x")


async def test_the_oldest_of_many_answers_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many are kept as are meant to be; who came again is not the oldest."""
    monkeypatch.setattr(keys_module, "KNOWN", 2)
    door = Door(monkeypatch)
    for key in ("tp_a", "tp_b"):
        door.add(key)
        await door.keys.access(key)
    door.now_s += 3.0
    await door.keys.access("tp_a")
    door.add("tp_c")
    await door.keys.access("tp_c")
    assert list(door.keys._known) == [hash_of("tp_a"), hash_of("tp_c")]


@pytest.mark.parametrize(
    ("gate", "keyed", "key", "found"),
    [
        (Gate(True, admin_key="open sesame"), True, "open sesame", Access(tenant="")),
        (Gate(True, admin_key="open sesame"), False, "open sesame", Access(tenant=None)),
        (Gate(True), True, None, "key_required"),
        (Gate(True), True, "sk-1", "invalid_api_key"),
        (Gate(False), False, "tp_unknown", "invalid_api_key"),
        (Gate(False), False, "sk-1", Access(None, None, frozenset(("generate", "feedback")), admin_possible=False)),
        (Gate(False), True, None, Access("", None, frozenset(("generate", "feedback")), sees="")),
        (Gate("auto", loopback=True), False, None,
         Access(None, None, frozenset(("generate", "feedback")), admin_possible=False, looks=True)),
        (Gate("auto", loopback=True, admin_key="a"), False, None,
         Access(None, None, frozenset(("generate", "feedback")))),
        (Gate(False, loopback=True), True, None, Access("", None, frozenset(("generate", "feedback")), sees="")),
        (Gate("auto", loopback=False), False, None, "key_required"),
    ],
)  # fmt: skip
async def test_who_has_no_key_of_the_store_may_do_what_the_gate_says(
    monkeypatch: pytest.MonkeyPatch, gate: Gate, keyed: bool, key: str | None, found: Access | str
) -> None:
    """The operator's key does all; where none is needed, all but administering, and as nobody's tenant if there are
    tenants; only whoever is alone on a machine may look around."""
    door = Door(monkeypatch, gate, keyed)
    if isinstance(found, Access):
        assert await door.keys.access(key) == found
    else:
        with pytest.raises(RequestError) as refused:
            await door.keys.access(key)
        assert refused.value.code == found


async def test_a_key_of_the_store_sees_its_tenant_s_jobs_and_an_admin_s_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """An admin key has every scope."""
    door = Door(monkeypatch)
    door.add(scopes=("feedback",), priority="batch")
    assert await door.keys.access(KEY) == Access("acme", "key_1", frozenset(("feedback",)), "batch", "acme")
    door.add("tp_admin", scopes=("admin",))
    assert await door.keys.access("tp_admin") == Access("acme", "key_1", frozenset(SCOPES), "interactive", None)


@pytest.mark.parametrize(
    ("access", "scope", "code"),
    [
        (Access(scopes=frozenset(("generate",))), "generate", None),
        (Access(scopes=frozenset(("generate",)), key_id="k"), "feedback", "scope_missing"),
        (Access(scopes=frozenset(("generate",)), key_id="k"), "admin", "scope_missing"),
        (Access(scopes=frozenset()), "admin", "admin_key_required"),
        (Access(scopes=frozenset(), key_id="k", admin_possible=False), "admin", "admin_disabled"),
        (Access(scopes=frozenset(), admin_possible=False), "feedback", "scope_missing"),
    ],
)
def test_what_lacks_a_scope_is_told_how_to_get_it(access: Access, scope: Any, code: str | None) -> None:
    """Where nobody could administer, that; where a key could, that it needs one."""
    if code is None:
        access.need(scope)
        return
    with pytest.raises(RequestError) as refused:
        access.need(scope)
    assert refused.value.code == code


def test_who_may_look_needs_no_key_to_look() -> None:
    """Others need to be administrators; without a word nobody may do anything."""
    Access(scopes=frozenset(), looks=True).need_to_look()
    with pytest.raises(RequestError):
        Access(scopes=frozenset()).need_to_look()
    OPEN.need_to_look()
    nobody: Any = SimpleNamespace(state=SimpleNamespace())
    with pytest.raises(RequestError, match="yours has none"):
        access_of(nobody, "generate")
    assert access_of(nobody).sees == "" and access_of(nobody).tenant == ""


def test_a_class_is_the_lower_one_of_what_is_asked_and_what_is_allowed() -> None:
    """With a word if it is another one than was asked for."""
    one = Access(priority="standard")
    assert [one.clamped(asked) for asked in ("batch", "standard", "interactive")] == ["batch", "standard", "standard"]
    assert warned(one, "batch") == ("batch", [])
    assert warned(one, "interactive") == ("standard", ["priority: 'interactive' is beyond this key; it is 'standard'"])
    assert (one.caller("ann"), Access("acme", "k").caller("ann")) == (Caller("ann"), Caller("acme", "k"))
    assert Access("").caller("ann") == Caller("")


BASIC = "Basic " + base64.b64encode(b"user:pass:word").decode()


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({}, None), ({"authorization": "Bearer  a "}, "a"), ({"authorization": "BEARER a", "x-api-key": "b"}, "a"),
        ({"authorization": "Bearer ", "x-api-key": " b "}, "b"), ({"authorization": BASIC, "x-api-key": "b"}, "b"),
        ({"authorization": BASIC}, "pass:word"), ({"authorization": "basic !!"}, None), ({"x-api-key": " "}, None),
        ({"authorization": "Basic " + base64.b64encode(b"user:").decode()}, None),
        ({"authorization": "Digest a"}, None),
        ({"authorization": "Basic " + base64.b64encode(b"\xff:\xff").decode()}, None),
    ],
)  # fmt: skip
def test_a_key_is_where_clients_put_it(given: dict[str, str], key: str | None) -> None:
    """As a bearer token, else in a header of its own, else as a password."""
    assert given_key(Headers(given)) == key


@pytest.mark.parametrize(
    ("path", "free"),
    [("/health", True), ("/v1/images/a/content", True), ("/page/a.js", True), ("/page/a/b", False),
     ("/v1/images/a/b/content", False), ("/healthz", False), ("/root/health", True), ("/v1/images/a/content/", False)],
)  # fmt: skip
async def test_only_what_is_public_needs_no_key(monkeypatch: pytest.MonkeyPatch, path: str, free: bool) -> None:
    """Health, the page's files and signed pictures, also below a prefix; what is no HTTP passes."""
    door, passed = Door(monkeypatch), list[Any]()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        passed.append(scope)

    door.keys._app = app
    root = "/root" if path.startswith("/root") else ""
    scope: Any = {"type": "http", "path": path, "root_path": root, "headers": []}
    none: Any = None
    if free:
        await door.keys(scope, none, none)
        assert passed == [scope] and "state" not in scope
    else:
        with pytest.raises(RequestError):
            await door.keys(scope, none, none)
    await door.keys({"type": "lifespan"}, none, none)
    assert passed[-1] == {"type": "lifespan"}


# ------------------------------------------------------------------------------------------------------------ addresses


def test_an_address_is_good_until_its_second_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second longer than was said, since parts of one are cut off; who signs says where it is."""
    now = [1000.5]
    monkeypatch.setattr(urls_module, "time", SimpleNamespace(time=lambda: now[0]))
    signer = UrlSigner(b"secret", 60.0)
    signed = signer.sign("job_1/é", "http://host/root/")
    mark = signer._mark("job_1/é", 1061)
    assert signed.url == f"http://host/root/v1/images/job_1%2F%C3%A9/content?expires=1061&signature={mark}"
    assert signed.expires_at == 1061
    for at in (1000.5, 1061.0):
        now[0] = at
        assert signer.check("job_1/é", "1061", mark) == 1061
    now[0] = 1061.001
    with pytest.raises(RequestError) as late:
        signer.check("job_1/é", "1061", mark)
    assert late.value.code == "url_expired"
    assert UrlSigner(b"secret", 60.0, "https://cdn").sign("a", "http://host").url.startswith("https://cdn/v1/images/a/")


@pytest.mark.parametrize("expires", ["", "-1", "1e3", "١", "9" * 16, "1061 "])
def test_what_is_no_time_is_no_address_of_ours(expires: str) -> None:
    """Nor is one of another picture, another second or another secret."""
    signer = UrlSigner(b"secret")
    with pytest.raises(RequestError) as refused:
        signer.check("a", expires, "0")
    assert refused.value.code == "invalid_signature"
    far = 10**15 - 1
    assert signer.check("a", str(far), signer._mark("a", far)) == far
    for picture, at, mark in (("b", far, signer._mark("a", far)), ("a", far - 1, signer._mark("a", far)),
                              ("a", far, UrlSigner(b"other")._mark("a", far))):  # fmt: skip
        with pytest.raises(RequestError):
            signer.check(picture, str(at), mark)


def test_ids_cannot_be_guessed() -> None:
    """Twelve bytes of a request's, sixteen of a job's, each another one."""
    assert len(new_request_id()) == len("req_") + 24 and len(new_job_id()) == len("job_") + 32
    assert new_request_id() != new_request_id() and new_job_id() != new_job_id()


@pytest.mark.parametrize(
    ("given", "kept"), [("a" * 128, True), ("a" * 129, False), ("", False), ("a b", False), ("é", False)]
)
@pytest.mark.parametrize("echo", [True, False])
async def test_a_sound_id_of_a_client_is_kept(given: str, kept: bool, echo: bool) -> None:
    """Up to 128 printable characters; it is told in the answer, if it is not told already; what is no HTTP passes."""
    seen, sent = list[Any](), list[Any]()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "headers": [(HEADER.encode(), given.encode("latin-1"))]}
    none: Any = None
    ids = RequestIds(app, echo) if not echo else RequestIds(app)
    await ids(scope, none, send)
    found = seen[0]["state"]["request_id"]
    assert (found == given) is kept and Headers(raw=seen[0]["headers"])[HEADER] == found
    assert sent[0]["headers"] == ([(HEADER.encode(), found.encode())] if echo else [])
    await ids({"type": "lifespan"}, none, send)
    assert seen[1] == {"type": "lifespan"}


@pytest.mark.parametrize(
    ("prefer", "asynchronous"),
    [([], False), (["respond-async"], True), (["wait=10, Respond-Async; x=1"], True),
     (["wait=1", "respond-async"], True), (["respond-asynchronously"], False)],
)  # fmt: skip
def test_who_would_rather_have_a_job_says_so(prefer: list[str], asynchronous: bool) -> None:
    """In one of several headers, among other wishes, in any case."""
    request: Any = SimpleNamespace(
        headers=Headers(raw=[(b"prefer", one.encode()) for one in prefer]),
        base_url=SimpleNamespace(scheme="https", netloc="host:1", path="/root/"),
    )
    assert prefers_async(request) is asynchronous
    assert base_url(request) == "https://host:1/root"


# ------------------------------------------------------------------------------------------------------------- the edge


async def asked_of(
    edge: Edge, *bodies: bytes, length: str | None = None, end: str = "", **more: str
) -> tuple[Any, Any]:
    """(the scope that the application behind saw, what was sent) of a request that comes in some parts."""
    messages = [
        {"type": "http.request", "body": body, "more_body": n + 1 < len(bodies)} for n, body in enumerate(bodies)
    ]
    if end:
        messages[-1] = {"type": end}
    sent, seen = list[Any](), list[Any]()

    async def receive() -> Any:
        return messages.pop(0) if messages else await asyncio.sleep(60)

    async def send(message: Any) -> None:
        sent.append(message)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message["more_body"]:
                break
        seen.append((dict(Headers(raw=scope["headers"]).items()), body))

    edge._app = app
    raw = [
        (b"x-request-timeout-seconds", b"9"),
        (ARRIVED.encode(), b"1"),
        *((k.encode(), v.encode()) for k, v in more.items()),
    ]
    raw += [] if length is None else [(b"content-length", length.encode())]
    await edge({"type": "http", "path": "/", "headers": raw}, receive, send)
    return (seen[0] if seen else None), sent


def told(sent: Any) -> tuple[int, str]:
    return sent[0]["status"], json.loads(sent[1]["body"])["error"]["code"]


async def test_a_body_may_be_exactly_as_large_as_is_allowed() -> None:
    """As it says and as it is, in however many parts; a byte more is refused, and its connection closed."""
    none: Any = None
    edge = Edge(none, 10, 5.0)
    seen, _ = await asked_of(edge, b"12345", b"67890", length="10")
    assert seen is not None and seen[1] == b"1234567890"
    assert "x-request-timeout-seconds" not in seen[0] and float(seen[0][ARRIVED]) == pytest.approx(time.time(), abs=60)
    for bodies, length in (((b"12345", b"678901"), None), ((b"1",), "11")):
        seen, sent = await asked_of(edge, *bodies, length=length)
        assert seen is None and told(sent) == (413, "request_too_large")
        assert (b"connection", b"close") in sent[0]["headers"]
        assert (b"content-length", str(len(sent[1]["body"])).encode()) in sent[0]["headers"]
    assert (await asked_of(edge, b"1", length="x"))[0] is not None


async def test_an_encoded_body_is_refused_and_a_client_that_left_is_not_answered() -> None:
    """`identity` is none; a body that does not end in time is told so."""
    none: Any = None
    edge = Edge(none, 10, 0.02)
    assert (await asked_of(edge, b"1", **{"content-encoding": " Identity "}))[0] is not None
    assert (await asked_of(edge, b"1", **{"content-encoding": ""}))[0] is not None
    assert told((await asked_of(edge, b"1", **{"content-encoding": "gzip"}))[1]) == (415, "unsupported_media_type")
    assert await asked_of(edge, b"1", end="http.disconnect") == (None, [])
    assert told(await _slow(edge)) == (408, "request_timeout")


async def _slow(edge: Edge) -> Any:
    sent = list[Any]()

    async def receive() -> Any:
        await asyncio.sleep(5)

    async def send(message: Any) -> None:
        sent.append(message)

    await edge({"type": "http", "path": "/", "headers": []}, receive, send)
    return sent


@pytest.mark.parametrize(
    ("status", "text", "kind", "wait_s"),
    [
        (404, "", errors.NotFoundError, None), (429, "", errors.OverloadedError, 2.0),
        (408, "", errors.DeadlineError, None),
        (503, "Queue is full", errors.OverloadedError, 2.0), (503, "away", errors.LoadError, 2.0),
        (500, "queue", errors.StepError, None), (502, "", errors.StepError, None),
    ],
)  # fmt: skip
def test_what_serve_says_is_told_with_when_to_come_again(
    status: int, text: str, kind: Any, wait_s: float | None
) -> None:
    """Where waiting helps, in two seconds."""
    found = told_by_serve(status, text)
    assert type(found) is kind and found.retry_after_s == wait_s


def test_nothing_arrived_more_than_an_hour_ago_or_later_than_now() -> None:
    """What the proxy did not say is not known."""
    for said, found in (("5000", 5000.0), ("1399", 1400.0), ("1400.5", 1400.5), ("5001", 5000.0)):
        assert arrived_s(Headers({ARRIVED: said}), 5000.0) == found
    assert arrived_s(Headers({ARRIVED: "soon"}), 5000.0) is None is arrived_s(Headers({}), 5000.0)


def test_the_proxy_takes_its_bounds_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two mebibytes within twenty seconds, 64 with pictures, if nothing is said."""
    for name in (BODY_BYTES, BODY_TIMEOUT_S, UPLOAD_BYTES, INSIDE):
        monkeypatch.delenv(name, raising=False)
    assert for_serve_proxy()[0].kwargs == {
        "max_bytes": 2_097_152,
        "within_s": 20.0,
        "upload_bytes": 67_108_864,
        "inside": 128,
    }
    monkeypatch.setenv(BODY_BYTES, "7")
    monkeypatch.setenv(BODY_TIMEOUT_S, "0.5")
    monkeypatch.setenv(UPLOAD_BYTES, "9")
    monkeypatch.setenv(INSIDE, "3")
    assert for_serve_proxy()[0].kwargs == {"max_bytes": 7, "within_s": 0.5, "upload_bytes": 9, "inside": 3}
    assert for_serve_proxy()[1].kwargs == {"echo": False}
    assert edge_module.OLDEST_S == 3600.0


# ------------------------------------------------------------------------------------------------------------- failures


@pytest.mark.parametrize(
    ("error", "status", "type_", "told"),
    [
        (errors.RequestError("m", "p"), 400, "invalid_request_error", {}),
        (errors.RequestError("m", None, "key_required"), 401, "invalid_request_error", {"WWW-Authenticate": "Bearer"}),
        (errors.RequestError("m", None, "request_timeout"), 408, "invalid_request_error", {"x-should-retry": "false"}),
        (errors.RequestError("m", None, "conflict"), 409, "invalid_request_error", {"x-should-retry": "false"}),
        (errors.OverloadedError("m", 0.2), 429, "rate_limit_error", {"Retry-After": "1", FULL: "1"}),
        (errors.OverloadedError("m", 7.01), 429, "rate_limit_error", {"Retry-After": "8", FULL: "1"}),
        (errors.StepError("m"), 500, "server_error", {"x-should-retry": "false"}),
        (errors.NotFoundError("m", "p"), 404, "invalid_request_error", {}),
        (ValueError("secret"), 500, "server_error", {"x-should-retry": "false"}),
    ],
)
def test_a_failure_is_told_with_whether_to_try_again(
    error: Exception, status: int, type_: str, told: dict[str, str]
) -> None:
    """Its status, its kind, and headers for clients that try again by themselves."""
    assert (status_of(error), envelope(error)["error"]["type"], headers(error)) == (status, type_, told)


def test_what_is_left_of_a_key_is_told_as_openai_does() -> None:
    """Times with a tenth of a second."""
    assert rate_headers(Rate(5, 2, 12.34)) == {
        "x-ratelimit-limit-requests": "5", "x-ratelimit-remaining-requests": "2", "x-ratelimit-reset-requests": "12.3s",
    }  # fmt: skip
    assert rate_headers(None) == {}


def test_every_code_has_a_status_of_a_failure() -> None:
    """One that HTTP has a name for, and each of those that clients know."""
    assert set(STATUS_OF_CODE.values()) == {400, 401, 403, 405, 408, 409, 413, 415, 422, 503, 507}
    assert STATUS_OF_CODE["request_too_large"] == 413 and STATUS_OF_CODE["store_full"] == 507
