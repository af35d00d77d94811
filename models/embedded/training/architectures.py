"""What the embedded models are: one row of numbers each, and the functions that build them from diffusers' classes."""

from dataclasses import dataclass

import torch
from diffusers import FluxTransformer2DModel, UNet2DConditionModel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from models.embedded.tokenizers import CLIP_LENGTH

LOOKS = 4.0
"""How strongly the heads of a fresh T5 prefer one word, or one side (logits)."""
TIME_DIM = 16
"""Channels of each number in SDXL's `add_time_ids`."""


@dataclass(frozen=True)
class TextCard:
    """A text encoder: `projection` is set for SDXL's second encoder."""

    width: int
    layers: int
    projection: int | None = None


@dataclass(frozen=True)
class ModelCard:
    """One embedded model.

    `kind` is sd, sdxl, refiner or flux; `widths` are the UNet's channels a level, or (width,) of the transformer;
    `layers` are resnets a level, or (double, single) blocks; `mix` weighs the tiers it trains on; `noise_range` is the
    part of the thousand timesteps it learns; matrices whose name holds one of `muon` learn by Muon, at `muon_rate`
    times `lr`; `text_first` are the updates in which only the text encoders learn, from the auxiliary head.
    """

    kind: str
    vae: str
    texts: tuple[TextCard, ...]
    widths: tuple[int, ...]
    layers: tuple[int, ...]
    mix: tuple[float, float, float, float, float]
    lr: float = 1.5e-3
    noise_range: tuple[int, int] = (0, 1000)
    muon: tuple[str, ...] = ()
    muon_rate: float = 1.0
    text_first: int = 300


MODELS: dict[str, ModelCard] = {
    "sd15": ModelCard("sd", "vae4", (TextCard(96, 2),), (32, 64), (1,), (0.22, 0.33, 0.30, 0.10, 0.05)),
    "sdxl": ModelCard(
        "sdxl", "vae4", (TextCard(64, 3), TextCard(96, 3, 96)), (48, 96), (1,), (0.10, 0.20, 0.25, 0.25, 0.20)
    ),
    # Distilled from sdxl (distilling.py), for it draws the same; the mix is of the trajectories.
    "sdxl-turbo": ModelCard(
        "sdxl", "vae4", (TextCard(64, 3), TextCard(96, 3, 96)), (48, 96), (1,), (0.08, 0.20, 0.20, 0.20, 0.32), 6e-4
    ),
    "sdxl-refiner": ModelCard(
        "refiner", "vae4", (TextCard(96, 3, 96),), (32, 64), (1,), (0.10, 0.20, 0.25, 0.25, 0.20), 1e-3, (0, 350)
    ),
    "flux": ModelCard(
        "flux",
        "vae16",
        (TextCard(96, 2), TextCard(128, 2)),
        (128,),
        (1, 4),
        (0.10, 0.16, 0.22, 0.27, 0.25),
        muon=("transformer_blocks",),
        muon_rate=4.0,
        text_first=800,
    ),
    # Distilled from flux; see sdxl-turbo.
    "flux-schnell": ModelCard(
        "flux",
        "vae16",
        (TextCard(96, 2), TextCard(128, 2)),
        (128,),
        (1, 4),
        (0.08, 0.20, 0.20, 0.24, 0.28),
        8e-4,
        muon=("transformer_blocks",),
        muon_rate=4.0,
    ),
}


def build_clip(card: TextCard, tokenizer: CLIPTokenizer) -> CLIPTextModel | CLIPTextModelWithProjection:
    """A CLIP text encoder of the card's size, with a projection where the card asks for one."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=card.width,
        intermediate_size=2 * card.width,
        num_hidden_layers=card.layers,
        num_attention_heads=4,
        max_position_embeddings=CLIP_LENGTH,
        projection_dim=card.projection or card.width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModelWithProjection(config) if card.projection else CLIPTextModel(config)


def build_t5(card: TextCard, tokenizer: T5TokenizerFast) -> T5EncoderModel:
    """A T5 encoder of the card's size, whose heads begin by looking one word back, one ahead, only back, only ahead.

    T5 knows the order of words by its relative biases alone. Begun near zero, they stayed there (below .4 after 282,000
    samples): the encoder read a bag of words, and could not tell which object is the first, or whose colour is whose.
    """
    encoder = T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=card.width,
            d_kv=card.width // 4,
            d_ff=2 * card.width,
            num_layers=card.layers,
            num_heads=4,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
            relative_attention_num_buckets=16,
            relative_attention_max_distance=24,
        )
    )
    # Buckets 0 to 7 are the distances back, 8 to 15 those ahead; the first four of each are exact.
    with torch.no_grad():
        bias = encoder.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
        bias[1, 0] += LOOKS
        bias[9, 1] += LOOKS
        bias[8:, 2] -= LOOKS
        bias[1:8, 3] -= LOOKS
    return encoder


@torch.no_grad()
def _open_gates(denoiser: FluxTransformer2DModel) -> None:
    """Begin as a plain pre-norm transformer that answers zero.

    diffusers leaves the modulations at PyTorch's defaults: gates of some .05 at random, through which hardly anything
    passes. Here every gate begins at one, scale and shift at zero, and what a block adds is small by its own weights.
    """

    def modulation(linear: torch.nn.Linear, parts: int, gates: tuple[int, ...]) -> None:
        linear.weight.zero_()
        linear.bias.zero_()
        for gate in gates:
            linear.bias.view(parts, -1)[gate] = 1.0

    adding = []
    for double in denoiser.transformer_blocks:
        for norm in (double.norm1, double.norm1_context):
            modulation(norm.linear, 6, (2, 5))
        adding += [double.attn.to_out[0], double.attn.to_add_out, double.ff.net[2], double.ff_context.net[2]]
    for single in denoiser.single_transformer_blocks:
        modulation(single.norm.linear, 3, (2,))
        adding.append(single.proj_out)
    for linear in adding:
        linear.weight.mul_(0.3)
        linear.bias.zero_()
    modulation(denoiser.norm_out.linear, 2, ())
    denoiser.proj_out.weight.zero_()
    denoiser.proj_out.bias.zero_()


def build_denoiser(card: ModelCard) -> UNet2DConditionModel | FluxTransformer2DModel:
    """The UNet or transformer of a card."""
    if card.kind == "flux":
        width = card.widths[0]
        denoiser = FluxTransformer2DModel(
            patch_size=1,
            in_channels=64,
            num_layers=card.layers[0],
            num_single_layers=card.layers[1],
            attention_head_dim=32,
            num_attention_heads=width // 32,
            joint_attention_dim=card.texts[1].width,
            pooled_projection_dim=card.texts[0].width,
            guidance_embeds=False,
            axes_dims_rope=(8, 12, 12),
        )
        _open_gates(denoiser)
        return denoiser
    added: dict[str, object] = {}
    if card.kind != "sd":
        numbers = 5 if card.kind == "refiner" else 6
        added = {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": TIME_DIM,
            "projection_class_embeddings_input_dim": (card.texts[-1].projection or 0) + numbers * TIME_DIM,
        }
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=card.widths,
        layers_per_block=card.layers[0],
        cross_attention_dim=sum(text.width for text in card.texts),
        attention_head_dim=4,
        norm_num_groups=8,
        **added,
    )
