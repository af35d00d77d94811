"""The architectures of the real checkpoints at full size, written from their published descriptions.

Stable Diffusion 1.5: https://arxiv.org/abs/2112.10752, SDXL and its refiner: https://arxiv.org/abs/2307.01952,
CLIP: https://arxiv.org/abs/2103.00020, T5: https://arxiv.org/abs/1910.10683, FLUX.1:
https://github.com/black-forest-labs/flux, FLUX.2: https://github.com/black-forest-labs/flux2, Stable Diffusion 3.5:
https://arxiv.org/abs/2403.03206, Qwen-Image: https://arxiv.org/abs/2508.02324, Z-Image:
https://github.com/Tongyi-MAI/Z-Image, Qwen3: https://arxiv.org/abs/2505.09388, Qwen2.5-VL:
https://arxiv.org/abs/2502.13923. Shapes only, so that memory can be planned before anything is downloaded.
"""

from __future__ import annotations

from typing import Any

from router.types import ModelCard

NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}

SD15_UNET: dict[str, Any] = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}

_SDXL = {"sample_size": 128, "in_channels": 4, "out_channels": 4, "layers_per_block": 2, "use_linear_projection": True}
_TEXT_TIME = {"addition_embed_type": "text_time", "addition_time_embed_dim": 256}

SDXL_UNET: dict[str, Any] = {
    **_SDXL,
    **_TEXT_TIME,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640, 1280),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "projection_class_embeddings_input_dim": 1280 + 6 * 256,
}

SDXL_REFINER_UNET: dict[str, Any] = {
    **_SDXL,
    **_TEXT_TIME,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (384, 768, 1536, 1536),
    "transformer_layers_per_block": 4,
    "attention_head_dim": (6, 12, 24, 24),
    "cross_attention_dim": 1280,
    "projection_class_embeddings_input_dim": 1280 + 5 * 256,
}

_VAE = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
}
SD15_VAE: dict[str, Any] = {**_VAE, "latent_channels": 4, "sample_size": 512, "scaling_factor": 0.18215}
SDXL_VAE: dict[str, Any] = {**_VAE, "latent_channels": 4, "sample_size": 1024, "scaling_factor": 0.13025}
FLUX_VAE: dict[str, Any] = {
    **_VAE,
    "latent_channels": 16,
    "sample_size": 1024,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "force_upcast": True,
}

_IDS = {"bos_token_id": 49406, "eos_token_id": 49407, "vocab_size": 49408, "max_position_embeddings": 77}
CLIP_L: dict[str, Any] = {
    **_IDS,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
}
OPENCLIP_BIGG: dict[str, Any] = {
    **_IDS,
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}
T5_XXL: dict[str, Any] = {
    "vocab_size": 32128,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
}

FLUX_SCHNELL: dict[str, Any] = {
    "patch_size": 1,
    "in_channels": 64,
    "num_layers": 19,
    "num_single_layers": 38,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
    "guidance_embeds": False,
    "axes_dims_rope": (16, 56, 56),
}
FLUX_DEV: dict[str, Any] = {**FLUX_SCHNELL, "guidance_embeds": True}
FLUX_FILL: dict[str, Any] = {
    **FLUX_DEV,
    "in_channels": 384,
    "out_channels": 64,
}  # with the picture's 64 and the mask's 256
FLUX_KONTEXT: dict[str, Any] = FLUX_DEV

SD35_MEDIUM: dict[str, Any] = {
    "sample_size": 128,
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 16,
    "num_layers": 24,
    "attention_head_dim": 64,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "caption_projection_dim": 1536,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 384,
    "dual_attention_layers": tuple(range(13)),
    "qk_norm": "rms_norm",
}
SD3_VAE: dict[str, Any] = {**FLUX_VAE, "scaling_factor": 1.5305, "shift_factor": 0.0609}
CLIP_L_PROJECTED: dict[str, Any] = CLIP_L

FLUX2_KLEIN: dict[str, Any] = {
    "in_channels": 128,
    "num_layers": 5,
    "num_single_layers": 20,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 3 * 2560,
    "guidance_embeds": False,
}
FLUX2_VAE: dict[str, Any] = {**_VAE, "latent_channels": 32}

QWEN_IMAGE: dict[str, Any] = {
    "patch_size": 2,
    "in_channels": 64,
    "out_channels": 16,
    "num_layers": 60,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 3584,
    "axes_dims_rope": (16, 56, 56),
}
QWEN_IMAGE_VAE: dict[str, Any] = {"base_dim": 96, "z_dim": 16, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2}
Z_IMAGE: dict[str, Any] = {
    "in_channels": 16,
    "dim": 3840,
    "n_layers": 30,
    "n_refiner_layers": 2,
    "n_heads": 30,
    "n_kv_heads": 30,
    "cap_feat_dim": 2560,
}
QWEN3_4B: dict[str, Any] = {
    "vocab_size": 151_936,
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "tie_word_embeddings": True,
}
QWEN25_VL_7B: dict[str, Any] = {
    "text_config": {"vocab_size": 152_064, "hidden_size": 3584, "intermediate_size": 18_944, "num_hidden_layers": 28,
                    "num_attention_heads": 28, "num_key_value_heads": 4},
    "vision_config": {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16,
                      "out_hidden_size": 3584},
    "tie_word_embeddings": False,
}  # fmt: skip

PIPELINES: dict[str, dict[str, tuple[str, str, str]]] = {
    "sd15": {
        "unet": ("diffusers", "UNet2DConditionModel", "SD15_UNET"),
        "vae": ("diffusers", "AutoencoderKL", "SD15_VAE"),
        "text_encoder": ("transformers", "CLIPTextModel", "CLIP_L"),
    },
    "sdxl": {
        "unet": ("diffusers", "UNet2DConditionModel", "SDXL_UNET"),
        "vae": ("diffusers", "AutoencoderKL", "SDXL_VAE"),
        "text_encoder": ("transformers", "CLIPTextModel", "CLIP_L"),
        "text_encoder_2": ("transformers", "CLIPTextModelWithProjection", "OPENCLIP_BIGG"),
    },
    "sdxl-turbo": {
        "unet": ("diffusers", "UNet2DConditionModel", "SDXL_UNET"),
        "vae": ("diffusers", "AutoencoderKL", "SDXL_VAE"),
        "text_encoder": ("transformers", "CLIPTextModel", "CLIP_L"),
        "text_encoder_2": ("transformers", "CLIPTextModelWithProjection", "OPENCLIP_BIGG"),
    },
    "sdxl-refiner": {
        "unet": ("diffusers", "UNet2DConditionModel", "SDXL_REFINER_UNET"),
        "vae": ("diffusers", "AutoencoderKL", "SDXL_VAE"),
        "text_encoder_2": ("transformers", "CLIPTextModelWithProjection", "OPENCLIP_BIGG"),
    },
    "flux-schnell": {
        "transformer": ("diffusers", "FluxTransformer2DModel", "FLUX_SCHNELL"),
        "vae": ("diffusers", "AutoencoderKL", "FLUX_VAE"),
        "text_encoder": ("transformers", "CLIPTextModel", "CLIP_L"),
        "text_encoder_2": ("transformers", "T5EncoderModel", "T5_XXL"),
    },
    "flux-dev": {
        "transformer": ("diffusers", "FluxTransformer2DModel", "FLUX_DEV"),
        "vae": ("diffusers", "AutoencoderKL", "FLUX_VAE"),
        "text_encoder": ("transformers", "CLIPTextModel", "CLIP_L"),
        "text_encoder_2": ("transformers", "T5EncoderModel", "T5_XXL"),
    },
    "flux-fill": {
        "transformer": ("diffusers", "FluxTransformer2DModel", "FLUX_FILL"),
        "vae": ("diffusers", "AutoencoderKL", "FLUX_VAE"),
        "text_encoder": ("transformers", "CLIPTextModel", "CLIP_L"),
        "text_encoder_2": ("transformers", "T5EncoderModel", "T5_XXL"),
    },
    "flux-kontext": {
        "transformer": ("diffusers", "FluxTransformer2DModel", "FLUX_KONTEXT"),
        "vae": ("diffusers", "AutoencoderKL", "FLUX_VAE"),
        "text_encoder": ("transformers", "CLIPTextModel", "CLIP_L"),
        "text_encoder_2": ("transformers", "T5EncoderModel", "T5_XXL"),
    },
    "sd35-medium": {
        "transformer": ("diffusers", "SD3Transformer2DModel", "SD35_MEDIUM"),
        "vae": ("diffusers", "AutoencoderKL", "SD3_VAE"),
        "text_encoder": ("transformers", "CLIPTextModelWithProjection", "CLIP_L_PROJECTED"),
        "text_encoder_2": ("transformers", "CLIPTextModelWithProjection", "OPENCLIP_BIGG"),
        "text_encoder_3": ("transformers", "T5EncoderModel", "T5_XXL"),
    },
    "flux2-klein": {
        "transformer": ("diffusers", "Flux2Transformer2DModel", "FLUX2_KLEIN"),
        "vae": ("diffusers", "AutoencoderKLFlux2", "FLUX2_VAE"),
        "text_encoder": ("transformers", "Qwen3ForCausalLM", "QWEN3_4B"),
    },
    "qwen-image": {
        "transformer": ("diffusers", "QwenImageTransformer2DModel", "QWEN_IMAGE"),
        "vae": ("diffusers", "AutoencoderKLQwenImage", "QWEN_IMAGE_VAE"),
        "text_encoder": ("transformers", "Qwen2_5_VLForConditionalGeneration", "QWEN25_VL_7B"),
    },
    "z-image-turbo": {
        "transformer": ("diffusers", "ZImageTransformer2DModel", "Z_IMAGE"),
        "vae": ("diffusers", "AutoencoderKL", "FLUX_VAE"),
        "text_encoder": ("transformers", "Qwen3Model", "QWEN3_4B"),
    },
}
"""Components of each pipeline: library, class, and the name of its configuration above."""

HUBS = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "sd15",
    "stabilityai/stable-diffusion-xl-base-1.0": "sdxl",
    "stabilityai/sdxl-turbo": "sdxl-turbo",
    "stabilityai/stable-diffusion-xl-refiner-1.0": "sdxl-refiner",
    "black-forest-labs/FLUX.1-schnell": "flux-schnell",
    "black-forest-labs/FLUX.1-dev": "flux-dev",
    "black-forest-labs/FLUX.1-Fill-dev": "flux-fill",
    "black-forest-labs/FLUX.1-Kontext-dev": "flux-kontext",
    "stabilityai/stable-diffusion-3.5-medium": "sd35-medium",
    "black-forest-labs/FLUX.2-klein-4B": "flux2-klein",
    "Qwen/Qwen-Image": "qwen-image",
    "Tongyi-MAI/Z-Image-Turbo": "z-image-turbo",
}
"""Where each of them was published."""

SINGLE_FILES = {("sd15", "base"): "sd15", ("sdxl", "base"): "sdxl", ("sdxl", "refiner"): "sdxl-refiner"}
"""By family and role, what every single file of them is."""

Network = tuple[str, str, dict[str, Any]]
"""(library, class, configuration)"""


def published(card: ModelCard) -> dict[str, Network]:
    """The networks of a card's checkpoint by component, as published; empty for a checkpoint that is not known."""
    name = HUBS.get(str(card.source.get("hub")))
    if card.source.get("file"):
        name = SINGLE_FILES.get((card.family, card.role))
    parts = PIPELINES.get(str(name), {})
    return {part: (library, kind, globals()[written]) for part, (library, kind, written) in parts.items()}
