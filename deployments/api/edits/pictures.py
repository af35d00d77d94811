"""The pictures of a body to files: decoded once, at the edge, and known from there on by their digests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace

from deployments.api.wire.requests import ImageRequest
from deployments.given.files import GivenFile
from deployments.given.uploads import Find, Received, looked_at, opened, received, reference
from deployments.settings import UploadSettings
from router.types import GenerationRequest

_DECODING = threading.BoundedSemaphore(2)
"""So many requests at once, which bounds what decoding takes in all."""


async def with_pictures(
    wire: ImageRequest, uploads: UploadSettings, find: Find
) -> tuple[ImageRequest, tuple[GivenFile, ...]]:
    """The body with digests in the place of its pictures, and their files. Raises `RequestError`."""
    if not wire.image and wire.mask is None and wire.reference is None:
        return wire, ()
    most = uploads.max_bytes
    images = [await opened(raw, "image", find, most) for raw in wire.image]
    mask = None if wire.mask is None else await opened(wire.mask, "mask", find, most)
    extend = None if wire.extend is None else wire.extend.model_dump()
    got = Received(())
    if images or mask is not None:
        got = await asyncio.to_thread(_in_turn, lambda: received(images, mask, extend, uploads.bounds))
    if wire.reference is not None:
        upload = await opened(wire.reference, "reference", find, most)
        also = await asyncio.to_thread(_in_turn, lambda: looked_at(upload, uploads.bounds))
        got = Received((*got.files, *also.files), (*got.notes, *also.notes))
    named = tuple(reference(file) for file in got.files if file.told.role == "image")
    area, after = (
        next((reference(file) for file in got.files if file.told.role == role), None) for role in ("mask", "reference")
    )
    told = wire.model_copy(update={"image": named, "mask": area, "reference": after, "extend": None})
    told._warnings = (*wire.warnings, *got.notes, *_without_effect(wire, masked=area is not None))
    return told, got.files


def _in_turn(work: Callable[[], Received]) -> Received:
    with _DECODING:
        return work()


def with_given(request: GenerationRequest, wire: ImageRequest, files: tuple[GivenFile, ...]) -> GenerationRequest:
    """The request with what it brings."""
    faithful = wire.input_fidelity == "high" and wire.strength is None and wire.mask is None and bool(wire.image)
    return replace(request, given=tuple(file.told for file in files), strength=wire.strength, faithful=faithful)


def _without_effect(wire: ImageRequest, masked: bool) -> list[str]:
    if wire.input_fidelity is None:
        return []
    if wire.strength is not None:
        return [f"input_fidelity: {wire.input_fidelity!r} changes nothing beside strength"]
    if masked:
        return [f"input_fidelity: {wire.input_fidelity!r} changes nothing beside a mask, outside of which all stays"]
    return []
