"""Puts the documents, wherever they lie in the repository, into the site: a hook of MkDocs (`mkdocs.yml`).

The pages are the files that are read on GitHub, so their links are relative to the repository. Every page keeps its
path as its source, which lets MkDocs resolve and check those links; only addresses are shorter. What pages link to
beside documents is put into the site with them: pictures and data as they are, code and folders as pages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pymdownx.slugs import slugify

ROOT = Path(__file__).resolve().parents[1]
ROOTS = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "models/cards/README.md")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".toml": "toml", ".sh": "bash", "": "text"}  # shown as pages
FENCE = re.compile(r"(^[ ]*```.*?^[ ]*```$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<=\]\()([^)\s#]+)(#[^)\s]*)?(?=\))")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Headings have the anchors that GitHub gives them, so a link is right in both places."""
    config.mdx_configs.setdefault("toc", {})["slugify"] = slugify(case="lower")
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The documents and all that is linked from them, in place of the files of `docs/` alone."""
    kept = [file for file in files if not file.is_documentation_page()]
    return Files([*kept, *(file_of(path, config) for path in sorted(reachable()))])


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to code and to folders lead to the pages that show them."""
    here = ROOT / page.file.src_uri.removesuffix(".page.md")
    parts = FENCE.split(markdown)  # every second one is a fence
    parts[::2] = (LINK.sub(lambda match: redirected(match, here), part) for part in parts[::2])
    return "".join(parts)


def reachable() -> set[Path]:
    """The documents, and what they link to, and what documents among that link to."""
    found: set[Path] = set()
    waiting = [*(ROOT / name for name in ROOTS), *(ROOT / "docs").glob("*.md")]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += links_of(path) if path.suffix == ".md" else []
    return found


def links_of(document: Path) -> Iterator[Path]:
    """What a document links to in the repository, as far as it exists: what does not, MkDocs reports."""
    for match in LINK.finditer(FENCE.sub("", document.read_text(encoding="utf-8"))):
        if "://" not in match[1] and (target := (document.parent / match[1]).resolve()).exists():
            yield target


def is_shown(path: Path) -> bool:
    """Whether the site has a page about this file or folder, in place of the file itself."""
    return path.is_dir() or path.suffix in LANGUAGES


def file_of(path: Path, config: MkDocsConfig) -> File:
    """A file of the site. Its source is the path in the repository, for links; its address leaves out `docs/`."""
    name = path.relative_to(ROOT).as_posix()
    if is_shown(path):
        return File.generated(config, f"{name}.page.md", content=shown(path, name))
    file = File.generated(config, name, abs_src_path=str(path))
    if name.startswith("docs/"):
        file.dest_uri = file.dest_uri.removeprefix("docs/")
    return file


def shown(path: Path, name: str) -> str:
    """A page about a folder, with its README and the names in it, or about a text file; neither is searched."""
    head = f"---\nsearch:\n  exclude: true\n---\n\n# `{name}`\n\n"
    if not path.is_dir():
        return f"{head}````{LANGUAGES[path.suffix]}\n{path.read_text(encoding='utf-8')}````\n"
    names = sorted(f"{child.name}/" if child.is_dir() else child.name for child in path.iterdir())
    listed = "\n".join(f"- `{child}`" for child in names if not child.startswith(("__", ".")))
    return f"{head}A folder of the repository:\n\n{listed}\n"


def redirected(match: re.Match[str], here: Path) -> str:
    """The target of one link as the site has it."""
    target = (here.parent / match[1]).resolve()
    if "://" in match[1] or not target.exists() or not is_shown(target):
        return match[0]
    return f"{match[1].rstrip('/')}.page.md"
