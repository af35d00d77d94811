"""A run that fails leaves the networks as it found them.

Pipelines change networks on the way and change them back without `finally`: SDXL decodes half-precision latents with
its VAE in float32, and after an error in there every later picture would fail.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


@contextmanager
def as_before(networks: Sequence[Any]) -> Iterator[None]:
    """If an exception leaves the block, parameters and buffers that changed their dtype get the former one back. (Half
    precision survives the way to float32 and back to the bit.)"""
    former = [[(tensor, tensor.dtype) for tensor in _tensors(network)] for network in networks]
    try:
        yield
    except BaseException:
        for tensors in former:
            for tensor, dtype in tensors:
                if tensor.dtype != dtype:
                    tensor.data = tensor.data.to(dtype)
        raise


def _tensors(network: Any) -> Iterator[Any]:
    yield from network.parameters()
    yield from network.buffers()
