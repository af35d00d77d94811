"""A real Chromium before a real server: the page as people meet it, over workers that paint without weights."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn

from deployments.api.keys import Gate
from deployments.settings import DEFAULT_CONFIG, AppSettings, load_serve_config
from policies import PRESETS
from tests.deployments.support.served import Served, served
from tests.page.painter import Painter

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

CHROMIUM = shutil.which("chromium")
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
POLICY = (PRESETS / "balanced.yaml").read_text().replace("version: 1\n", "").replace("name: balanced\n", "")

Visit = Callable[..., Awaitable["Page"]]


@dataclass
class Site:
    """The application behind a socket. url: of the page;   app: what is behind it;   painter: its workers"""

    url: str
    app: Served
    painter: Painter


Open = Callable[..., Any]


@asynccontextmanager
async def listening(app: Any) -> AsyncIterator[str]:
    """A real server of an application, on the loop of the tests; its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    serving = asyncio.ensure_future(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    finally:
        server.should_exit = server.force_exit = True
        await serving


@asynccontextmanager
async def opened(settings: AppSettings, folder: Path, gate: Gate | None = None) -> AsyncIterator[Site]:
    """A site whose store lies in `folder`."""
    folder.mkdir(exist_ok=True)
    painter = Painter()
    async with served(settings, folder, painter, gate, policy=POLICY) as app, listening(app.app) as url:
        yield Site(url, app, painter)


@pytest.fixture(scope="session")
def settings() -> AppSettings:
    """Of the embedded family, without its weights."""
    return load_serve_config(DEFAULT_CONFIG).settings


@pytest.fixture
async def site(settings: AppSettings, tmp_path: Path) -> AsyncIterator[Site]:
    """A site that only this machine reaches, without keys."""
    async with opened(settings, tmp_path / "site") as found:
        yield found


@pytest.fixture(scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """Debian's browser."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here (apt-get install chromium)")
    api = pytest.importorskip("playwright.async_api", reason="pip install -c constraints.txt -e '.[dev]'")
    async with api.async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            await browser.close()


@dataclass
class Seen:
    """What pages said and asked for. allowed: statuses of answers that a test means to provoke"""

    errors: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    allowed: tuple[int, ...] = ()

    def unexpected(self) -> list[str]:
        """Errors of the console, without those answers."""
        return [text for text in self.errors if not any(f"status of {status} " in text for status in self.allowed)]


@pytest.fixture
def seen() -> Seen:
    """Of this test's pages."""
    return Seen()


@pytest.fixture
async def visit(chromium: Browser, seen: Seen) -> AsyncIterator[Visit]:
    """Opens a page. Afterwards none has said an error, and none has asked another server for anything."""
    contexts = []

    async def go(url: str, **options: Any) -> Page:
        context = await chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        context.set_default_timeout(20_000)
        contexts.append(context)
        page = await context.new_page()
        page.on("console", lambda said: seen.errors.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: seen.errors.append(str(error)))
        page.on("request", lambda asked: seen.addresses.append(asked.url))
        await page.goto(url)
        return page

    try:
        yield go
    finally:
        for context in contexts:
            await context.close()
    own = ("http://127.0.0.1:", "data:", "blob:")
    assert [address for address in seen.addresses if not address.startswith(own)] == []
    assert seen.unexpected() == []
