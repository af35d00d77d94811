"""OpenAI's own client, strict about every field, against the application in this process."""

import base64
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import openai
import pytest


@pytest.fixture(scope="module")
async def openai_client(app: Any) -> AsyncIterator[openai.AsyncOpenAI]:
    """The client with its strict validation, without retries."""
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport) as http:
        yield openai.AsyncOpenAI(
            base_url="http://triptych/v1",
            api_key="unused",
            http_client=http,
            max_retries=0,
            _strict_response_validation=True,
        )


@pytest.mark.parametrize("model", ["auto", "fast", "draft", "sdxl"])
async def test_generate_works_unchanged(openai_client: openai.AsyncOpenAI, model: str) -> None:
    """`images.generate` with a policy, a recipe or a model passes the client's strict validation."""
    answer = await openai_client.images.generate(
        prompt="a red circle", model=model, n=2, size="32x32", background=None, user="ann", response_format="b64_json"
    )
    assert answer.data is not None
    assert [base64.b64decode(item.b64_json or "")[1:4] for item in answer.data] == [b"PNG", b"PNG"]
    assert answer.usage is not None
    assert answer.usage.total_tokens > 0
    assert answer.model_extra is not None
    assert answer.model_extra["x_triptych"]["recipe"]


async def test_quality_is_passed_on(openai_client: openai.AsyncOpenAI) -> None:
    """`quality="low"` takes the policy that stands for it."""
    answer = await openai_client.images.generate(prompt="a red circle", quality="low")
    assert answer.quality == "low"
    assert (answer.model_extra or {})["x_triptych"]["policy"] == "fast"


async def test_streaming_sends_previews_and_then_the_pictures(openai_client: openai.AsyncOpenAI) -> None:
    """With `stream` the client sees numbered previews of the final size, and the same final bytes as without."""
    arguments: dict[str, Any] = {"prompt": "a red circle", "model": "sdxl", "size": "32x32"}
    extra = {"seed": 5, "steps": 8}
    events = [
        event
        async for event in await openai_client.images.generate(
            **arguments, stream=True, partial_images=2, extra_body=extra
        )
    ]
    assert [event.type for event in events] == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
    assert [event.partial_image_index for event in events[:2]] == [0, 1]  # type: ignore[union-attr]
    whole = await openai_client.images.generate(**arguments, extra_body=extra)
    assert whole.data is not None
    assert events[-1].b64_json == whole.data[0].b64_json
    assert {event.size for event in events} == {"32x32"}


async def test_errors_arrive_as_the_clients_own_exceptions(openai_client: openai.AsyncOpenAI) -> None:
    """A bad size, an unknown model and a refused field become the client's exceptions, message and field included."""
    with pytest.raises(openai.NotFoundError, match="did you mean 'sdxl'") as unknown:
        await openai_client.images.generate(prompt="x", model="sdxll")
    assert unknown.value.param == "model"
    with pytest.raises(openai.BadRequestError, match="WIDTHxHEIGHT"):
        await openai_client.images.generate(prompt="x", size="large")
    with pytest.raises(openai.BadRequestError, match="alpha"):
        await openai_client.images.generate(prompt="x", background="transparent")
    with pytest.raises(openai.BadRequestError, match="empty"):
        await openai_client.images.generate(prompt="", stream=True)


async def test_models_are_the_clients_models(openai_client: openai.AsyncOpenAI) -> None:
    """`models.list` and `models.retrieve` pass strict validation."""
    names = [model.id async for model in openai_client.models.list()]
    assert "balanced" in names
    assert (await openai_client.models.retrieve("balanced")).owned_by == "triptych"
