"""Where the files of styles are: in folders of this machine, or in the hub's cache."""

from __future__ import annotations

from pathlib import Path

from router.errors import StepError
from router.types import Style

ENCODERS = 2
"""Encoders of reference pictures that stay in memory; the published ones have 0.6 and 1.8 billion parameters."""


def file_of(style: Style) -> Path:
    """Where a style's weights are; those of a hub in its cache. `StepError` has the command that fetches them."""
    return _found(style, style.source["file"], f"{style.source.get('hub')} {style.source['file']}")


def folder_of(style: Style) -> Path:
    """Where the folder of a style's encoder is, as `file_of`."""
    name = style.source["encoder"]
    if "hub" not in style.source:
        return Path(name)
    return _found(style, f"{name}/config.json", f"{style.source['hub']} --include '{name}/*'").parent


def _found(style: Style, name: str, fetched: str) -> Path:
    """A file, or that of a hub in its cache. fetched: what `hf download` takes to fetch it"""
    hub = style.source.get("hub")
    if hub is None:
        return Path(name)
    from huggingface_hub import try_to_load_from_cache

    asked = style.source.get("revision")
    found = try_to_load_from_cache(hub, name, revision=asked)
    if not isinstance(found, str):
        revision = f" --revision {asked}" if asked else ""
        raise StepError(
            f"style {style.id!r}: its weights are not on this machine; "
            f"fetch them with `hf download {fetched}{revision}`",
            "style",
        )
    return Path(found)
