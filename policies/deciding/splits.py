"""Which requests another policy gets, as shadow or canary: a stable share, so that nobody is sent to and fro."""

from __future__ import annotations

import hashlib

from policies.language.schema import SplitSpec
from router.types import GenerationRequest


def falls_in(split: SplitSpec, policy: str, request: GenerationRequest) -> bool:
    """Whether the request is in the share. The same tenant, or else the same prompt, always is or never is; a larger
    share contains a smaller one."""
    key = f"tenant {request.tenant}" if request.tenant else f"prompt {request.prompt}"
    digest = hashlib.sha256("\0".join((policy, split.policy, key)).encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:8]) < split.share * 2**64
