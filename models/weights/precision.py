"""A component in another precision than its pipeline: what goes in is cast to its own, what comes out to the
pipeline's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from router.types import ModelCard

DOORS = ("encoder", "decoder", "quant_conv", "post_quant_conv")
"""Where a VAE is entered, whose own methods call these."""


def keep_precision(card: ModelCard, pipe: Any, dtype: Any, device: str) -> None:
    """Let components with a `dtype` of their own compute in it, beside others in `dtype`."""
    if device == "cpu":
        return
    import torch

    for name, spec in card.components.items():
        part, said = getattr(pipe, name, None), spec.get("dtype")
        if said and isinstance(part, torch.nn.Module) and getattr(torch, str(said)) != dtype:
            cast(part, getattr(torch, str(said)), dtype)


def cast(part: Any, inside: Any, outside: Any) -> None:
    """A network computes in `inside`, and everything around it sees `outside`."""
    for door in _doors(part):
        door.register_forward_pre_hook(lambda _, args, kwargs: _all((args, kwargs), inside), with_kwargs=True)
        door.register_forward_hook(lambda _, args, made: _all(made, outside))


def _doors(part: Any) -> Iterator[Any]:
    doors = [door for name in DOORS if (door := getattr(part, name, None)) is not None]
    yield from doors if hasattr(part, "decode") else (part,)


def _all(values: Any, dtype: Any) -> Any:
    """All tensors of floating point in a nest of values, cast."""
    import torch

    if isinstance(values, torch.Tensor):
        return values.to(dtype) if values.is_floating_point() else values
    if isinstance(values, tuple):
        return tuple(_all(value, dtype) for value in values)
    if isinstance(values, list):
        return [_all(value, dtype) for value in values]
    if hasattr(values, "items") and hasattr(values, "__setitem__"):  # outputs of models are mappings, too
        for key, value in list(values.items()):
            values[key] = _all(value, dtype)
    return values
