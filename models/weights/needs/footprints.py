"""What a model occupies of its device: its networks, of which it shares some with others, and room to work in."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from models.weights.loading import resolve_dtype
from models.weights.needs.memory import GB, held_bytes, working_bytes
from models.weights.needs.networks import BYTES, countable
from models.weights.sharing import SharedNetworks
from router.types import ModelCard


@dataclass(frozen=True)
class Footprint:
    """Bytes of a model.

    weights: of each of its networks; a network that several models have in common has the same key in all of them
    working: beside them, at most, while it runs
    """

    weights: Mapping[Hashable, float]
    working: float


def footprint(
    card: ModelCard, device: str, dtype: str | None, guests: Sequence[ModelCard], networks: SharedNetworks
) -> Footprint:
    """What a model with its guests will occupy, counted from configurations. Nothing is loaded.

    A model whose configuration is not at hand is one piece of the size that its card says.
    """
    weights: dict[Hashable, float] = {}
    working = 0.0
    for one in (card, *guests):
        precision = resolve_dtype(one, device, dtype)
        if not countable(one):
            weights[one.id] = one.memory_gb * GB
            continue
        width = BYTES[str(precision).removeprefix("torch.")]
        numbers = networks.numbers(one, device, precision)
        for name, size in held_bytes(one, width).items():
            if one is card or name != "vae":  # guests use the VAE of their host
                weights[numbers.get(name, (one.id, name))] = size
        working = max(working, working_bytes(one, width))
    return Footprint(weights, working)
