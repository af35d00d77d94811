"""Versions of policies in the store, so that an orchestrator on another machine has what was put in force on this one.

    bring(store, folder)      # before the policies are read: files that the store has newer versions of
    follow(book, store)       # from then on: what is in force, and each change

What was written last counts, whether into a file or over HTTP: a file is brought up to date if its policy was written
later elsewhere, and a file that is newer than all that the store has is its next version.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from deployments.store import Store
from deployments.store.errors import StoreError
from policies import PolicyBook
from policies.store.book import Change
from policies.store.folder import look
from policies.store.history import locked, write_whole

logger = logging.getLogger("triptych.policies")

SAME_S = 0.001  # a file's time may lose what a double does not hold


def bring(store: Store, directory: Path) -> list[str]:
    """Write the files whose policies the store has in later versions, and say which. A folder that is not there or
    cannot be written to stays as it is, with a warning. Raises `StoreError`."""
    brought: list[str] = []
    if not directory.is_dir():
        return brought
    try:
        with locked(directory):
            files = {Path(name).stem: (name, stamp[0] / 1e9) for name, stamp in look(directory).files.items()}
            for version in store.policies():
                name, written_at = files.get(version.name, (f"{version.name}.yaml", float("-inf")))
                if version.text is None or version.at <= written_at + SAME_S:
                    continue
                path = directory / name
                if written_at > float("-inf") and path.read_text(encoding="utf-8") == version.text:
                    continue
                write_whole(path, version.text)
                os.utime(path, (version.at, version.at))
                logger.info("policy %s: version %s of the store is newer than the file", version.name, version.digest)
                brought.append(version.name)
    except (OSError, UnicodeDecodeError) as error:
        logger.warning("%s stays as it is, whatever the store has: %s", directory, error)
    return brought


def follow(book: PolicyBook, store: Store) -> None:
    """Keep what is in force, and from now on each change. Nobody waits for it; what cannot be kept is logged."""

    def keep(change: Change) -> None:
        future = store.keep_policy_soon(change.name, change.digest, change.text, change.at_s)
        future.add_done_callback(lambda done: _told(change.name, done.exception()))

    book.follow(keep)


def _told(name: str, error: BaseException | None) -> None:
    if isinstance(error, StoreError):
        logger.warning("policy %s: its version is not kept in the store: %s", name, error)
    elif error is not None:
        logger.error("policy %s: its version is not kept in the store", name, exc_info=error)
