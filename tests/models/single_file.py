"""A diffusers Stable Diffusion pipeline as one file with the names of the original code, to test reading such files."""

import re
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
TOP = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def save_single_file(pipe: Any, path: Path) -> None:
    """Write UNet, VAE and text encoder of a StableDiffusionPipeline into one safetensors file."""
    layers, levels = pipe.unet.config.layers_per_block, len(pipe.vae.config.block_out_channels)
    weights = {f"model.diffusion_model.{unet_name(k, layers)}": v for k, v in pipe.unet.state_dict().items()}
    weights |= {f"first_stage_model.{vae_name(k, levels)}": vae_value(k, v) for k, v in pipe.vae.state_dict().items()}
    for name, value in pipe.text_encoder.state_dict().items():
        weights[f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}"] = value
    save_file({name: value.contiguous() for name, value in weights.items()}, str(path))


def unet_name(name: str, layers: int) -> str:
    """`down_blocks.1.resnets.0.conv1.weight` to `input_blocks.3.0.in_layers.2.weight`, and so on."""
    for ours, theirs in TOP.items():
        if name.startswith(ours + "."):
            return name.replace(ours, theirs, 1)
    if found := re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", name):
        kind, index, rest = found.groups()
        return f"middle_block.{1 if kind == 'attentions' else 2 * int(index)}.{inner(kind, rest)}"
    found = re.match(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.*)", name)
    assert found, name
    side, block, kind, index, rest = found.groups()
    if side == "down":
        place = 1 + int(block) * (layers + 1) + (layers if kind == "downsamplers" else int(index))
        slot = 1 if kind == "attentions" else 0
        return (
            f"input_blocks.{place}.{slot}.{rest.replace('conv', 'op') if kind == 'downsamplers' else inner(kind, rest)}"
        )
    place = int(block) * (layers + 1) + (layers if kind == "upsamplers" else int(index))
    slot = {"resnets": 0, "attentions": 1, "upsamplers": 2 if int(block) == 0 else 1}[kind]
    return f"output_blocks.{place}.{slot}.{inner(kind, rest)}"


def inner(kind: str, rest: str) -> str:
    part, _, end = rest.partition(".")
    return f"{RESNET[part]}.{end}" if kind == "resnets" else rest


def vae_name(name: str, levels: int) -> str:
    """`decoder.up_blocks.0.resnets.1.conv1.weight` to `decoder.up.1.block.1.conv1.weight`, and so on."""
    name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets", lambda m: f"up.{levels - 1 - int(m[1])}.block", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", name)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
    if "mid_block.attentions.0" in name:
        name = name.replace("mid_block.attentions.0", "mid.attn_1")
        for ours, theirs in ATTENTION.items():
            name = name.replace(f".{ours}.", f".{theirs}.")
    return name


def vae_value(name: str, value: Tensor) -> Tensor:
    """Attention in the original VAE is made of 1x1 convolutions."""
    return value[:, :, None, None] if "attentions" in name and value.ndim == 2 else value
