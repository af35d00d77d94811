"""The renderer of the jobs: what a body means, in files, answers and errors of the Images API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deployments.api import errors as failures
from deployments.api.wire import responses as explain
from deployments.api.wire.files import encoded
from deployments.api.wire.requests import ImageRequest
from deployments.orchestration.results import Checked, Chosen, Made, Outcome, Routed
from models.handover import resize
from models.provenance import encode_image
from models.provenance.credentials import MEDIA_TYPES, Credentials
from router.route import Route
from router.types import Picture


def packed(wire: ImageRequest) -> dict[str, Any]:
    """A wire request as JSON builtins, with what it warns of: the `body` of a job."""
    return {"wire": wire.model_dump(mode="json", exclude_unset=True), "warnings": list(wire.warnings)}


def unpacked(body: Mapping[str, Any]) -> ImageRequest:
    """The wire request of `packed`."""
    wire = ImageRequest.model_validate(body["wire"])
    wire._warnings = tuple(body["warnings"])
    return wire


class Rendering:
    """A `deployments.jobs.values.Renderer`. credentials: to sign the files with"""

    def __init__(self, credentials: Credentials | None = None) -> None:
        self._credentials = credentials

    def file(self, made: Made, route: Route, body: Mapping[str, Any]) -> tuple[bytes, str]:
        wire = unpacked(body)
        return encoded(made, route, wire, self._credentials), MEDIA_TYPES[wire.output_format]

    def previews(self, body: Mapping[str, Any]) -> int:
        return int(body["wire"].get("partial_images") or 0)

    def preview(self, picture: Picture, route: Route, body: Mapping[str, Any]) -> tuple[bytes, str, int, int]:
        wire, width, height = unpacked(body), route.plan.width, route.plan.height
        pixels = resize(picture.pixels, width, height)
        mark = route.decision.provenance != "none"
        file = encode_image(pixels, wire.output_format, None, wire.output_compression, mark=mark)
        return file, MEDIA_TYPES[wire.output_format], width, height

    def said(self, event: Routed | Checked | Chosen, body: Mapping[str, Any]) -> dict[str, Any]:
        if isinstance(event, Routed):
            return explain.routed_report(event.route, unpacked(body))
        return explain.checked_report(event.check) if isinstance(event, Checked) else explain.chosen_report(event)

    def facts(self, made: Made) -> dict[str, Any]:
        return explain.picture_report(made)

    def result(
        self, outcome: Outcome, body: Mapping[str, Any], job: str, earlier: Mapping[int, Mapping[str, Any]]
    ) -> dict[str, Any]:
        result = explain.images_result(outcome, unpacked(body), outcome.route.request.id, job)
        if not earlier:
            return result
        # Pictures that another process made: this one knows of them what it had written down.
        report = result["x_triptych"]
        made = dict(zip([one.index for one in outcome.made], report["pictures"], strict=True))
        pictures = [facts for _, facts in sorted({**earlier, **made}.items())]
        seeds = [facts["seed"] for facts in pictures]
        told = [*report["notes"], f"{len(earlier)} of the pictures were made by a process that ended before the others"]
        report |= {"pictures": pictures, "seeds": seeds, "notes": told}
        return {**result, "data": [{"seed": seed} for seed in seeds]}

    def error(self, error: BaseException, request_id: str) -> dict[str, Any]:
        told: dict[str, Any] = failures.envelope(error, request_id)["error"]
        return told
