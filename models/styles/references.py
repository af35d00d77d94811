"""Styles that draw after a reference picture: IP-Adapters (https://arxiv.org/abs/2308.06721), loaded by diffusers.

A CLIP encoder looks at the picture, and beside each attention to words stands one to what it saw.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from models.styles.adapters import tensors
from models.weights.style_files import ENCODERS, folder_of
from router.errors import StepError
from router.types import Style


@contextmanager
def looking(pipe: Any, style: Style, scale: float, picture: Any) -> Iterator[dict[str, Any]]:
    """While inside, the pipeline draws after a PIL `picture`, which counts `scale`; gives an argument of its call.

    Raises `StepError` if there is no picture, or if encoder or adapter cannot be read or do not fit.
    """
    from diffusers.utils import logging

    if picture is None:
        raise StepError(f"style {style.id!r} draws after a reference picture, and there is none", "reference")
    network = pipe.unet
    processors, projection = dict(network.attn_processors), network.encoder_hid_proj
    told, a_part = network.config.encoder_hid_dim_type, "encoder_hid_proj" in network._modules
    before = {name: getattr(pipe, name) for name in ("image_encoder", "feature_extractor")}
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # it says of each processor that is taken off that it may have been trained
    try:
        try:
            encoder, extractor = _encoder(folder_of(style), str(pipe.device), pipe.dtype)
            pipe.register_modules(image_encoder=encoder, feature_extractor=extractor)
            pipe.load_ip_adapter(_parts(style), subfolder="", weight_name="", image_encoder_folder=None)
            pipe.set_ip_adapter_scale(scale)
            _check(pipe, style)
        except (OSError, ValueError, RuntimeError, KeyError, AttributeError) as error:
            why = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise StepError(f"style {style.id!r} does not fit this model: {why}", "style") from error
        yield {"ip_adapter_image": picture}
    finally:
        network.set_attn_processor(processors)
        del network.encoder_hid_proj
        if a_part:  # also one that is None: diffusers' own unloading leaves that
            network.register_module("encoder_hid_proj", projection)
        else:
            network.encoder_hid_proj = projection
        network.config.encoder_hid_dim_type = told
        pipe.register_modules(**before)
        logging.set_verbosity(verbosity)


def _parts(style: Style) -> dict[str, dict[str, Any]]:
    """The tensors of an adapter's file in the two groups that diffusers takes."""
    made: dict[str, dict[str, Any]] = {"image_proj": {}, "ip_adapter": {}}
    for key, value in tensors(style).items():
        group, _, name = key.partition(".")
        if group not in made:
            raise StepError(
                f"style {style.id!r}: its file has {key!r}, and an IP-Adapter has {', '.join(made)}", "style"
            )
        made[group][name] = value
    return made


def _check(pipe: Any, style: Style) -> None:
    """diffusers fills what a file lacks with whatever memory holds, so sizes are compared."""
    width = pipe.unet.config.cross_attention_dim
    layer = next(one for one in pipe.unet.attn_processors.values() if hasattr(one, "to_k_ip"))
    seen = layer.to_k_ip[0].weight
    if seen.shape[1] != width:
        raise ValueError(f"its layers are {seen.shape[1]} wide, and those of the model {width}")


@lru_cache(maxsize=ENCODERS)
def _encoder(folder: Path, device: str, dtype: Any) -> tuple[Any, Any]:
    """The CLIP that looks at pictures, from safetensors only, and what brings them to its size."""
    from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

    encoder = CLIPVisionModelWithProjection.from_pretrained(
        folder, dtype=dtype, use_safetensors=True, local_files_only=True
    )
    side = encoder.config.image_size
    return encoder.to(device).eval().requires_grad_(False), CLIPImageProcessor(size=side, crop_size=side)
