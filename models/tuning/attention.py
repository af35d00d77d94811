"""The kernel that computes the attention of a network."""

from __future__ import annotations

from typing import Any

from router.errors import LoadError

NEEDS_GPU = ("flash", "_flash_3", "sage", "xformers", "_native_cudnn", "_native_efficient", "_native_flash")
NEEDS_HALF = ("flash", "_flash_3", "sage")
UNET_KERNELS = ("sdpa", "xformers")


def set_kernel(network: Any, kernel: str, device: str, dtype: str) -> None:
    """Give a denoiser its kernel by diffusers' own methods. Raises `LoadError` with what is missing."""
    from diffusers import UNet2DConditionModel

    if kernel in NEEDS_GPU and not device.startswith("cuda"):
        raise LoadError(f"{kernel} needs a CUDA device, and this is {device!r}; use sdpa")
    if kernel in NEEDS_HALF and dtype not in ("float16", "bfloat16"):
        raise LoadError(f"{kernel} computes in half precision, not in {dtype}; add `dtype: bfloat16`")
    try:
        if isinstance(network, UNet2DConditionModel):
            _of_unet(network, kernel)
        else:
            _of_transformer(network, kernel)
    except (ImportError, RuntimeError, ValueError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise LoadError(f"{kernel} cannot be used here: {said}; install what it names, or use sdpa") from None


def _of_unet(network: Any, kernel: str) -> None:
    """U-Nets of diffusers have processors, not kernels by name: torch's own, which they come with, or xformers'."""
    if kernel not in UNET_KERNELS:
        raise LoadError(f"{kernel} is for transformers; U-Nets of diffusers take {' or '.join(UNET_KERNELS)}")
    if kernel == "xformers":
        network.enable_xformers_memory_efficient_attention()


def _of_transformer(network: Any, kernel: str) -> None:
    from diffusers.models.attention_dispatch import attention_backend

    backend = "native" if kernel == "sdpa" else kernel
    # diffusers makes a network's kernel that of all networks of the process without one; that is put back on leaving.
    with attention_backend("native"):
        network.set_attention_backend(backend)
    processors = getattr(network, "attn_processors", {}).values()
    if not any(getattr(getattr(one, "_attention_backend", None), "value", None) == backend for one in processors):
        raise LoadError(f"{type(network).__name__} chooses its own kernel; leave attention out")
