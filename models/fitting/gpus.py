"""A GPU as planning sees it: its memory."""

from __future__ import annotations

import re
from dataclasses import dataclass

from models.weights.needs.memory import GB, RESERVE_GB
from router.errors import RequestError

UNITS = {"GB": 1e9, "GIB": 2.0**30}


@dataclass(frozen=True)
class Gpu:
    """name: as it was written;   memory_gb: 10^9 bytes"""

    name: str
    memory_gb: float

    @property
    def room_gb(self) -> float:
        """What models may take of it; the rest is the driver's and the allocator's."""
        return max(0.0, self.memory_gb - RESERVE_GB)


def parse_gpu(text: str) -> Gpu:
    """`24GB` (10^9 bytes each) or `24GiB`. Raises `RequestError`."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(GB|GiB)\s*", text, re.IGNORECASE)
    if not found or float(found[1]) <= 0:
        raise RequestError(f"--gpu {text!r} is no amount of memory; write it as 24GB or 24GiB", "gpu")
    return Gpu(text.strip(), float(found[1]) * UNITS[found[2].upper()] / GB)
