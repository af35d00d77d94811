"""Weights of styles from their files, read once while there is room, and LoRAs put onto networks and off again.

Putting adapters into the layers of a network takes longer than a small model takes to draw, and each layer is slower
with one. So while there is room, the sums of weights and LoRAs are kept, and take the place of the weights while they
are worn; where they would be too large, the adapters stay in the layers.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from cachetools import LRUCache

from models.weights.style_files import file_of
from router.errors import StepError
from router.types import Style

MOST_BYTES = 2 * 10**9
"""Of files of styles that are kept in memory; the least recently worn goes first."""

MOST_SUMS_BYTES = 2**28
"""Of sums that are kept for one network; the least recently worn goes first."""
Sums = Mapping[str, Any]
"""The weights of a network that styles change, by name, with what the styles add."""

_kept: LRUCache[tuple[str, int, int], dict[str, Any]] = LRUCache(
    MOST_BYTES, getsizeof=lambda state: sum(value.nbytes for value in state.values())
)
_lock = threading.Lock()
_sums: WeakKeyDictionary[Any, LRUCache[Hashable, Sums]] = WeakKeyDictionary()


def tensors(style: Style) -> dict[str, Any]:
    """The tensors of a style's file by name, on the CPU. Raises `StepError` if it cannot be read."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = file_of(style)
    try:
        key = _stamp(path)
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


def _stamp(path: Path) -> tuple[str, int, int]:
    stat = path.stat()
    return str(path), stat.st_size, stat.st_mtime_ns


@contextmanager
def added(pipe: Any, styles: Sequence[tuple[Style, float]]) -> Iterator[None]:
    """While inside, the LoRAs of `styles` are added to the networks of `pipe`, each with its weight."""
    if not styles:
        yield
        return
    networks = [part for name in pipe._lora_loadable_modules if (part := getattr(pipe, name, None)) is not None]
    if any(getattr(network, "peft_config", None) for network in networks):
        raise StepError("the pipeline has adapters of its own; unload them first", "style")
    key = tuple((style.id, *_told(style), style.weight * weight) for style, weight in styles)
    sums = [_sums_of(network).get((key, *_place(network))) for network in networks]
    if None in sums:
        with _adapted(pipe, networks, styles):
            sums = [_summed(network) for network in networks]
            if None in sums:
                yield
                return
        for network, found in zip(networks, sums, strict=True):
            _sums_of(network)[key, *_place(network)] = found or {}
    with _taking_place(networks, [found or {} for found in sums]):
        yield


def _told(style: Style) -> tuple[str, int, int]:
    path = file_of(style)
    try:
        return _stamp(path)
    except OSError:
        return str(path), 0, 0  # reading it says what is wrong


def _sums_of(network: Any) -> LRUCache[Hashable, Sums]:
    with _lock:
        return _sums.setdefault(network, LRUCache(MOST_SUMS_BYTES, getsizeof=_size))


def _size(sums: Sums) -> int:
    return sum(value.nbytes for value in sums.values())


def _place(network: Any) -> tuple[str, str]:
    first = next(network.parameters())
    return str(first.device), str(first.dtype)


def _summed(network: Any) -> Sums | None:
    """What the weights of a network are together with the adapters in it; None if they cannot be swapped for that: they
    are too large, not plain numbers on the device, or an adapter does more than add to a weight."""
    import torch
    from peft.tuners.lora import LoraLayer

    found: dict[str, Any] = {}
    size = 0
    with torch.no_grad():
        layers: list[tuple[str, Any]] = [
            (name, layer) for name, layer in network.named_modules() if isinstance(layer, LoraLayer)
        ]
        for name, layer in layers:
            base = layer.get_base_layer()
            weight = base.weight
            plain = type(weight) is torch.nn.Parameter and weight.is_floating_point() and weight.device.type != "meta"
            names = [one for one in layer.active_adapters if one in layer.lora_A or one in layer.lora_embedding_A]
            simple = not any(layer.use_dora.get(one) or layer.lora_bias.get(one) for one in names)
            size += weight.nbytes
            if not plain or not simple or hasattr(base, "_hf_hook") or size > MOST_SUMS_BYTES:
                return None
            total = weight.detach().clone()
            for one in names:
                total += layer.get_delta_weight(one)
            found[f"{name}.weight"] = total
    return found


@contextmanager
def _taking_place(networks: Sequence[Any], sums: Sequence[Sums]) -> Iterator[None]:
    changed = [
        (network.get_parameter(name), value)
        for network, found in zip(networks, sums, strict=True)
        for name, value in found.items()
    ]
    before = [parameter.data for parameter, _ in changed]
    try:
        for parameter, value in changed:
            parameter.data = value
        yield
    finally:
        for (parameter, _), value in zip(changed, before, strict=True):
            parameter.data = value


@contextmanager
def _adapted(pipe: Any, networks: Sequence[Any], styles: Sequence[tuple[Style, float]]) -> Iterator[None]:
    """While inside, diffusers' adapters are in the layers."""
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
