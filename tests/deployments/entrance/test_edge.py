"""The edge: what clients send slowly, in disguise or for the operator ends in the proxy, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import resource
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from deployments.api.edge.middleware import Edge, for_serve_proxy, told_by_serve
from deployments.api.errors import status_of
from deployments.api.request_ids import RequestIds
from deployments.settings import AppSettings
from tests.deployments.support.served import BODY, GENERATE, JOBS, served

BODY_TEXT = json.dumps(BODY).encode()


def fronted(app: Any, max_bytes: int = 1_048_576, within_s: float = 20.0) -> Any:
    """An application as Serve's proxy has it: behind the middlewares of the callback, in their order."""
    for one in for_serve_proxy():
        settings = {"max_bytes": max_bytes, "within_s": within_s} if one.cls is Edge else one.kwargs
        app = one.cls(app, **settings)
    return app


@asynccontextmanager
async def listening(app: Any) -> AsyncIterator[int]:
    """A real server of an application, as Serve's proxy is one; its port."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off", backlog=2048))
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    serving = asyncio.ensure_future(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = server.force_exit = True
    await serving


async def raw(port: int, *parts: bytes, pause_s: float = 0.0) -> bytes:
    """What a server answers to these bytes until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
            with contextlib.suppress(ConnectionError):
                await writer.drain()
            await asyncio.sleep(pause_s)
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


def head(length: int, *more: str) -> bytes:
    """The head of a POST with a body of so many bytes."""
    lines = [f"POST {JOBS} HTTP/1.1", "host: t", "content-type: application/json", f"content-length: {length}", *more]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def test_a_slow_body_ends_with_408_and_the_connection(settings: AppSettings, tmp_path: Path) -> None:
    """A body that comes byte by byte is given up in time, by the proxy, before it takes a place anywhere."""
    async with served(settings, tmp_path) as app:
        reached: list[str] = []

        async def noting(scope: Any, receive: Any, send: Any) -> None:
            reached.append(scope["path"])
            await app.app(scope, receive, send)

        async with listening(fronted(noting, within_s=0.3)) as port:
            began = time.monotonic()
            answer = await raw(port, head(len(BODY_TEXT)), *(BODY_TEXT[i : i + 1] for i in range(5)), pause_s=0.02)
            assert time.monotonic() - began < 5
            start, _, body = answer.partition(b"\r\n\r\n")
            assert b"408" in start and json.loads(body)["error"]["code"] == "request_timeout"
            assert b"connection: close" in start.lower() and b"x-request-id: req_" in start.lower()
            assert reached == []


async def test_a_slow_body_ends_without_a_proxy_too(settings: AppSettings, tmp_path: Path) -> None:
    """The application itself has the same limit, wherever it runs."""
    limits = settings.limits.model_copy(update={"body_timeout_s": 0.2})
    async with served(settings, tmp_path, limits=limits) as app, listening(app.app) as port:
        answer = await raw(port, head(100, "connection: close"), b"{")
        assert b"408" in answer.split(b"\r\n")[0] and b"request_timeout" in answer


async def test_a_thousand_idle_connections_do_no_harm(settings: AppSettings, tmp_path: Path) -> None:
    """With 1,000 connections that say nothing, or half of a body, requests are served as before."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4096:
        pytest.skip(f"only {hard} open files are possible here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    try:
        async with served(settings, tmp_path) as app, listening(fronted(app.app)) as port:
            idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(1000)]
            for number, (_, writer) in enumerate(idle):
                if number % 2:
                    writer.write(head(1000) + b"{")
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as http:
                answers = await asyncio.gather(*(http.post(GENERATE, json=BODY) for _ in range(8)))
                assert [one.status_code for one in answers] == [200] * 8
            for _, writer in idle:
                writer.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd", "deflate", "gzip, gzip"])
async def test_a_decompression_bomb_is_refused_unread(settings: AppSettings, tmp_path: Path, encoding: str) -> None:
    """A body with an encoding is 415 at once; nothing is unpacked, however it is called."""
    bomb = gzip.compress(b" " * 10_000_000)
    async with served(settings, tmp_path) as app:
        for made in (fronted(app.app), app.app):
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app=made), base_url="http://t") as http:
                headers = {"content-encoding": encoding, "content-type": "application/json"}
                answer = await http.post(JOBS, content=bomb, headers=headers)
                assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("told", [True, False])
async def test_a_body_beyond_the_limit_is_refused_unread(told: bool) -> None:
    """413 before the rest arrives, whether its length is told or not."""
    read = 0

    async def never(*_: Any) -> None:
        raise AssertionError("it reached the application")

    async def receive() -> dict[str, Any]:
        nonlocal read
        read += 1
        return {"type": "http.request", "body": b"x" * 1000, "more_body": True}

    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-length", b"99999999")] if told else []
    scope = {"type": "http", "method": "POST", "path": JOBS, "headers": headers}
    await Edge(never, 10_000, 20.0)(scope, receive, send)
    assert (sent[0]["status"], read <= 11) == (413, True)
    assert read == 0 or not told


async def test_what_is_the_operator_s_never_reaches_serve() -> None:
    """Serve's headers for time limits and disconnects are taken out, in any case of letters; the time of arrival is
    the proxy's."""
    seen: dict[bytes, bytes] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.update(scope["headers"])
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    headers = {
        "X-Request-Timeout-Seconds": "0", "x-request-disconnect-disabled": "?1", "x-triptych-arrived": "1",
        "x-own": "kept",
    }  # fmt: skip
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=fronted(app)), base_url="http://t") as http:
        await http.get("/", headers=headers)
    assert not {b"x-request-timeout-seconds", b"x-request-disconnect-disabled"} & set(seen)
    assert seen[b"x-own"] == b"kept"
    assert abs(float(seen[b"x-triptych-arrived"]) - time.time()) < 60


async def test_time_counts_from_the_proxy(settings: AppSettings, tmp_path: Path) -> None:
    """A job's deadline counts from when the proxy had its head; what a client says of that helps it nothing."""
    async with served(settings, tmp_path) as app:
        for arrived_s in (time.time() - 5, time.time() + 5, float("nan"), float("-inf")):
            answer = await app.http.post(JOBS, json=BODY, headers={"x-triptych-arrived": repr(arrived_s)})
            record = app.store.job(answer.json().get("id", ""))
            if record is not None:
                assert record.arrived_at <= time.time()
                assert abs(record.arrived_at - min(arrived_s, time.time())) < 3 or arrived_s != arrived_s
            else:
                assert answer.json()["error"]["code"] == "deadline_exceeded"


@pytest.mark.parametrize(
    ("status", "text", "code"),
    [
        (503, "Request dropped due to backpressure (num_queued_requests=256, max_queued_requests=256).", "overloaded"),
        (503, "Deployment is unavailable.", "unavailable"), (404, "Path '/x' not found.", "unknown_url"),
        (500, "Internal Server Error", "step_failed"), (408, "Request timed out.", "deadline_exceeded"),
    ],
)  # fmt: skip
async def test_what_serve_says_in_plain_text_is_an_envelope(status: int, text: str, code: str) -> None:
    """With Serve's status, its request id once, and Retry-After where waiting helps; answers of ours pass untouched."""

    async def serve_s(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/plain"), (b"x-request-id", b"abc"), (b"content-length", b"5")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": text.encode()[:10], "more_body": True})
        await send({"type": "http.response.body", "body": text.encode()[10:]})

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=fronted(serve_s)), base_url="http://t") as http:
        answer = await http.get("/v1/models")
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.headers.get_list("x-request-id") == ["abc"]
    assert ("retry-after" in answer.headers) is (status == 503)


def test_every_status_of_serve_s_has_words() -> None:
    """Whatever it answers, there is an error with a code."""
    assert all(told_by_serve(status, "").code for status in range(400, 600))
    assert status_of(told_by_serve(404, "")) == 404


async def test_a_stream_passes_the_edge_as_it_comes(settings: AppSettings, tmp_path: Path) -> None:
    """Headers and first ping leave before the picture is made; leaving is noticed behind the edge."""
    from tests.deployments.support.scripted import Script

    async with (
        served(settings, tmp_path, Script({}, delay_s=60), ping_s=0.05) as app,
        listening(fronted(app.app)) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as http,
    ):
        async with http.stream("POST", GENERATE, json={**BODY, "stream": True}) as answer:
            lines: Callable[[], Any] = answer.aiter_lines().__anext__
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert [await lines() for _ in range(3)] == [": ping", "", ": ping"]
            while not app.script.ran:
                await lines()
        (job,) = app.jobs._live.values()
        for _ in range(500):
            if not job.followers:
                break
            await asyncio.sleep(0.01)
        assert job.followers == 0


def test_the_callback_puts_ids_outermost() -> None:
    """Serve applies them in order, so that the last one is met first: refusals of the edge have sound ids."""
    assert [one.cls for one in for_serve_proxy()] == [Edge, RequestIds]
