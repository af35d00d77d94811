"""Jobs, pictures and usage as tests need them."""

from __future__ import annotations

import itertools
import time
from typing import Any

from deployments.store.records import JobRecord, PictureRecord, UsageRow

_numbers = itertools.count()


def job(id: str | None = None, **changes: Any) -> JobRecord:
    """A request for one picture that came in just now."""
    values: dict[str, Any] = {
        "id": id or f"job_{next(_numbers)}",
        "tenant": "acme",
        "key_id": None,
        "priority": "standard",
        "request": {"prompt": "two green stars", "n": 1, "seed": 7},
        "body": {"output_format": "png"},
        "arrived_at": time.time(),
        "body_digest": "d1",
    }
    return JobRecord(**{**values, **changes})


def picture(of: str, index: int = 0, **changes: Any) -> PictureRecord:
    """A small picture of a job."""
    values: dict[str, Any] = {
        "id": f"img_{of}_{index}",
        "job": of,
        "index": index,
        "seed": 7 + index,
        "media_type": "image/png",
        "bytes_n": 0,
        "width": 64,
        "height": 64,
        "facts": {"recipe": "draft"},
    }
    return PictureRecord(**{**values, **changes})


def used(of: str, **changes: Any) -> UsageRow:
    """A tenth of a second of one budget."""
    values: dict[str, Any] = {"job": of, "policy": "balanced", "budget": "daily", "tenant": "acme", "at": time.time()}
    return UsageRow(**{**values, "work_s": 0.1, "cost_usd": 0.01, **changes})
