"""What a process tells of its work, as the settings say."""

from __future__ import annotations

from pathlib import Path

from deployments.observing import logs, tracing
from deployments.settings import LogSettings, TracingSettings


def observe(process: str, log: LogSettings, traces: TracingSettings) -> Path:
    """Logs go to the folder, spans to the collector, under the name of this process; returns the log's file. Raises
    `TracingError` if a package is missing."""
    file = logs.write_to(log.path, process, log.level.upper(), log.max_mib, log.files, log.keep_days)
    if traces.otlp is not None:
        tracing.start(process, tracing.otlp(traces.otlp), traces.share)
    return file
