"""The predictor of the artefact that lies in a folder now: followed while it serves."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from router.errors import ArtifactError
from router.quality.predictor import QualityPredictor
from router.registry.artifact import load_artifact
from router.registry.versions import SHOWN
from router.types import Catalogue

logger = logging.getLogger("triptych.router")

_Stamp = tuple[int, int, int]  # mtime_ns, size, inode


class LivePredictor:
    """The predictor of the artefact that is in a folder now. Raises `ArtifactError` at the start; later, one that
    is broken leaves the last good one in force, and `problem` says so."""

    def __init__(
        self,
        folder: str | Path,
        catalogue: Catalogue | None = None,
        on_new: Callable[[QualityPredictor], None] = lambda predictor: None,
    ) -> None:
        """on_new: is called with each predictor before it is in force."""
        self._folder = Path(folder)
        self._on_new = on_new
        self._catalogue = catalogue
        self._lock = threading.Lock()
        self._stamp = _stamp(self._folder)
        self.predictor = QualityPredictor(load_artifact(self._folder), catalogue)
        self._on_new(self.predictor)
        self.problem = ""

    def refresh(self) -> bool:
        """Look at the folder (some microseconds); take up what is new. True if the predictor changed. Never raises."""
        if not self._lock.acquire(blocking=False):
            return False  # another request takes it up; until then the last one serves
        try:
            stamp = _stamp(self._folder)
            if stamp == self._stamp or stamp is None:  # None: being replaced this moment, or taken away
                return False
            return self._take_up(stamp)
        finally:
            self._lock.release()

    def _take_up(self, stamp: _Stamp) -> bool:
        try:
            predictor = QualityPredictor(load_artifact(self._folder), self._catalogue)
        except (ArtifactError, OSError) as error:
            self._stamp, self.problem = stamp, str(error)
            logger.error("an artefact is refused, what was in force stays: %s", error)
            return False
        changed = predictor.digest != self.predictor.digest
        if changed:
            before, now = (p.digest[:SHOWN] for p in (self.predictor, predictor))
            logger.info("artefact %s: %s is in force instead of %s", self._folder, now, before)
            self._on_new(predictor)
        self._stamp, self.problem, self.predictor = stamp, "", predictor
        return changed


def _stamp(folder: Path) -> _Stamp | None:
    try:
        stat = (folder / "manifest.json").stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
