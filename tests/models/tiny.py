"""Tiny random models in the real pipeline classes, saved as folders: a second each, a few hundred kilobytes."""

import string
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxFillPipeline,
    FluxKontextPipeline,
    FluxPipeline,
    FluxTransformer2DModel,
    PNDMScheduler,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForQuestionAnswering,
    BlipImageProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from models.families import card_facts
from router.types import ModelCard
from tests.models import tiny_transformers

LENGTH = 32
ALPHABET = string.ascii_lowercase + string.digits
NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def clip_tokenizer() -> CLIPTokenizer:
    words = ["<|startoftext|>", "<|endoftext|>", *ALPHABET, *(letter + "</w>" for letter in ALPHABET)]
    return CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=LENGTH)


def text_config(width: int, projection: int) -> CLIPTextConfig:
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    sizes = {"hidden_size": width, "intermediate_size": width, "num_hidden_layers": 2, "num_attention_heads": 2}
    return CLIPTextConfig(
        vocab_size=2 + 2 * len(ALPHABET), max_position_embeddings=LENGTH, projection_dim=projection, **sizes, **ids
    )


def vae(channels: int) -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=32,
        scaling_factor=0.5,
        shift_factor=0.1 if channels == 16 else None,
        force_upcast=False,
    )


def unet(cross: int, **added: object) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(8, 16),
        layers_per_block=1,
        cross_attention_dim=cross,
        attention_head_dim=2,
        norm_num_groups=4,
        **added,
    )


def text_time(width: int, numbers: int) -> dict[str, object]:
    return {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 4,
        "projection_class_embeddings_input_dim": width + numbers * 4,
    }


def sd15() -> StableDiffusionPipeline:
    return StableDiffusionPipeline(
        vae=vae(4),
        text_encoder=CLIPTextModel(text_config(8, 8)),
        tokenizer=clip_tokenizer(),
        unet=unet(8),
        scheduler=PNDMScheduler(**NOISE, skip_prk_steps=True),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl() -> StableDiffusionXLPipeline:
    return StableDiffusionXLPipeline(
        vae=vae(4),
        text_encoder=CLIPTextModel(text_config(8, 8)),
        text_encoder_2=CLIPTextModelWithProjection(text_config(8, 8)),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        unet=unet(16, **text_time(8, 6)),
        scheduler=EulerDiscreteScheduler(**NOISE, timestep_spacing="leading"),
    )


def refiner(base: StableDiffusionXLPipeline) -> StableDiffusionXLImg2ImgPipeline:
    return StableDiffusionXLImg2ImgPipeline(
        vae=base.vae,
        text_encoder=None,
        text_encoder_2=base.text_encoder_2,
        tokenizer=None,
        tokenizer_2=base.tokenizer_2,
        unet=unet(8, **text_time(8, 5)),
        scheduler=EulerDiscreteScheduler(**NOISE, timestep_spacing="leading"),
        requires_aesthetics_score=True,
    )


def t5(width: int) -> tuple[T5EncoderModel, T5TokenizerFast]:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((letter, -3.0) for letter in ALPHABET)]
    config = T5Config(vocab_size=len(pieces), d_model=width, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    return T5EncoderModel(config), T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=LENGTH)


def sd3() -> StableDiffusion3Pipeline:
    clips = CLIPTextModelWithProjection(text_config(8, 8)), CLIPTextModelWithProjection(text_config(8, 8))
    return tiny_transformers.sd3(clips, clip_tokenizer(), *t5(16))


def flux(guidance_embeds: bool = False) -> FluxPipeline:
    encoder, tokenizer = t5(8)
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.5),
        vae=vae(16),
        text_encoder=CLIPTextModel(text_config(8, 8)),
        tokenizer=clip_tokenizer(),
        text_encoder_2=encoder,
        tokenizer_2=tokenizer,
        transformer=FluxTransformer2DModel(
            in_channels=64,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=8,
            pooled_projection_dim=8,
            guidance_embeds=guidance_embeds,
            axes_dims_rope=(2, 2, 4),
        ),
    )


def flux_edits(kind: type, channels: int = 64) -> FluxFillPipeline | FluxKontextPipeline:
    """Of the class `kind`: a FLUX whose network reads so many channels, of which it predicts 64."""
    parts = dict(flux(True).components)
    parts["transformer"] = FluxTransformer2DModel(
        **{**parts["transformer"].config, "in_channels": channels, "out_channels": 64}
    )
    return kind(**{name: part for name, part in parts.items() if part is not None})


def save_clip(folder: Path) -> None:
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config=text_config(8, 8).to_dict(),
        vision_config={**vision, "image_size": 32, "patch_size": 16},
        projection_dim=8,
    )
    CLIPModel(config).save_pretrained(folder)
    clip_tokenizer().save_pretrained(folder)
    side = {"height": 32, "width": 32}
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=side).save_pretrained(folder)


def save_blip(folder: Path) -> None:
    """A VQA model whose words are letters, and yes and no."""
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "[DEC]",
        "yes",
        "no",
        *ALPHABET,
        *("##" + c for c in ALPHABET),
    ]
    folder.mkdir(parents=True)
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(words)}, model_max_length=64)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"bos_token_id": 5, "pad_token_id": 0, "sep_token_id": 3, "eos_token_id": 3}
    config = BlipConfig(
        text_config={**sizes, **ids, "vocab_size": len(words), "encoder_hidden_size": 8, "max_position_embeddings": 64},
        vision_config={**sizes, "image_size": 32, "patch_size": 16},
    )
    BlipForQuestionAnswering(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    BlipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)


def save_all(root: Path) -> None:
    """One folder per model under `root`, the same weights every time."""
    torch.manual_seed(0)
    base = sdxl()
    pipes = {"sd15": sd15(), "sdxl": base, "sdxl-refiner": refiner(base), "flux": flux(), "flux-dev": flux(True)}
    pipes |= {"sd3": sd3(), "qwen-image": tiny_transformers.qwen_image(), "z-image": tiny_transformers.z_image()}
    pipes |= {"flux2-klein": tiny_transformers.flux2_klein(), "flux2-base": tiny_transformers.flux2_klein(False)}
    for name, pipe in pipes.items():
        pipe.save_pretrained(root / name, safe_serialization=True)
    save_clip(root / "clip")
    save_blip(root / "vqa")
    # Beside the noise, Fill sees the picture, and of the mask four pixels for each of four latent cells.
    for name, kind, channels in (("fill", FluxFillPipeline, 64 + 64 + 4 * 4), ("kontext", FluxKontextPipeline, 64)):
        flux_edits(kind, channels).save_pretrained(root / f"flux-{name}", safe_serialization=True)


def cards(root: Path) -> dict[str, ModelCard]:
    """Cards of the folders that `save_all` writes."""
    sized = {"native_size": (32, 32), "vae_scale": 2, "min_side": 16, "max_pixels": 128 * 128, "steps": 4}
    sized |= {"area_tolerance": (0.01, 100.0), "aspect_tolerance": 100.0}  # random weights are as good at any size
    rows: dict[str, dict[str, object]] = {
        "sd15": {"family": "sd15", "role": "base", "latent_space": "sd15", "guidance_scale": 3.0},
        "sdxl": {"family": "sdxl", "role": "base", "latent_space": "sdxl", "guidance_scale": 3.0},
        "sdxl-refiner": {"family": "sdxl", "role": "refiner", "latent_space": "sdxl", "guidance_scale": 3.0},
        "flux": {"family": "flux", "role": "base", "latent_space": "flux", "guidance_scale": 3.0},
        "flux-dev": {
            "family": "flux",
            "role": "base",
            "latent_space": "flux",
            "guidance_scale": 3.5,
            "guidance": "input",
        },
        "flux-fill": {"family": "flux-fill", "role": "editor", "guidance": "input"},
        "flux-kontext": {"family": "flux-kontext", "role": "base", "guidance": "input"},
        "sd3": {"family": "sd3", "role": "base", "latent_space": "sd3", "guidance_scale": 3.0},
        "flux2-klein": {"family": "flux2-klein", "role": "base", "latent_space": "flux2", "guidance_scale": 1.0},
        "flux2-base": {"family": "flux2-klein", "role": "base", "latent_space": "flux2", "guidance_scale": 3.0},
        "qwen-image": {"family": "qwen-image", "role": "base", "latent_space": "qwen-image", "guidance_scale": 3.0},
        "z-image": {"family": "z-image", "role": "base", "latent_space": "z-image", "guidance_scale": 1.0},
    }
    for name in ("flux-fill", "flux-kontext"):
        rows[name] |= {"latent_space": "flux", "guidance_scale": 3.5}
    for name in ("flux", "flux-dev", "flux-fill", "flux-kontext", "sd3", "z-image"):
        rows[name] |= {"latent_channels": 16, "backbone": "dit", "max_prompt_tokens": 16}
    for name in ("flux2-klein", "flux2-base", "qwen-image"):
        rows[name] |= {"latent_channels": 4, "backbone": "dit", "max_prompt_tokens": 16}
    rows["qwen-image"] |= {"min_steps": 2, "max_prompt_tokens": 400}  # its words to the language model are long
    rows["z-image"] |= {"max_prompt_tokens": 48}  # a token a byte, and the chat's words count
    made = {
        name: ModelCard(
            id=name,
            source={"local": str(root / name)},
            **{**sized, **card_facts(str(row["family"])), **row},  # type: ignore[arg-type]
        )
        for name, row in rows.items()
    }
    made["clip"] = ModelCard(id="clip", family="clip", role="scorer", source={"local": str(root / "clip")})
    made["pickscore"] = ModelCard(
        id="pickscore", family="pickscore", role="scorer", source={"local": str(root / "clip")}
    )
    vqa = {"local": str(root / "vqa")}
    made["vqa"] = ModelCard(id="vqa", family="vqa", role="scorer", source=vqa, max_prompt_tokens=64)
    return made
