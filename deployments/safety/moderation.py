"""An endpoint of OpenAI's moderation shape: text or a picture in, flags and scores by category out.

https://platform.openai.com/docs/api-reference/moderations. Only endpoints that the config names are asked;
redirects are not followed, and the environment's proxies not used.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from deployments.settings import ModeratorSettings
from models.provenance import encode_image
from router.errors import StepError

logger = logging.getLogger("triptych.safety")

MOST_BYTES = 1_000_000  # of an answer
AGAIN_S = 5.0


class UnavailableError(StepError):
    """A check could not be made."""

    code = "safety_unavailable"
    retry_after_s = AGAIN_S


@dataclass(frozen=True)
class Verdict:
    """flagged: by the endpoint;   categories, scores: by category, where it has them"""

    flagged: bool
    categories: Mapping[str, bool]
    scores: Mapping[str, float]


class Moderator:
    """One endpoint. transport: of httpx, for tests and others who bring their own"""

    def __init__(self, settings: ModeratorSettings, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._settings = settings
        self._transport = transport
        self._client: httpx.AsyncClient | None = None

    async def text(self, text: str) -> Verdict:
        """Raises `UnavailableError`."""
        return await self._asked(text)

    async def picture(self, pixels: NDArray[np.uint8]) -> Verdict:
        """Raises `UnavailableError`."""
        file = await asyncio.to_thread(encode_image, pixels, "png")
        url = "data:image/png;base64," + base64.b64encode(file).decode("ascii")
        return await self._asked([{"type": "image_url", "image_url": {"url": url}}])

    async def _asked(self, content: Any) -> Verdict:
        settings = self._settings
        body = {"input": content, **({} if settings.model is None else {"model": settings.model})}
        try:
            async with asyncio.timeout(settings.timeout_s):
                return _verdict(json.loads(await self._sent(body)))
        except (
            httpx.HTTPError,
            TimeoutError,
            ValueError,
            TypeError,
            LookupError,
            AttributeError,
            RecursionError,
        ) as error:
            # Its name alone: what is wrong with a header is said with the header, which holds the key.
            said = (
                type(error).__name__ if isinstance(error, httpx.ProtocolError) else str(error) or type(error).__name__
            )
            logger.warning("the moderation endpoint %s cannot be used: %s", settings.url, said)
            raise UnavailableError("a check that the policy asks for cannot be made now; try again later") from None

    async def _sent(self, body: Any) -> bytes:
        settings, headers = self._settings, {}
        if settings.key_env is not None:
            headers["authorization"] = f"Bearer {os.environ[settings.key_env].strip()}"
        if self._client is None:
            self._client = httpx.AsyncClient(
                transport=self._transport, trust_env=False, follow_redirects=False, timeout=settings.timeout_s
            )
        raw = bytearray()
        async with self._client.stream("POST", settings.url, json=body, headers=headers) as answer:
            if answer.status_code != 200:
                raise ValueError(f"it answered {answer.status_code}")
            async for chunk in answer.aiter_bytes():
                raw += chunk
                if len(raw) > MOST_BYTES:
                    raise ValueError(f"its answer is longer than {MOST_BYTES:,} bytes")
        return bytes(raw)


def _verdict(data: Any) -> Verdict:
    result = data["results"][0]
    # OpenAI's has null for a category that the model does not know.
    flags = {str(name): flag for name, flag in (result.get("categories") or {}).items() if flag is not None}
    scores = {str(name): score for name, score in (result.get("category_scores") or {}).items() if score is not None}
    if not isinstance(result["flagged"], bool):
        raise ValueError("its answer has no `flagged`")
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise ValueError(f"of the category {name!r} it says neither true nor false")
    for name, score in scores.items():
        if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
            raise ValueError(f"its score of {name!r} is no number")
    return Verdict(result["flagged"], flags, scores)
