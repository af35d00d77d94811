"""What was published of the real checkpoints, beside their architectures (models/weights/needs): how many
parameters they have; and the architectures of scorers.
"""

from typing import Any

from models.weights.needs.architectures import *  # noqa: F403
from models.weights.needs.architectures import _IDS

CLIP_VIT_B32: dict[str, Any] = {
    "text_config": {**_IDS, "hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8},
    "vision_config": {"hidden_size": 768, "intermediate_size": 3072, "patch_size": 32, "image_size": 224},
    "projection_dim": 512,
}

# https://huggingface.co/yuvalkirstain/PickScore_v1: CLIP ViT-H/14.
PICKSCORE: dict[str, Any] = {
    "text_config": {**_IDS, "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16,
                    "num_hidden_layers": 24, "hidden_act": "gelu"},
    "vision_config": {"hidden_size": 1280, "intermediate_size": 5120, "num_attention_heads": 16,
                      "num_hidden_layers": 32, "patch_size": 14, "image_size": 224, "hidden_act": "gelu"},
    "projection_dim": 1024,
}  # fmt: skip
# https://arxiv.org/abs/2201.12086: BLIP with ViT-B/16 at 384 pixels.
BLIP_VQA: dict[str, Any] = {
    "text_config": {"vocab_size": 30_524, "hidden_size": 768, "encoder_hidden_size": 768, "intermediate_size": 3072,
                    "num_hidden_layers": 12, "num_attention_heads": 12, "max_position_embeddings": 512},
    "vision_config": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
                      "num_attention_heads": 12, "image_size": 384, "patch_size": 16},
}  # fmt: skip

PUBLISHED = {
    "SD15_UNET": 859_520_964,
    "SDXL_UNET": 2_567_463_684,
    "SDXL_REFINER_UNET": 2_260_000_000,  # rounded: the published half-precision file has 4.52 GB
    "SD15_VAE": 83_653_863,
    "SDXL_VAE": 83_653_863,
    "FLUX_VAE": 83_819_683,
    "CLIP_L": 123_060_480,
    "OPENCLIP_BIGG": 694_659_840,
    "T5_XXL": 4_762_310_656,
    "FLUX_SCHNELL": 11_891_178_560,
    "FLUX_DEV": 11_901_408_320,
    "FLUX_FILL": 11_901_408_320 + (384 - 64) * 3072,  # of FLUX.1 [dev], with more channels in
    "FLUX_KONTEXT": 11_901_408_320,
    "CLIP_VIT_B32": 151_277_313,
    "PICKSCORE": 986_109_441,
    "SD35_MEDIUM": 2_500_000_000 - 384**2 * 1536,  # the positions, which are no parameters here, are in the file
    "SD3_VAE": 83_819_683,
    "CLIP_L_PROJECTED": 123_650_304,
    "FLUX2_KLEIN": 4_000_000_000,
    "FLUX2_VAE": 84_000_000,  # a file of 336 MB in float32
    "QWEN_IMAGE": 20_000_000_000,
    "QWEN_IMAGE_VAE": 54_000_000 + 73_000_000,
    "Z_IMAGE": 6_000_000_000,
    "QWEN3_4B": 4_000_000_000,
    "QWEN25_VL_7B": 8_290_000_000,
    "BLIP_VQA": 361_000_000,  # rounded; the published file has its output embedding, which is tied, once more
}
"""Parameters of the published checkpoints."""

ROUNDED = {
    "SDXL_REFINER_UNET": 0.005,
    "SD35_MEDIUM": 0.02,
    "FLUX2_KLEIN": 0.04,
    "FLUX2_VAE": 0.01,
    "QWEN_IMAGE": 0.03,
    "QWEN_IMAGE_VAE": 0.01,
    "Z_IMAGE": 0.03,
    "QWEN3_4B": 0.01,
    "QWEN25_VL_7B": 0.001,
}
"""By how much (relative) a published number may be off, where it is a rounded one."""
