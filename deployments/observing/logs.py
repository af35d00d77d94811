"""Logs as JSON lines, one file a process, in one folder: each with the ids of what was under way when it was written.

{"time": "2026-01-02T03:04:05.678Z", "level": "INFO", "logger": "triptych.jobs", "process": "orchestrator-71",
 "message": "…", "request": "req_…", "job": "job_…", "trace": "4bf9…"}
"""

from __future__ import annotations

import json
import logging
import os
import time
from contextlib import suppress
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from deployments.observing import tracing

DAY_S = 86_400.0
_OWN = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """A record as one line of JSON. process: which one it comes from"""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """What `extra` had comes after what is always there."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        told: dict[str, Any] = {
            "time": at,
            "level": record.levelname,
            "logger": record.name,
            "process": self._process,
            "message": record.getMessage(),
            **tracing.said(),
        }
        if trace := tracing.trace_id():
            told["trace"] = trace
        extra = ((n, v) for n, v in vars(record).items() if n not in _OWN and n not in told and not n.startswith("_"))
        told |= dict(extra)  # what begins with an underscore is of Ray
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False, default=str)


def write_to(folder: Path, process: str, level: str, max_mib: float, files: int, keep_days: float) -> Path:
    """From now on what `triptych.*` logs goes to a file of this process, too; returns it. Files of processes that wrote
    nothing for `keep_days` are deleted. A folder that cannot be written to is a warning, and logging goes on without.

    max_mib, files: a file that is full is put aside, and so many of these are kept
    """
    logger = logging.getLogger("triptych")
    logger.setLevel(level)
    path = folder / f"{process}-{os.getpid()}.jsonl"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _forget(folder, time.time() - keep_days * DAY_S)
        handler = RotatingFileHandler(path, maxBytes=int(max_mib * 2**20), backupCount=files, encoding="utf-8")
    except OSError as error:
        logger.warning("logs cannot be written to %s: %s", folder, error.strerror)
        return path
    handler.setFormatter(JsonLines(f"{process}-{os.getpid()}"))
    for old in [one for one in logger.handlers if isinstance(one, RotatingFileHandler)]:
        logger.removeHandler(old)
        old.close()
    logger.addHandler(handler)
    return path


def _forget(folder: Path, before: float) -> None:
    for file in folder.glob("*.jsonl*"):
        with suppress(OSError):
            if file.stat().st_mtime < before:
                file.unlink()
