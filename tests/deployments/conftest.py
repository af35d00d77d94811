"""The application in this process: the real flow on tiny random models, called through ASGI."""

import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.settings import AppSettings, parse_settings
from router.types import ModelCard
from tests.conftest import ADMIN_KEY
from tests.deployments.support.scripted import jobs_of

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def settings(tiny_settings: dict[str, Any]) -> AppSettings:
    """The settings of the tiny application."""
    return parse_settings(tiny_settings)


@pytest.fixture(scope="session")
def cards(settings: AppSettings) -> dict[str, ModelCard]:
    """The cards of the tiny application."""
    from deployments.assembly import catalogue_of

    catalogue = catalogue_of(settings)
    return {model: catalogue[model] for model in catalogue.ids()}


@pytest.fixture(scope="session")
def orchestrator(settings: AppSettings) -> Any:
    """The orchestrator with its workers in this process."""
    from deployments.in_process import build_local

    return build_local(settings)


@pytest.fixture(autouse=True)
def decisions_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer waits until its decision is in the log, however slow the machine is, since tests look there."""
    from deployments.orchestration import recorder

    monkeypatch.setattr(recorder, "SOON_S", 10.0)


@pytest.fixture(autouse=True)
def nothing_learned(request: pytest.FixtureRequest) -> None:
    """Before each test the shared orchestrator forgets what steps took, so that no test depends on those before it."""
    if "orchestrator" in request.fixturenames:
        forget(request.getfixturevalue("orchestrator"))


def forget(orchestrator: Any) -> None:
    """Back to the priors of the model cards."""
    orchestrator._runner._costs.restore({"version": 1, "observations": {}})


@pytest.fixture(scope="session")
def jobs(orchestrator: Any) -> Any:
    """The jobs of the orchestrator, in a store of their own."""
    return jobs_of(orchestrator)


@pytest.fixture(scope="session")
def service(jobs: Any, settings: AppSettings) -> Any:
    """What HTTP and handles call."""
    from deployments.api.service import Service

    return Service(jobs, settings.limits)


@pytest.fixture(scope="session")
def app(service: Any, settings: AppSettings) -> Any:
    """The ASGI application."""
    from deployments.api.app import create_app

    return create_app(service, settings.limits, admin_key=ADMIN_KEY)


@pytest.fixture(scope="session")
async def client(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client of the ASGI application."""
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://triptych", timeout=60) as made:
        yield made


@pytest.fixture
def triptych(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs `triptych ARGS` as a shell would, in this process, and returns (exit code, stdout, stderr)."""
    from deployments.cli import main as cli

    def run(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["triptych", *map(str, args)])
        monkeypatch.setattr(cli.out, "_width", 200)
        try:
            cli.main()
            code = 0
        except SystemExit as left:
            code = int(left.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture(scope="session")
def policy_folder(tiny_settings: dict[str, Any]) -> Path:
    """The folder of policy files that the application watches."""
    return Path(tiny_settings["policies"]["directory"])
