"""The bundle as it is served, and as it is built."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from deployments.page.serving import BUILT, bundle
from tests.page.conftest import Site

WEB = Path(__file__).parents[2] / "web"


async def test_browsers_get_the_page_and_others_the_list(site: Site) -> None:
    """`Accept` decides at `/`; whoever does not name text/html gets JSON as ever."""
    http = site.app.http
    page = await http.get("/", headers={"accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert page.headers["content-type"] == "text/html; charset=utf-8" and page.text.startswith("<!doctype html>")
    for accept in ("*/*", "application/json", "text/html;q=0, application/json"):
        listed = await http.get("/", headers={"accept": accept})
        assert listed.json()["name"] == "triptych" and listed.headers["vary"] == "Accept"
    again = await http.get("/", headers={"accept": "text/html", "if-none-match": page.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


async def test_the_document_has_no_script_of_its_own_and_may_load_nothing_foreign(site: Site) -> None:
    """The policy allows this server only, and what the document names is there, for ever under that name."""
    page = await site.app.http.get("/", headers={"accept": "text/html"})
    rules = dict(rule.split(" ", 1) for rule in page.headers["content-security-policy"].split("; "))
    assert rules["default-src"] == "'none'" and rules["script-src"] == "'self'" and rules["style-src"] == "'self'"
    assert not [rule for rule in rules.values() if "unsafe" in rule or "http" in rule]
    assert re.findall(r"<script(?![^>]*\bsrc=)[^>]*>|\son\w+=|<style", page.text) == []
    named = re.findall(r'(?:src|href)="\./(page/[^"]+)"', page.text)
    assert len(named) == 3
    for name in named:
        part = await site.app.http.get("/" + name)
        assert part.status_code == 200 and "immutable" in part.headers["cache-control"]
        assert part.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", ["none.js", "..%2Findex.html", "%2e%2e%2fserving.py", ""])
async def test_only_files_of_the_bundle_can_be_asked_for(site: Site, name: str) -> None:
    """Whatever else is asked for is 404."""
    assert (await site.app.http.get(f"/page/{name}")).status_code == 404


async def test_the_page_needs_no_key_and_the_api_does(site: Site) -> None:
    """Who has no key yet must see where to enter it."""
    header = site.app.key()
    async with httpx.AsyncClient(base_url=site.url) as http:
        assert (await http.get("/", headers={"accept": "text/html"})).status_code == 200
        script = next(name for name in bundle() if name.endswith(".js"))
        assert (await http.get(script)).status_code == 200
        assert (await http.get("v1/models")).status_code == 401
        assert (await http.get("v1/models", headers=header)).status_code == 200


def test_the_committed_build_is_what_the_sources_give(tmp_path: Path) -> None:
    """`npm run build` makes the same bytes that are committed."""
    vite = WEB / "node_modules/vite/bin/vite.js"
    if shutil.which("node") is None or not vite.exists():
        pytest.skip("there is no node, or no web/node_modules (cd web && npm ci)")
    command = ["node", str(vite), "build", "--outDir", str(tmp_path / "built"), "--logLevel", "error"]
    subprocess.run(command, cwd=WEB, check=True)
    made = {path.relative_to(tmp_path / "built"): path.read_bytes() for path in (tmp_path / "built").rglob("*.*")}
    assert made == {path.relative_to(BUILT): path.read_bytes() for path in BUILT.rglob("*.*")}
