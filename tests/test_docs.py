"""The documents against the repository: what they link to, name and run is there.

Their YAML is read in tests/policies/loading/test_docs.py.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer

from deployments.assembly import catalogue_of
from deployments.cli.main import app
from deployments.known_names import known_of
from deployments.settings import DEFAULT_CONFIG, load_serve_config
from policies import load_policy_text

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "models/cards/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
TOPS = ("router", "policies", "models", "deployments", "docs", "benchmarks", "tests", "tools")
MOST_LINES = 92  # two screens
FENCE = re.compile(r"^[ ]*```(\w*)\n(.*?)^[ ]*```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
PATH = re.compile(rf"(?<![\w./-])(?:{'|'.join(TOPS)})/[\w./*-]*[\w/*]")
MODULE = re.compile(rf"(?<![\w./-])(?:{'|'.join(TOPS)})(?:\.[a-z_]+)+(?![\w/-])")
COMMAND = re.compile(r"^(?:\.venv/bin/)?triptych .*$", re.MULTILINE)
TARGET = re.compile(r"\bmake ([a-z][a-z-]+)\b")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def code_of(page: Path) -> str:
    """Everything in a page that is set as code: fenced blocks and `spans`."""
    text = page.read_text(encoding="utf-8")
    blocks = [body for _, body in FENCE.findall(text)]
    return "\n".join([*blocks, *re.findall(r"`([^`\n]+)`", FENCE.sub("", text))])


def slugs_of(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pages
def test_every_link_leads_somewhere(page: Path) -> None:
    """Relative links name a file or folder of the repository, and a heading that it has."""
    wrong = []
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        target, _, anchor = link.partition("#")
        if "://" in link or link.startswith("mailto:"):
            continue
        file = (page.parent / target).resolve() if target else page
        if not (file.exists() and file.is_relative_to(ROOT)) or (anchor and anchor not in slugs_of(file)):
            wrong.append(link)
    assert wrong == []


@pages
def test_every_path_and_module_that_is_named_exists(page: Path) -> None:
    """What a page sets as code and begins with a folder of ours is a file or folder, or a pattern that one fits."""
    code = "\n".join(line for line in code_of(page).splitlines() if "hub:" not in line)  # files of others' repositories
    missing = [name for name in PATH.findall(code) if not list(ROOT.glob(name.strip("/")))]
    missing += [name for name in MODULE.findall(code) if not is_module_or_in_one(name)]
    assert missing == []


def is_module_or_in_one(name: str) -> bool:
    """Whether a dotted name is a package, a module, or a name that one of them mentions."""
    place = ROOT.joinpath(*name.split("."))
    if place.is_dir() or place.with_suffix(".py").is_file():
        return True
    holder = place.parent / "__init__.py" if place.parent.is_dir() else place.parent.with_suffix(".py")
    return holder.is_file() and re.search(rf"\b{place.name}\b", holder.read_text(encoding="utf-8")) is not None


def words_of(line: str) -> list[str]:
    """The arguments of a command line, without `triptych`, comment, redirection or pipe."""
    words = shlex.split(line, comments=True)[1:]
    end = next((i for i, word in enumerate(words) if word in (">", "|", ">>", "&&")), len(words))
    return words[:end]


def commands() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for language, body in FENCE.findall(page.read_text(encoding="utf-8")):
            if language in ("", "bash", "sh", "console"):
                yield from ((str(page.relative_to(ROOT)), line) for line in COMMAND.findall(body))


@pytest.mark.parametrize(("page", "line"), list(commands()))
def test_every_fenced_command_is_one_that_there_is(
    page: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each fenced `triptych …` names a command with options and arguments that it has; nothing is run."""
    words = words_of(line)
    monkeypatch.chdir(tmp_path)
    for word in words:  # files that must exist to be accepted
        if re.fullmatch(r"[\w./-]+\.(tsv|csv|txt|yaml)", word):
            (tmp_path / word).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / word).touch()
    command = typer.main.get_command(app)
    context = None
    while isinstance(command, click.Group) or hasattr(command, "commands"):
        name, *words = words
        assert name in command.commands, f"{page}: {line}: there is no {name!r}"
        context = command.make_context("triptych", [name, *words], parent=context)
        command = command.commands[name]
    command.make_context(name, words, parent=context)


@pages
def test_every_command_in_running_text_exists(page: Path) -> None:
    """`triptych policy explain` in a sentence names a command, and `make serve` a target of the Makefile."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    wrong = []
    for span in re.findall(r"`((?:triptych|make) [^`\n]+)`", text):
        words = span.split()
        if words[0] == "make":
            known = re.search(rf"^{re.escape(words[1])}:", makefile, re.MULTILINE) is not None
        else:
            command = typer.main.get_command(app)
            known = True
            for word in words[1:]:
                if not hasattr(command, "commands"):
                    break
                known = known and word in command.commands
                command = command.commands.get(word)
        if not known:
            wrong.append(span)
    assert wrong == []


def test_the_policy_of_the_readme_loads() -> None:
    """The YAML of the README is a part of a policy for the embedded family, as it says."""
    (example,) = (body for language, body in FENCE.findall(PAGES[0].read_text(encoding="utf-8")) if language == "yaml")
    known = known_of(catalogue_of(load_serve_config(DEFAULT_CONFIG).settings))
    assert load_policy_text("version: 1\nname: shop\n" + example, known=known).recipes


def test_the_readme_fits_two_screens() -> None:
    """What is long has a page of its own under docs/."""
    assert len(PAGES[0].read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def test_every_page_is_linked_from_the_readme() -> None:
    """Nobody has to search docs/ for a page."""
    linked = {(ROOT / link.partition("#")[0]).resolve() for link in LINK.findall(PAGES[0].read_text(encoding="utf-8"))}
    assert [page.name for page in PAGES[3:] if page not in linked] == []
