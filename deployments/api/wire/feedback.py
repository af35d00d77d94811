"""The wire of `POST /v1/feedback`: what a person or a scorer says of the pictures of a request.

{"id": "req_…", "rating": 4}                                  a person: 1 (useless) to 5 (just what was asked for)
{"id": "req_…", "thumb": "up"}                                a person, with two buttons: 5 or 1 of these
{"id": "req_…", "score": 0.83, "scorer": "my-clip", "image": 1}       a program: 0 to 1, under a name of its own
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from deployments.api.wire.requests import WholeOrNone, given_fields, json_of, refusal, request_error
from router.learning.feedback import RATING, SCORER, Receipt
from router.quality.ratings_table import Scale

STARS = Scale(1.0, 5.0)
EXAMPLE = '{"id": "req_…", "rating": 4}'


class FeedbackRequest(BaseModel):
    """The body of `POST /v1/feedback`. Sent again for the same pictures by the same source, it replaces."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)

    id: str = Field(min_length=1, max_length=128, description="`request_id` of the answer (header x-request-id).")
    rating: float | None = Field(default=None, description="A person's: 1 (useless) to 5 (just what was asked for).")
    thumb: Literal["up", "down"] | None = Field(
        default=None, description="A person's, with two buttons: up is a rating of 5, down of 1."
    )
    score: float | None = Field(default=None, description="A program's: 0 to 1, higher is better; with `scorer`.")
    scorer: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$", description="Which program; a name of your own."
    )
    image: WholeOrNone = Field(
        default=None, ge=0, description="Which picture of the request, from 0; without it, all of them."
    )

    @model_validator(mode="before")
    @classmethod
    def _known_fields_only(cls, data: Any) -> Any:
        return given_fields(data, cls.model_fields)

    @model_validator(mode="after")
    def _one_opinion(self) -> FeedbackRequest:
        if [self.rating, self.thumb, self.score].count(None) != 2:
            message = f"give a rating or a score, or a thumb, and one of them, such as {EXAMPLE}"
            raise refusal("rating", message, "invalid_value")
        if self.rating is not None and not STARS.low <= self.rating <= STARS.high:
            remedy = "send +1 and -1 as `thumb`, up or down, and a value on 0 to 1 as `score`, with `scorer`"
            raise refusal("rating", f"{self.rating:g} is outside 1 (useless) to 5 (perfect); {remedy}", "invalid_value")
        if self.score is not None and not 0 <= self.score <= 1:
            raise refusal("score", f"{self.score:g} is outside 0 to 1; scale it", "invalid_value")
        if (self.score is None) is not (self.scorer is None):
            raise refusal("scorer", "a score needs the name of its scorer, and a rating has none", "invalid_value")
        return self

    @property
    def source(self) -> str:
        """Who says it."""
        return RATING if self.scorer is None else SCORER + self.scorer

    @property
    def value(self) -> float:
        """How good, on 0..1."""
        if self.thumb is not None:
            return float(self.thumb == "up")
        return STARS.unit(self.rating) if self.rating is not None else float(self.score or 0.0)

    @property
    def scale(self) -> str:
        """What was said, and on which scale, in words: a 1 of five stars is not a thumb up."""
        if self.thumb is not None:
            return f"thumb {self.thumb}, of up (rating 5) and down (rating 1)"
        if self.rating is not None:
            return f"rating {self.rating:g}, from 1 (useless) to 5 (just what was asked for)"
        return f"score {self.score:g}, from 0 to 1, higher is better"


def parse_feedback(body: bytes | Any) -> FeedbackRequest:
    """From JSON text or from builtins; raises `RequestError` that names the first field at fault."""
    data = json_of(body, EXAMPLE) if isinstance(body, bytes) else body
    try:
        return FeedbackRequest.model_validate(data)
    except ValidationError as error:
        raise request_error(error.errors(include_url=False)) from None


def feedback_report(wire: FeedbackRequest, receipt: Receipt) -> dict[str, Any]:
    """The answer: what the feedback was attached to."""
    return {
        "object": "feedback",
        "id": wire.id,
        "source": wire.source,
        "value": wire.value,
        "scale": wire.scale,
        "images": list(receipt.images),
        "recipes": list(receipt.recipes),
        "replaced": receipt.replaced,
    }
