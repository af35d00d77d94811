"""From training states to folders that `from_pretrained` reads, in diffusers' own layout, fp16 safetensors."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
)

from models.embedded.training.diffusion import BETAS, FLOW_SHIFT, Denoising

PIPELINES: dict[str, type[DiffusionPipeline]] = {
    "sd15": StableDiffusionPipeline,
    "sdxl": StableDiffusionXLPipeline,
    "sdxl-turbo": StableDiffusionXLPipeline,
    "sdxl-refiner": StableDiffusionXLImg2ImgPipeline,
    "flux": FluxPipeline,
    "flux-schnell": FluxPipeline,
}
"""The pipeline class of each folder of weights."""


def assemble(model: Denoising, vae: AutoencoderKL) -> DiffusionPipeline:
    """The real pipeline around trained parts."""
    kind = model.card.kind
    if kind == "flux":
        scheduler = FlowMatchEulerDiscreteScheduler(shift=FLOW_SHIFT, use_dynamic_shifting=False)
        return FluxPipeline(
            scheduler, vae, model.text, model.tokenizer, model.text_2, model.tokenizer_2, model.denoiser
        )
    betas: dict[str, Any] = {**BETAS, "prediction_type": "epsilon", "timestep_spacing": "trailing"}
    if kind == "sd":
        solver = DPMSolverMultistepScheduler(**betas, steps_offset=1, algorithm_type="dpmsolver++", solver_order=2)
        return StableDiffusionPipeline(
            vae=vae,
            text_encoder=model.text,
            tokenizer=model.tokenizer,
            unet=model.denoiser,
            scheduler=solver,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    parts = {"vae": vae, "unet": model.denoiser, "scheduler": EulerDiscreteScheduler(**betas)}
    parts |= {"text_encoder_2": model.text_2, "tokenizer_2": model.tokenizer, "force_zeros_for_empty_prompt": False}
    if kind == "sdxl":
        return StableDiffusionXLPipeline(
            text_encoder=model.text, tokenizer=model.tokenizer, add_watermarker=False, **parts
        )
    return StableDiffusionXLImg2ImgPipeline(
        text_encoder=None, tokenizer=None, requires_aesthetics_score=True, add_watermarker=False, **parts
    )


def export(model: Denoising, vae: AutoencoderKL, folder: Path) -> None:
    """Write a pipeline's folder in fp16; what was there is replaced file by file."""
    assemble(model, vae).to(torch.float16).save_pretrained(folder, safe_serialization=True)
