"""What a network takes over from one denoising step to the next, by the caches of diffusers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from models.tuning.settings import Cache
from router.errors import LoadError

NAME = "triptych_passes"

FIRST = 2
"""So many steps `faster` has to have seen; a run that goes on from a picture begins where it would skip already."""

BEFORE_ALL = 1001.0
"""A timestep before that of noise."""


def enable(network: Any, cache: Cache, pipe: Any) -> None:
    """Turn a cache on. Raises `LoadError` for a network that has none."""
    if not hasattr(network, "enable_cache"):
        raise LoadError(
            f"diffusers has no caches for {type(network).__name__}, only for transformers such as those of FLUX and "
            "Qwen-Image; leave cache out, and ask for fewer steps"
        )
    try:
        network.enable_cache(CONFIGS[cache.kind](cache, network, pipe))
    except (ValueError, IndexError, KeyError) as error:
        raise LoadError(f"{cache.kind} does not fit {type(network).__name__}: {error}; leave cache out") from None


def _first_block(cache: Cache, network: Any, pipe: Any) -> Any:
    from diffusers import FirstBlockCacheConfig

    return FirstBlockCacheConfig(threshold=cache.first_block)


def _taylorseer(cache: Cache, network: Any, pipe: Any) -> Any:
    from diffusers import TaylorSeerCacheConfig

    assert cache.taylorseer is not None
    return TaylorSeerCacheConfig(
        cache_interval=cache.taylorseer.every,
        disable_cache_before_step=cache.taylorseer.after,
        max_order=cache.taylorseer.order,
        taylor_factors_dtype=network.dtype,
    )


def _faster(cache: Cache, network: Any, pipe: Any) -> Any:
    from diffusers import FasterCacheConfig

    assert cache.faster is not None
    return FasterCacheConfig(
        spatial_attention_block_skip_range=cache.faster.every,
        spatial_attention_timestep_skip_range=(-1, cache.faster.below),
        attention_weight_callback=lambda _: 0.5,
        # Its share for guidance expects both passes in one batch; these families run them one after the other.
        is_guidance_distilled=True,
        current_timestep_callback=lambda: network._triptych_timestep,
    )


CONFIGS: dict[str, Callable[[Cache, Any, Any], Any]] = {
    "first_block": _first_block,
    "taylorseer": _taylorseer,
    "faster": _faster,
}


@contextmanager
def told(network: Any, passes: int, contexts: bool) -> Iterator[None]:
    """While inside, a network with a cache knows which pass of a step it is in, and its timestep.

    passes: of each step, one after the other;   contexts: the pipeline does not tell them apart itself, which those of
    diffusers do that draw from noise, and those that go on from a picture do not
    """
    if not getattr(network, "is_cache_enabled", False):
        yield
        return
    from diffusers.hooks import HookRegistry, ModelHook

    counted, names = itertools.count(), itertools.cycle(("cond", "uncond")[:passes])

    class Passes(ModelHook):
        def new_forward(self, module: Any, *args: Any, **kwargs: Any) -> Any:
            timestep = float(kwargs["timestep"].flatten()[0]) * 1000
            module._triptych_timestep = timestep if next(counted) >= FIRST else BEFORE_ALL
            if not contexts:
                return self.fn_ref.original_forward(*args, **kwargs)
            with module.cache_context(next(names)):
                return self.fn_ref.original_forward(*args, **kwargs)

    own = "forward" in vars(network)  # of another hook
    registry = HookRegistry.check_if_exists_or_initialize(network)
    registry.register_hook(Passes(), NAME)
    try:
        yield
    finally:
        registry.remove_hook(NAME, recurse=False)
        if not own:
            vars(network).pop("forward", None)  # the class's own again, so that nothing refers to itself
        network._reset_stateful_cache()
