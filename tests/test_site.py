"""The documents as a site (`make docs`): whole, and all of it from one place."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FETCHED = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly: whatever MkDocs warns of fails, such as a link that leads nowhere."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "--quiet", "build", "--strict", "--site-dir", str(out)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


class Fetched(HTMLParser):
    """What a browser fetches by itself when it shows a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("rel") not in ("next", "prev", "canonical") and (target := given.get(FETCHED.get(tag, ""))):
            self.found.append(target)


def test_no_page_fetches_from_elsewhere(site: Path) -> None:
    """Styles, scripts, fonts and pictures of every page are files of the site, and stylesheets name no other host."""
    missing = []
    pages = list(site.rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        parser = Fetched()
        parser.feed(page.read_text(encoding="utf-8"))
        base = site if page.name == "404.html" else page.parent
        for target in parser.found:
            file = base / target.lstrip("/").partition("#")[0].partition("?")[0]
            if not target.startswith("data:") and not file.is_file():
                missing.append(f"{page.relative_to(site)}: {target}")
    for style in site.rglob("*.css"):
        missing += re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^)\"']+", style.read_text(encoding="utf-8"))
    assert missing == []


def test_every_document_is_in_the_navigation(site: Path) -> None:
    """Whoever reads the site finds each page of docs/ from its navigation (`nav` of mkdocs.yml)."""
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    listed = set(re.findall(r": (\S+\.md)$", navigation, re.MULTILINE))
    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} - listed == set()


def test_search_finds_documents_and_not_code(site: Path) -> None:
    """The search index is a file of the site; it has the documents, and not the listings of scripts they link to."""
    index = (site / "search" / "search_index.json").read_text(encoding="utf-8")
    assert '"location":"policies.html"' in index
    assert ".py.page.html" not in index
