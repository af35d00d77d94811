"""What documents tell a stranger to type, typed: their shell, Python and YAML, in order, against a server.

The server is the real application with the shipped policies, cards and predictor over workers that draw nothing.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from deployments.api.app import create_app
from deployments.api.keys import Gate
from deployments.api.service import Service
from deployments.assembly import jobs_in
from deployments.settings import DEFAULT_CONFIG, StoreSettings, load_serve_config
from deployments.store import open_store
from tests.conftest import store_in
from tests.deployments.support.listening import listening
from tests.deployments.support.scripted import Script, scripted

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ADDRESS = "http://127.0.0.1:8000"
ELSEWHERE = re.compile(r"^make |^\.venv/bin/triptych serve |get_app_handle")
"""Not here: the server itself, and a handle of Ray (tests/deployments/workers/test_serve.py)."""

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, checkout: Path) -> Iterator[str]:
    """A server at a real socket that follows the policies of the checkout."""
    settings = load_serve_config(DEFAULT_CONFIG).settings
    store = StoreSettings(**store_in(tmp_path_factory.mktemp("state")))
    settings = settings.model_copy(update={"store": store})
    presets = checkout / "policies" / "presets"
    text = (presets / "balanced.yaml").read_text(encoding="utf-8").partition("\nname: balanced\n")[2]
    orchestrator, _ = scripted(settings, presets, Script(defaultdict(lambda: 0.9)), {"balanced": text})
    jobs = jobs_in(open_store(store), settings, orchestrator)
    service = Service(jobs, settings.limits, settings.urls, settings.webhooks)
    with listening(create_app(service, settings.limits, gate=Gate("auto", True))) as address:
        yield address


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like a checkout in which `make serve` has run: the command, and policies to change."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "policies" / "presets", folder / "policies" / "presets")
    command = folder / ".venv" / "bin" / "triptych"
    command.parent.mkdir(parents=True)
    command.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m deployments.cli.main "$@"\n')
    command.chmod(0o755)
    return folder


def typed(language: str, body: str, folder: Path, url: str) -> str:
    """What a block prints, on stdout, when it is typed in a folder; a file that its first comment names is written."""
    body = body.replace(ADDRESS, url)
    if language == "yaml":
        name = re.match(r"# (\S+\.yaml)\n", body)
        if name:
            (folder / name[1]).parent.mkdir(parents=True, exist_ok=True)
            (folder / name[1]).write_text(body)
        return ""
    shell = ["bash", "-euo", "pipefail", "-c", body]
    command = shell if language in ("", "bash", "sh") else [sys.executable, "-c", body]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{body}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def printed(checkout: Path, url: str) -> Callable[[str], dict[str, str]]:
    """By page, what each of its blocks printed; a page is typed once, from its first block to its last."""

    @cache
    def of(page: str) -> dict[str, str]:
        blocks = FENCE.findall((ROOT / page).read_text(encoding="utf-8"))
        return {body: typed(kind, body, checkout, url) for kind, body in blocks if not ELSEWHERE.search(body)}

    return of


@pytest.mark.parametrize("page", ["README.md", "docs/start.md", "docs/api.md"])
def test_what_a_page_says_to_type_works(page: str, printed: Callable[[str], dict[str, str]]) -> None:
    """No command of the page fails, no Python raises, and no answer is an error."""
    answers = printed(page)
    assert any(answers.values())
    assert [body for body, answer in answers.items() if re.search(r'"error": ?\{', answer)] == []


def test_one_line_changes_the_choice(printed: Callable[[str], dict[str, str]]) -> None:
    """docs/start.md: `balanced` takes polished for its prompt; with the line that is changed there, duel is taken."""
    answers = printed("docs/start.md")
    before, after = (json.loads(answer) for body, answer in answers.items() if "/v1/route" in body)
    assert (before["recipe"], after["recipe"]) == ("polished", "duel")
    assert [answer.split()[0] for body, answer in answers.items() if "policy explain" in body] == ["polished", "duel"]
