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

FAITHFUL = 0.35
"""The strength of an edit that asks for high fidelity to its picture and for no strength."""

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
    named = {file.told.role: reference(file) for file in got.files}
    given = {"image": (named["image"],)} if "image" in named else {}
    told = wire.model_copy(
        update={**given, "mask": named.get("mask"), "reference": named.get("reference"), "extend": None}
    )
    told._warnings = (*wire.warnings, *got.notes, *_without_effect(wire, masked="mask" in named))
    return told, got.files


def _in_turn(work: Callable[[], Received]) -> Received:
    with _DECODING:
        return work()


def with_given(request: GenerationRequest, wire: ImageRequest, files: tuple[GivenFile, ...]) -> GenerationRequest:
    """The request with what it brings."""
    strength = wire.strength
    if strength is None and wire.input_fidelity == "high" and wire.mask is None and wire.image:
        strength = FAITHFUL
    return replace(request, given=tuple(file.told for file in files), strength=strength)


def _without_effect(wire: ImageRequest, masked: bool) -> list[str]:
    if wire.input_fidelity is None:
        return []
    if wire.strength is not None:
        return [f"input_fidelity: {wire.input_fidelity!r} changes nothing beside strength"]
    if masked:
        return [f"input_fidelity: {wire.input_fidelity!r} changes nothing beside a mask, outside of which all stays"]
    return []
