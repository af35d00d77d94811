"""An artefact that takes the place of another in the same folder: what was there is kept, and can be put back.

What was in force before lies in `.history/<name>/<time>-<digest>` beside the folder.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from router.errors import ArtifactError, did_you_mean
from router.registry.artifact import Artifact, load_artifact, save_artifact

logger = logging.getLogger("triptych.router")

KEPT = 10  # earlier artefacts of one folder
SHOWN = 12  # hex digits of a digest in names and messages


@dataclass(frozen=True)
class Former:
    """An artefact that was in force until `until_s` (Unix time)."""

    digest: str
    until_s: float
    path: Path


def succeed(
    folder: str | Path,
    config: Mapping[str, Any],
    weights: Mapping[str, NDArray[Any]],
    card: str,
    beside: Callable[[str], Mapping[str, bytes]] = lambda digest: {},
) -> Artifact:
    """Put an artefact into `folder`, in one move, and keep what was there. beside: see `save_artifact`.

    Raises `ArtifactError` if it cannot.
    """
    folder = Path(folder).absolute()
    try:
        if (folder / "manifest.json").is_file():
            keep(folder)
        return save_artifact(folder, config, weights, card, beside=beside)
    except OSError as error:
        raise ArtifactError(
            f"{folder} cannot be replaced ({error.strerror}); write elsewhere (--out) and name it under artifact:"
        ) from error


def keep(folder: str | Path) -> Path:
    """Copy the artefact in `folder` to its history, from where `roll_back` restores it, and give the copy's folder. The
    history holds the last `KEPT`."""
    folder = Path(folder).absolute()
    present, history = load_artifact(folder), _history(folder)
    history.mkdir(parents=True, exist_ok=True)
    copy = history / f"{time.time_ns():020d}-{present.digest[:SHOWN]}"
    shutil.copytree(folder, copy)
    for one in former(folder)[KEPT:]:
        shutil.rmtree(one.path, ignore_errors=True)
    return copy


def former(folder: str | Path) -> list[Former]:
    """What was in force in `folder`, newest first."""
    found = []
    for path in sorted(_history(Path(folder).absolute()).glob("*-*"), reverse=True):
        stamp, _, digest = path.name.partition("-")
        if stamp.isdecimal():
            found.append(Former(digest, int(stamp) / 1e9, path))
    return found


def roll_back(folder: str | Path, digest: str | None = None) -> Artifact:
    """Put back what was in force before, or the newest whose digest begins with `digest`, with its calibrations.

    Raises `ArtifactError`.
    """
    folder = Path(folder).absolute()
    present, earlier = load_artifact(folder).digest, former(folder)
    for one in earlier:
        if one.digest.startswith(digest[:SHOWN]) if digest else not present.startswith(one.digest):
            return _restore(folder, one.path)
    if digest:
        hint = did_you_mean(digest, [one.digest for one in earlier])
        raise ArtifactError(f"{folder} has no earlier artefact {digest!r}{hint}")
    raise ArtifactError(f"{folder} has no earlier artefact to go back to")


def _restore(folder: Path, earlier: Path) -> Artifact:
    artifact = load_artifact(earlier)
    calibrations = {str(file.relative_to(earlier)): file.read_bytes() for file in earlier.glob("judges/*")}
    return succeed(folder, artifact.config, artifact.weights, artifact.card, lambda _: calibrations)


def _history(folder: Path) -> Path:
    return folder.parent / ".history" / folder.name
