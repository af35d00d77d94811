"""Which graphs a network becomes: their names, inputs and outputs. Exporting writes them, `networks` runs them.

A row for each class of network, so what is exported and what is run cannot differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FILE = "model.onnx"
"""The graph in its folder; weights of more than 2 GB lie in a file of their own beside it."""

RECORD = "_onnx"
"""The key of model_index.json that says how a folder was exported."""

PRECISIONS = {"fp32": "float32", "fp16": "float16", "int8": "float32"}
"""What a graph may be exported as, and what torch calls what it computes with between its products."""

BATCH, HEIGHT, WIDTH, TEXT, IMAGE = "batch", "height", "width", "text", "image"

Axes = Mapping[int, str]


@dataclass(frozen=True)
class Graph:
    """One graph of a network.

    folder:  where it lies, "" for the folder of its network
    inputs:  by name, each with the axes that vary
    outputs: names
    call:    (network, one tensor per input) to one tensor per output, by torch
    example: (pipeline, network, batch) to one tensor per input of a small shape, in float32 or as whole numbers
    """

    folder: str
    inputs: Mapping[str, Axes]
    outputs: tuple[str, ...]
    call: Callable[..., Sequence[Any]]
    example: Callable[[Any, Any, int], Sequence[Any]]


def graphs_of(network: Any) -> tuple[Graph, ...]:
    """The graphs of a network; none if nothing is known of its class."""
    row = GRAPHS.get(type(network).__name__)
    return () if row is None else row(network)


# --------------------------------------------------------------------------------------------------- U-Net and DiT


def _unet(network: Any) -> tuple[Graph, ...]:
    """As diffusers calls it; SDXL's reads two further inputs."""
    inputs: dict[str, Axes] = {
        "sample": {0: BATCH, 2: HEIGHT, 3: WIDTH},
        "timestep": {},
        "encoder_hidden_states": {0: BATCH, 1: TEXT},
    }
    added = ("text_embeds", "time_ids") if network.config.addition_embed_type == "text_time" else ()
    inputs |= {name: {0: BATCH} for name in added}

    def call(unet: Any, sample: Any, timestep: Any, states: Any, *more: Any) -> Sequence[Any]:
        conditions = {"added_cond_kwargs": dict(zip(added, more, strict=True))} if added else {}
        return unet(sample, timestep, states, return_dict=False, **conditions)

    def example(pipe: Any, unet: Any, batch: int) -> Sequence[Any]:
        import torch

        config = unet.config
        side = 4 * 2 ** len(config.block_out_channels)
        tensors = [torch.randn(batch, config.in_channels, side, side), torch.tensor([500.0])]
        tensors.append(torch.randn(batch, 16, config.cross_attention_dim))
        if added:
            text = pipe.text_encoder_2.config.projection_dim
            numbers = (config.projection_class_embeddings_input_dim - text) // config.addition_time_embed_dim
            tensors += [torch.randn(batch, text), torch.randn(batch, numbers)]
        return tensors

    return (Graph("", inputs, ("out_sample",), call, example),)


def _flux(network: Any) -> tuple[Graph, ...]:
    inputs: dict[str, Axes] = {
        "hidden_states": {0: BATCH, 1: IMAGE},
        "encoder_hidden_states": {0: BATCH, 1: TEXT},
        "pooled_projections": {0: BATCH},
        "timestep": {0: BATCH},
        "img_ids": {0: IMAGE},
        "txt_ids": {0: TEXT},
    }
    if network.config.guidance_embeds:
        inputs["guidance"] = {0: BATCH}

    def call(transformer: Any, *tensors: Any) -> Sequence[Any]:
        return transformer(**dict(zip(inputs, tensors, strict=True)), return_dict=False)

    def example(pipe: Any, transformer: Any, batch: int) -> Sequence[Any]:
        import torch

        config, image, text = transformer.config, 64, 24
        tensors = [
            torch.randn(batch, image, config.in_channels),
            torch.randn(batch, text, config.joint_attention_dim),
            torch.randn(batch, config.pooled_projection_dim),
            torch.full((batch,), 0.5),
            torch.randint(8, (image, len(config.axes_dims_rope))).float(),
            torch.zeros(text, len(config.axes_dims_rope)),
        ]
        return [*tensors, torch.full((batch,), 3.5)] if config.guidance_embeds else tensors

    return (Graph("", inputs, ("sample",), call, example),)


# ------------------------------------------------------------------------------------------------- text encoders


def _clip(network: Any) -> tuple[Graph, ...]:
    """What it says of a prompt as a whole comes first for one with a projection, last otherwise, as in transformers."""
    layers = network.config.num_hidden_layers + 1
    projects = type(network).__name__.endswith("WithProjection")
    words = ("text_embeds", "last_hidden_state") if projects else ("last_hidden_state", "pooler_output")
    outputs = (*words, *(f"hidden_states.{layer}" for layer in range(layers)))

    def call(encoder: Any, tokens: Any) -> Sequence[Any]:
        made = encoder(tokens, output_hidden_states=True)
        return [getattr(made, word) for word in words] + list(made.hidden_states)

    return (Graph("", {"input_ids": {0: BATCH}}, outputs, call, _tokens),)


def _t5(network: Any) -> tuple[Graph, ...]:
    def call(encoder: Any, tokens: Any) -> Sequence[Any]:
        return [encoder(tokens).last_hidden_state]

    return (Graph("", {"input_ids": {0: BATCH, 1: TEXT}}, ("last_hidden_state",), call, _tokens),)


def _tokens(pipe: Any, encoder: Any, batch: int) -> Sequence[Any]:
    import torch

    length = getattr(encoder.config, "max_position_embeddings", 24)
    tokens = torch.randint(encoder.config.vocab_size, (batch, length))
    if (end := getattr(encoder.config, "eos_token_id", None)) is not None:
        tokens[:, -1] = end
    return [tokens]


# ------------------------------------------------------------------------------------------------------- the VAE


def _vae(network: Any) -> tuple[Graph, ...]:
    """Both halves, each with the convolution between it and the latents."""

    def encode(vae: Any, pixels: Any) -> Sequence[Any]:
        return [vae.quant_conv(vae.encoder(pixels)) if vae.config.use_quant_conv else vae.encoder(pixels)]

    def decode(vae: Any, latents: Any) -> Sequence[Any]:
        return [vae.decoder(vae.post_quant_conv(latents) if vae.config.use_post_quant_conv else latents)]

    def pixels(pipe: Any, vae: Any, batch: int) -> Sequence[Any]:
        import torch

        side = 8 * 2 ** len(vae.config.block_out_channels)
        return [torch.randn(batch, vae.config.in_channels, side, side)]

    def latents(pipe: Any, vae: Any, batch: int) -> Sequence[Any]:
        import torch

        return [torch.randn(batch, vae.config.latent_channels, 12, 12)]

    picture: Axes = {0: BATCH, 2: HEIGHT, 3: WIDTH}
    return (
        Graph("vae_encoder", {"sample": picture}, ("latent_parameters",), encode, pixels),
        Graph("vae_decoder", {"latent_sample": picture}, ("sample",), decode, latents),
    )


GRAPHS: dict[str, Callable[[Any], tuple[Graph, ...]]] = {
    "UNet2DConditionModel": _unet,
    "FluxTransformer2DModel": _flux,
    "CLIPTextModel": _clip,
    "CLIPTextModelWithProjection": _clip,
    "T5EncoderModel": _t5,
    "AutoencoderKL": _vae,
}

FAMILIES = ("sd15", "sdxl", "flux")
"""Families all of whose networks have a row above."""
