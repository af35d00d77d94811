"""Pictures of one recipe: by the models of this process, or by a running server in the class `batch`."""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deployments.bootstrap.ledger import Shot
from router.errors import LoadError, OverloadedError, PolicyError, StepError
from router.types import GenerationRequest

if TYPE_CHECKING:
    import httpx

    from deployments.orchestration.orchestrator import Orchestrator

PATIENCE = 20  # how often a busy server is asked again
LONGEST_S = 60.0


@dataclass(frozen=True)
class Drawn:
    """A picture, uint8 (height, width, 3), and what it took: seconds of work, looks left out, and dollars."""

    pixels: NDArray[np.uint8] = field(repr=False)
    seconds: float
    cost_usd: float


class Maker(Protocol):
    """Draws a picture by a recipe of a policy. Raises `TriptychError`."""

    async def draw(self, shot: Shot, recipe: str) -> Drawn: ...


class LocalMaker:
    """The models of a config in this process; weights load when they are first needed."""

    def __init__(self, orchestrator: Orchestrator, policy: str) -> None:
        self._orchestrator, self._policy = orchestrator, policy

    async def draw(self, shot: Shot, recipe: str) -> Drawn:
        # Without an id, the log of decisions does not take it for somebody's request.
        request = GenerationRequest(
            shot.prompt, target=self._policy, recipe=recipe, seed=shot.seed, priority="batch", degradable=False
        )
        outcome = await self._orchestrator.generate(request)
        (made,) = outcome.made
        return Drawn(made.picture.pixels, sum(trace.seconds for trace in made.traces), outcome.cost_usd)


class ServerMaker:
    """A running Triptych. Each picture has an `Idempotency-Key`: what was asked for before is not drawn again."""

    def __init__(self, client: httpx.AsyncClient, policy: str, key: str, digest: str = "") -> None:
        """client: whose base URL is the server's;   key: of the study;   digest: of the policy that is measured; a
        server with another one is refused by `PolicyError`"""
        self._client, self._policy, self._key, self._digest = client, policy, key, digest

    async def draw(self, shot: Shot, recipe: str) -> Drawn:
        body = {
            "prompt": shot.prompt, "model": self._policy, "recipe": recipe, "seed": shot.seed, "priority": "batch",
            "degrade": False,
        }  # fmt: skip
        answer = await self._ask(body, f"bootstrap-{self._key}-{shot.id}")
        try:
            report = answer["x_triptych"]["pictures"][0]
            if self._digest and answer["x_triptych"]["policy_digest"] != self._digest:
                raise PolicyError(
                    f"the server's policy {self._policy!r} is not the one of --config; give the server's own config"
                )
            if report["recipe"] != recipe:
                raise StepError(f"{report['recipe']!r} answered for {recipe!r}; does the policy verify by a ladder?")
            with Image.open(io.BytesIO(base64.b64decode(answer["data"][0]["b64_json"]))) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            seconds = sum(float(step["seconds"]) for step in report["steps"])
            return Drawn(pixels, seconds, float(answer["x_triptych"]["cost_usd"]))
        except (KeyError, IndexError, TypeError, OSError, binascii.Error) as error:
            raise StepError(f"the server's answer has no picture that can be read ({error!r})") from error

    async def _ask(self, body: dict[str, Any], key: str) -> dict[str, Any]:
        import httpx

        pause_s = 1.0
        for _ in range(PATIENCE):
            try:
                response = await self._client.post(
                    "/v1/images/generations", json=body, headers={"Idempotency-Key": key}
                )
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise LoadError(
                    f"no answer from {self._client.base_url} ({error or type(error).__name__}); is `triptych serve` "
                    "running? The same command goes on where this one stopped"
                ) from None
            if response.status_code not in (429, 503):
                return _content(response)
            wait_s = min(LONGEST_S, float(response.headers.get("retry-after") or pause_s))
            await asyncio.sleep(wait_s)
            pause_s = min(LONGEST_S, 2 * pause_s)
        raise OverloadedError("the server has been too busy for a long time; go on when it is not")


def key_of_environment() -> dict[str, str]:
    """The header with the key of the environment, if there is one."""
    key = os.environ.get("TRIPTYCH_API_KEY")
    return {"authorization": f"Bearer {key}"} if key else {}


def _content(response: httpx.Response) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = response.json()
    except ValueError:
        raise StepError(f"the server answered {response.status_code} with something that is not JSON") from None
    if response.status_code >= 400 or "error" in answer:
        message = str((answer.get("error") or {}).get("message") or f"HTTP {response.status_code}")
        raise StepError(message)
    return answer
