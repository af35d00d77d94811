"""The versions of policy files that were in force: `<directory>/.history/<policy>/<time of writing>-<digest>.yaml`."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger("triptych.policies")

KEPT = 100  # versions of each policy


@dataclass(frozen=True)
class Version:
    """since_s: Unix time at which its file was written."""

    digest: str
    since_s: float
    path: Path


class History:
    """Versions in a folder beside the policies. A folder that cannot be written to has no history, and says so once."""

    def __init__(self, directory: Path) -> None:
        self._root = directory / ".history"
        self._complained = False

    def keep(self, name: str, since_ns: int, digest: str, text: str) -> None:
        """Remember a version. Several processes may do so at once: the same version is the same file."""
        path = self._root / name / f"{since_ns:020d}-{digest}.yaml"
        try:
            if path.exists():
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, text)
            for version in self.versions(name)[KEPT:]:
                version.path.unlink(missing_ok=True)
        except OSError as error:
            if not self._complained:
                logger.warning("no history of policies is kept: %s: %s", self._root, error.strerror)
            self._complained = True

    def versions(self, name: str) -> list[Version]:
        """Newest first."""
        found: list[Version] = []
        for path in sorted((self._root / name).glob("*-*.yaml"), reverse=True):
            stamp, _, digest = path.stem.partition("-")
            if stamp.isdecimal() and (not found or found[-1].digest != digest):
                found.append(Version(digest, int(stamp) / 1e9, path))
        return found

    def text(self, name: str, digest: str) -> str | None:
        """The newest version with that digest; None if there is none."""
        version = next((v for v in self.versions(name) if v.digest == digest), None)
        return version.path.read_text(encoding="utf-8") if version else None


def write_whole(path: Path, text: str) -> None:
    """Write a file so that no reader ever sees half of it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{time.time_ns()}")
    try:
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Nobody else who asks for the same lock, in any process of this machine, is inside at the same time."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
