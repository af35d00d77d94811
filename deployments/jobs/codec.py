"""A request as builtins and back, for the store: what was accepted must be readable by the next process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from router.types import GenerationRequest, GivenPicture, Turn, wearing

_KNOWN = frozenset(field.name for field in fields(GenerationRequest))


def packed(request: GenerationRequest) -> dict[str, Any]:
    """JSON builtins of a request."""
    return {
        **asdict(request),
        "tags": list(request.tags),
        "style": [list(pair) for pair in request.style],
        "turns": [asdict(turn) for turn in request.turns],
        "given": [asdict(one) for one in request.given],
    }


def unpacked(data: Mapping[str, Any]) -> GenerationRequest:
    """The request of `packed`. Fields of another version that are not known any more are left out."""
    known = {name: value for name, value in data.items() if name in _KNOWN}
    known["tags"] = tuple(known.get("tags") or ())
    known["style"] = wearing(tuple(pair) for pair in known.get("style") or ())
    known["turns"] = tuple(Turn(**turn) for turn in known.get("turns") or ())
    known["given"] = tuple(GivenPicture(**one) for one in known.get("given") or ())
    return GenerationRequest(**known)


def digest_of(body: Mapping[str, Any]) -> str:
    """Equal for equal bodies: what an idempotency key stands for."""
    return hashlib.sha256(json.dumps(body, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
