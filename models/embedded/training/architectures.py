"""What the embedded models are: one row of numbers each, and the functions that build them from diffusers' classes."""

from dataclasses import dataclass

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
    part of the thousand timesteps it learns; matrices whose name holds one of `muon` learn by Muon.
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
    """A T5 encoder of the card's size."""
    return T5EncoderModel(
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


def build_denoiser(card: ModelCard) -> UNet2DConditionModel | FluxTransformer2DModel:
    """The UNet or transformer of a card."""
    if card.kind == "flux":
        width = card.widths[0]
        return FluxTransformer2DModel(
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
