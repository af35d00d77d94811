"""The pictures of a body to files: decoded once, at the edge, and known from there on by their digests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace

from deployments.api.wire.requests import ImageRequest
from deployments.given.files import GivenFile
from deployments.given.uploads import Find, Received, opened, received, reference
from deployments.settings import UploadSettings
from router.types import GenerationRequest

_DECODING = threading.BoundedSemaphore(2)
"""So many requests at once, which bounds what decoding takes in all."""


async def with_pictures(
    wire: ImageRequest, uploads: UploadSettings, find: Find
) -> tuple[ImageRequest, tuple[GivenFile, ...]]:
    """The body with digests in the place of its pictures, and their files. Raises `RequestError`."""
    if not wire.image and wire.mask is None:
        return wire, ()
    most = uploads.max_bytes
    images = [await opened(raw, "image", find, most) for raw in wire.image]
    mask = None if wire.mask is None else await opened(wire.mask, "mask", find, most)
    extend = None if wire.extend is None else wire.extend.model_dump()
    got = await asyncio.to_thread(_in_turn, lambda: received(images, mask, extend, uploads.bounds))
    named = tuple(reference(file) for file in got.files if file.told.role == "image")
    area = next((reference(file) for file in got.files if file.told.role == "mask"), None)
    told = wire.model_copy(update={"image": named, "mask": area, "extend": None})
    told._warnings = (*wire.warnings, *got.notes, *_without_effect(wire, masked=area is not None))
    return told, got.files


def _in_turn(work: Callable[[], Received]) -> Received:
    with _DECODING:
        return work()


def with_given(request: GenerationRequest, wire: ImageRequest, files: tuple[GivenFile, ...]) -> GenerationRequest:
    """The request with what it brings."""
    faithful = wire.input_fidelity == "high" and wire.strength is None and wire.mask is None and bool(files)
    return replace(request, given=tuple(file.told for file in files), strength=wire.strength, faithful=faithful)


def _without_effect(wire: ImageRequest, masked: bool) -> list[str]:
    if wire.input_fidelity is None:
        return []
    if wire.strength is not None:
        return [f"input_fidelity: {wire.input_fidelity!r} changes nothing beside strength"]
    if masked:
        return [f"input_fidelity: {wire.input_fidelity!r} changes nothing beside a mask, outside of which all stays"]
    return []
