"""Tiny random models of the families whose text encoders are language models, and of Stable Diffusion 3."""

from __future__ import annotations

from typing import Any

from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from tokenizers import pre_tokenizers
from transformers import (
    CLIPTextModelWithProjection,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    T5EncoderModel,
    T5TokenizerFast,
)

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
PAD, START, END = 256, 257, 258


def tokenizer() -> Qwen2Tokenizer:
    """One token a byte, and the marks of a chat."""
    words = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *SPECIAL]
    made = Qwen2Tokenizer(
        vocab={word: i for i, word in enumerate(words)},
        merges=[],
        unk_token=None,
        bos_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
    )
    made.chat_template = CHAT
    return made


def language(layers: int) -> dict[str, Any]:
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1}
    ids = {"pad_token_id": PAD, "bos_token_id": PAD, "eos_token_id": END, "vocab_size": 259}
    return {**sizes, **ids, "num_hidden_layers": layers, "max_position_embeddings": 512}


def vae(made: type, channels: int, **added: object) -> Any:
    return made(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=32,
        **added,
    )


def sd3(
    clip: tuple[CLIPTextModelWithProjection, CLIPTextModelWithProjection],
    clip_tokenizer: Any,
    t5: T5EncoderModel,
    t5_tokenizer: T5TokenizerFast,
) -> StableDiffusion3Pipeline:
    """Of text encoders that are 8 wide: two CLIPs side by side, and a T5 as wide as both."""
    return StableDiffusion3Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(AutoencoderKL, 16, scaling_factor=0.5, shift_factor=0.1, force_upcast=False),
        text_encoder=clip[0],
        tokenizer=clip_tokenizer,
        text_encoder_2=clip[1],
        tokenizer_2=clip_tokenizer,
        text_encoder_3=t5,
        tokenizer_3=t5_tokenizer,
        transformer=SD3Transformer2DModel(
            sample_size=16,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=16,
            caption_projection_dim=16,
            pooled_projection_dim=16,
            pos_embed_max_size=32,
            dual_attention_layers=(0,),
            qk_norm="rms_norm",
        ),
    )


def flux2_klein(is_distilled: bool = True) -> Flux2KleinPipeline:
    return Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=vae(AutoencoderKLFlux2, 4),
        text_encoder=Qwen3ForCausalLM(Qwen3Config(**language(28), head_dim=4)),  # it takes layers 9, 18 and 27
        tokenizer=tokenizer(),
        transformer=Flux2Transformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=24,
            timestep_guidance_channels=16,
            axes_dims_rope=(2, 2, 2, 2),
            guidance_embeds=False,
        ),
        is_distilled=is_distilled,
    )


def qwen_image() -> QwenImagePipeline:
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10_000.0}
    text = {**language(1), "hidden_size": 16, "rope_parameters": rope}
    sight = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
    marks = {
        "vision_start_token_id": START,
        "vision_end_token_id": END,
        "image_token_id": START,
        "video_token_id": START,
    }
    config = Qwen2_5_VLConfig(text_config=text, vision_config={**sight, "fullatt_block_indexes": [0]}, **marks)
    return QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, max_shift=0.9, max_image_seq_len=8192, shift_terminal=0.02
        ),
        vae=AutoencoderKLQwenImage(
            base_dim=8,
            z_dim=4,
            dim_mult=[1, 1],
            num_res_blocks=1,
            temperal_downsample=[True],
            latents_mean=[0.1, 0.0, -0.1, 0.2],
            latents_std=[1.0, 1.5, 2.0, 1.0],
        ),
        text_encoder=Qwen2_5_VLForConditionalGeneration(config),
        tokenizer=tokenizer(),
        transformer=QwenImageTransformer2DModel(
            in_channels=16,
            out_channels=4,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=16,
            axes_dims_rope=(2, 2, 4),
        ),
    )


def z_image() -> ZImagePipeline:
    return ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(AutoencoderKL, 16, scaling_factor=0.5, shift_factor=0.1, force_upcast=False),
        text_encoder=Qwen3Model(Qwen3Config(**language(3), head_dim=4)),
        tokenizer=tokenizer(),
        transformer=ZImageTransformer2DModel(
            in_channels=16,
            dim=16,
            n_layers=1,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=8,
            axes_dims=[2, 2, 4],
            axes_lens=[256, 64, 64],
        ),
    )
