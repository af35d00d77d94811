"""Weights of styles from their files, read once while there is room, and LoRAs put onto networks and off again."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cachetools import LRUCache

from router.errors import StepError
from router.types import Style

MOST_BYTES = 2 * 10**9
"""Of files of styles that are kept in memory; the least recently worn goes first."""

_kept: LRUCache[tuple[str, int, int], dict[str, Any]] = LRUCache(
    MOST_BYTES, getsizeof=lambda state: sum(value.nbytes for value in state.values())
)
_lock = threading.Lock()


def tensors(style: Style) -> dict[str, Any]:
    """The tensors of a style's file by name, on the CPU. Raises `StepError` if it cannot be read."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(style.source["file"])
    try:
        stat = path.stat()
        key = str(path), stat.st_size, stat.st_mtime_ns
        with _lock:
            found = _kept.get(key)
        if found is None:
            found = load_file(path)
            with _lock:
                if sum(value.nbytes for value in found.values()) <= MOST_BYTES:
                    _kept[key] = found
    except (OSError, SafetensorError) as error:
        raise StepError(
            f"style {style.id!r}: {path} cannot be read: {error}; put the file there again", "style"
        ) from None
    return dict(found)


@contextmanager
def added(pipe: Any, styles: Sequence[tuple[Style, float]]) -> Iterator[None]:
    """While inside, the LoRAs of `styles` are added to the networks of `pipe`, each with its weight."""
    if not styles:
        yield
        return
    networks = [part for name in pipe._lora_loadable_modules if (part := getattr(pipe, name, None)) is not None]
    if any(getattr(network, "peft_config", None) for network in networks):
        raise StepError("the pipeline has adapters of its own; unload them first", "style")
    from diffusers.utils import logging

    wanted = [(parameter, parameter.requires_grad) for network in networks for parameter in network.parameters()]
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # it warns of every network for which a file has nothing
    # Ids are no names of modules: they may have dots, and differ in nothing else.
    names = [f"style_{number}" for number in range(len(styles))]
    try:
        for name, (style, _) in zip(names, styles, strict=True):
            try:
                pipe.load_lora_weights(tensors(style), adapter_name=name)
            except (ValueError, RuntimeError, KeyError) as error:
                why = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise StepError(f"style {style.id!r} does not fit this model: {why}", "style") from error
        pipe.set_adapters(names, [style.weight * weight for style, weight in styles])
        logging.set_verbosity(verbosity)
        yield
    finally:
        logging.set_verbosity(verbosity)
        pipe.unload_lora_weights()
        for parameter, before in wanted:
            parameter.requires_grad_(before)
