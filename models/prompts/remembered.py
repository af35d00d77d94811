"""What text encoders made of a prompt, so that the same prompt with another seed is not read again: T5-XXL takes longer
for a prompt than FLUX.1-schnell for a step.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from cachetools import LRUCache

from models.prompts import chunks
from router.types import ModelCard

ROOM_BYTES = 64_000_000
"""Of embeddings, on the device: sixteen prompts of FLUX, hundreds of SDXL."""


class RememberedPrompts:
    """Answers `encode_prompt` of the pipelines of one model; a prompt of a batch is read by itself, so it has the bytes
    that it has alone. What is given as embeddings already, and what is read while a style is worn, is not remembered.
    """

    def __init__(self, card: ModelCard, room_bytes: int = ROOM_BYTES) -> None:
        self._card = card
        self._known: LRUCache[Any, tuple[Any, ...]] = LRUCache(room_bytes, getsizeof=_size)
        self._worn = False

    def serve(self, pipe: Any) -> None:
        """Let a pipeline ask here, if it does not yet. It must have the text encoders of the others."""
        if "encode_prompt" in vars(pipe):
            return
        own = type(pipe).encode_prompt.__get__(pipe)
        pipe.encode_prompt = functools.wraps(own)(functools.partial(self._encode, pipe))

    def forget(self) -> None:
        """Read everything anew."""
        self._known.clear()

    @contextmanager
    def worn(self, styles: bool) -> Iterator[None]:
        """While inside, with styles, nothing is remembered: they may change how words are read."""
        before, self._worn = self._worn, styles
        try:
            yield
        finally:
            self._worn = before

    def _encode(self, pipe: Any, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        read = type(pipe).encode_prompt.__get__(pipe)
        bound = inspect.signature(read).bind(*args, **kwargs)
        given = dict(bound.arguments)
        texts = {name: value for name, value in given.items() if "prompt" in name and isinstance(value, list)}
        count = len(given["prompt"]) if isinstance(given.get("prompt"), list) else 0
        if count and all(len(value) == count for value in texts.values()):
            single = [{**given, **{name: [value[n]] for name, value in texts.items()}} for n in range(count)]
            parts = [self._one(pipe, read, one) for one in single]
            if (together := _together(parts)) is not None:
                return together
        return self._one(pipe, read, given)

    def _one(self, pipe: Any, read: Any, given: Mapping[str, Any]) -> tuple[Any, ...]:
        key = _key(given)
        if key is None or self._worn:
            return self._read(pipe, read, given)
        if (known := self._known.get(key)) is None:
            known = self._read(pipe, read, given)
            if _size(known) <= self._known.maxsize:
                self._known[key] = known
        return known

    def _read(self, pipe: Any, read: Any, given: Mapping[str, Any]) -> tuple[Any, ...]:
        prompt, negative = (_text(given.get(name)) for name in ("prompt", "negative_prompt"))
        if prompt is not None and chunks.reads(self._card):
            guided = bool(given.get("do_classifier_free_guidance", True))
            said = [prompt, *([negative] if negative and guided else [])]
            if chunks.needs(self._card, pipe, said):
                device = given.get("device") or pipe._execution_device
                return chunks.encoded(self._card, pipe, prompt, negative, guided, device, given.get("clip_skip"))
        return tuple(read(**given))


def _text(value: Any) -> str | None:
    """A prompt that is given alone."""
    if isinstance(value, list):
        return str(value[0]) if len(value) == 1 else None
    return value if isinstance(value, str) else None


def _key(given: Mapping[str, Any]) -> Any:
    """What an answer depends on; None if it cannot be told, since tensors are given."""
    said = []
    for name, value in sorted(given.items()):
        plain = tuple(value) if isinstance(value, list) else value
        if hasattr(plain, "shape") or (isinstance(plain, tuple) and any(hasattr(one, "shape") for one in plain)):
            return None
        said.append((name, plain if plain.__hash__ is not None else repr(plain)))
    return tuple(said)


def _together(parts: Sequence[tuple[Any, ...]]) -> tuple[Any, ...] | None:
    """Answers for single prompts as one for all of them; None where their lengths differ."""
    import torch

    if len(parts) == 1:
        return parts[0]
    made: list[Any] = []
    for column in zip(*parts, strict=True):
        first = column[0]
        if isinstance(first, list):
            made.append([one for each in column for one in each])
        elif isinstance(first, torch.Tensor):
            if any(one.shape != first.shape for one in column):
                return None
            made.append(torch.cat(column) if first.shape[0] == 1 else first)  # positions are of all of them
        else:
            made.append(first)
    return tuple(made)


def _size(answer: Any) -> int:
    if isinstance(answer, tuple | list):
        return sum(map(_size, answer))
    return answer.numel() * answer.element_size() if hasattr(answer, "element_size") else 0
