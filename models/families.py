"""The families of diffusion models: what differs between them is one row each, and nothing elsewhere asks which it is.

A row says which diffusers classes draw, how their latents lie, what may be handed over, what reads the prompt; its
`arguments` function spells a checked step (`models.call.Call`) as that pipeline's call.

How to add a family. Here: one `Family` row in `FAMILIES`, with an `arguments` function if none of those below fits; in
`models/layouts.py` a `Layout` if its latents lie as none of those do. Beside it: a card in `models/cards/real/`, its
name and a line in the tables of `models/cards/README.md`. In the tests: tiny random weights of its class
(`tests/models/tiny.py`), its name where families are tried (`test_families.py`, `test_engine.py`), and its published
configuration in `real_configs.py`, if it is known for sure. If that is not enough, this table lacks a column: add that,
not a branch. What planning must know of a family goes on the `ModelCard` (`card_facts`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from models.call import Call
from models.layouts import PACKED, PACKED_FRAME, PATCHES, PLANAR, Layout
from models.prompts.weights import plain
from router.types import ModelCard

Arguments = Callable[[Call, ModelCard, Any], dict[str, Any]]
"""(call, card, pipeline) to the keyword arguments of the pipeline's call, without callback, generator and picture."""


@dataclass(frozen=True)
class Controlled:
    """The classes of a family with a ControlNet: the network's, and those that draw, go on and inpaint beside it."""

    network: str
    pipeline: str
    img2img: str
    inpaint: str


@dataclass(frozen=True)
class Family:
    """One family of diffusion models. Class names are those of diffusers.

    pipeline:      the class that draws from noise
    arguments:     how a step becomes that class's call, and its img2img sibling's
    img2img:       the class that goes on from a picture by `strength` ("": there is none, so nothing is refined)
    inpaint:       the class that draws what a mask leaves open of a picture ("": there is none)
    edits:         how its models change a given picture, as `ModelCard.edits`; default: by strength, with `img2img`
    draws:         they draw from noise; those that do not are editors, which only change given pictures
    max_pictures, side_by_side: as of `ModelCard`
    control:       its classes with a ControlNet, if it has any
    layout:        how its latents lie
    flow:          flow matching, whose schedulers are others than those of diffusion with a fixed noise schedule
    relays:        a share of the denoising names a noise level, so that another model can go on from there
    names_passes:  its pipeline tells the caches of its network which pass of a step it is in
    cuts_schedule: its pipelines begin and end at a share by themselves; the engine does it for the others
    denoiser:      the component that predicts
    windows:       the denoiser may be applied window by window to a large picture
    encoded:       what `encode_prompt` returns, by the names under which the call takes it; for guests
    tokenizers:    the components that may read the prompt; the first that is there counts
    read:          (tokenizer, prompt) to the text up to the prompt's end, as it is tokenised
    takes_length:  the card's `max_prompt_tokens` is the limit (`max_sequence_length`), not the tokenizer's own
    chunks:        only CLIP reads its prompts, so longer ones can be read in parts, and parts of them weighted
    single_file:   a published single file holds all of it
    takes_negative: its call has an argument for a negative prompt
    extra:         further arguments of the constructor
    """

    pipeline: str
    arguments: Arguments
    img2img: str = ""
    inpaint: str = ""
    edits: Literal["", "strength", "instruct", "fill"] = ""
    draws: bool = True
    max_pictures: int = 1
    side_by_side: bool = False
    control: Controlled | None = None
    layout: Layout = PLANAR
    flow: bool = True
    relays: bool = False
    names_passes: bool = True
    cuts_schedule: bool = False
    denoiser: str = "transformer"
    windows: bool = False
    encoded: tuple[str, ...] = ()
    tokenizers: tuple[str, ...] = ("tokenizer",)
    read: Callable[[Any, str], str] = lambda tokenizer, prompt: prompt
    takes_length: bool = True
    chunks: bool = False
    single_file: bool = False
    takes_negative: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def roles(self) -> tuple[str, ...]:
        """What a card of this family may be."""
        if not self.draws:
            return ("editor",)
        return ("base", "refiner") if self.img2img else ("base",)

    def unread_tokens(self, card: ModelCard, pipe: Any, prompt: str) -> int:
        """Tokens of the prompt beyond what the model reads."""
        tokenizer = next(part for name in self.tokenizers if (part := getattr(pipe, name)) is not None)
        own = tokenizer.model_max_length
        limit = card.max_prompt_tokens if self.takes_length else (own - 2) * card.prompt_chunks + 2
        said = self.read(tokenizer, plain(prompt, card.prompt_weights))
        tokens = tokenizer(said, truncation=False, verbose=False)["input_ids"]
        return max(0, len(tokens) - limit)


# --------------------------------------------------------------------------------------------- a step as a call


def stable_diffusion(call: Call, card: ModelCard, pipe: Any) -> dict[str, Any]:
    """Stable Diffusion 1.5. Its img2img takes the size of the picture."""
    return _shared(call) | _guidance(call) | (_size(call) if call.from_noise or call.masked else {})


def sdxl(call: Call, card: ModelCard, pipe: Any) -> dict[str, Any]:
    """SDXL and its refiner, which cut the schedule themselves and are told the size of what they see."""
    made = stable_diffusion(call, card, pipe)
    if call.start is not None:
        made["denoising_start"] = call.start
    if call.until is not None:
        made["denoising_end"] = call.until
    if call.tiling is not None:
        # What the network sees is one window, so that is the size it is told.
        seen = (call.tiling.height, call.tiling.width)
        made |= {"original_size": seen, "target_size": seen}
    return made


def sd3(call: Call, card: ModelCard, pipe: Any) -> dict[str, Any]:
    """Stable Diffusion 3 and 3.5. The length is that of T5; CLIP reads 77 tokens of the same prompt."""
    return _shared(call) | _size(call) | _length(card) | _guidance(call)


def flux(call: Call, card: ModelCard, pipe: Any) -> dict[str, Any]:
    """FLUX.1: guidance is an input of the network where it was distilled for that, else real (two passes)."""
    if pipe.transformer.config.guidance_embeds:
        guidance: dict[str, Any] = {"guidance_scale": call.guidance_scale}
    elif call.guidance_scale > 1:
        guidance = {"true_cfg_scale": call.guidance_scale, "negative_prompt": call.negative_prompt}
    else:
        guidance = {}
    return _shared(call) | _size(call) | _length(card) | guidance


def flux_fill(call: Call, card: ModelCard, pipe: Any) -> dict[str, Any]:
    """FLUX.1 Fill, which sees picture and mask beside the noise; its guidance is an input of the network."""
    return _shared(call) | _size(call) | _length(card) | {"guidance_scale": call.guidance_scale}


def flux_kontext(call: Call, card: ModelCard, pipe: Any) -> dict[str, Any]:
    """FLUX.1 Kontext. What it draws and what it looks at keep the sizes that were planned."""
    return flux(call, card, pipe) | {"max_area": call.width * call.height, "_auto_resize": False}


def flux2_klein(call: Call, card: ModelCard, pipe: Any) -> dict[str, Any]:
    """FLUX.2 [klein]: distilled without guidance, or guided away from the empty prompt; it takes no negative one."""
    scale = 1.0 if pipe.config.is_distilled else call.guidance_scale
    return _shared(call) | _size(call) | _length(card) | {"guidance_scale": scale}


def qwen_image(call: Call, card: ModelCard, pipe: Any) -> dict[str, Any]:
    """Qwen-Image: real guidance, which runs only beside a negative prompt; its publisher's empty one is a blank."""
    guided = call.guidance_scale > 1
    guidance = {"true_cfg_scale": call.guidance_scale if guided else 1.0}
    return (
        _shared(call)
        | _size(call)
        | _length(card)
        | guidance
        | ({"negative_prompt": call.negative_prompt or " "} if guided else {})
    )


def z_image(call: Call, card: ModelCard, pipe: Any) -> dict[str, Any]:
    """Z-Image, which counts guidance from 0, what is added to the prompt's own prediction; all others count from 1."""
    guided = call.guidance_scale > 1
    guidance = {"guidance_scale": call.guidance_scale - 1 if guided else 0.0}
    return (
        _shared(call)
        | _size(call)
        | _length(card)
        | guidance
        | ({"negative_prompt": call.negative_prompt} if guided else {})
    )


def _shared(call: Call) -> dict[str, Any]:
    made: dict[str, Any] = {"prompt": call.prompt, "num_inference_steps": call.steps}
    if call.strength is not None:
        made["strength"] = call.strength
    if call.until is not None:
        made["output_type"] = "latent"
    return made


def _size(call: Call) -> dict[str, Any]:
    return {"width": call.width, "height": call.height}


def _length(card: ModelCard) -> dict[str, Any]:
    return {"max_sequence_length": card.max_prompt_tokens}


def _guidance(call: Call) -> dict[str, Any]:
    """Real guidance by `guidance_scale`; at or below 1 these pipelines run no second pass.

    An empty negative prompt is left out: SDXL then guides away from zeros, as it was trained, not from an empty
    sentence.
    """
    guided = call.guidance_scale > 1 and call.negative_prompt
    return {"guidance_scale": call.guidance_scale} | ({"negative_prompt": call.negative_prompt} if guided else {})


def _chat(tokenizer: Any, prompt: str) -> str:
    """The prompt as a message of a chat, up to its end; what the template adds before it counts against the limit."""
    message = [{"role": "user", "content": prompt}]
    text = str(tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True))
    return text[: text.rfind(prompt.strip()) + len(prompt.strip())]


# ------------------------------------------------------------------------------------------------------ the table

FAMILIES: dict[str, Family] = {
    "sd15": Family(
        "StableDiffusionPipeline",
        stable_diffusion,
        img2img="StableDiffusionImg2ImgPipeline",
        inpaint="StableDiffusionInpaintPipeline",
        control=Controlled(
            "ControlNetModel",
            "StableDiffusionControlNetPipeline",
            "StableDiffusionControlNetImg2ImgPipeline",
            "StableDiffusionControlNetInpaintPipeline",
        ),
        flow=False,
        relays=True,
        denoiser="unet",
        windows=True,
        encoded=("prompt_embeds", "negative_prompt_embeds"),
        takes_length=False,
        chunks=True,
        single_file=True,
        extra={"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False},
    ),
    "sdxl": Family(
        "StableDiffusionXLPipeline",
        sdxl,
        img2img="StableDiffusionXLImg2ImgPipeline",
        inpaint="StableDiffusionXLInpaintPipeline",
        control=Controlled(
            "ControlNetModel",
            "StableDiffusionXLControlNetPipeline",
            "StableDiffusionXLControlNetImg2ImgPipeline",
            "StableDiffusionXLControlNetInpaintPipeline",
        ),
        flow=False,
        relays=True,
        cuts_schedule=True,
        denoiser="unet",
        windows=True,
        encoded=(
            *("prompt_embeds", "negative_prompt_embeds"),
            *("pooled_prompt_embeds", "negative_pooled_prompt_embeds"),
        ),
        tokenizers=("tokenizer", "tokenizer_2"),
        takes_length=False,
        chunks=True,
        single_file=True,
        # Provenance goes into the file's metadata; an invisible mark would make bytes depend on what is installed.
        extra={"add_watermarker": False},
    ),
    "sd3": Family(
        "StableDiffusion3Pipeline",
        sd3,
        img2img="StableDiffusion3Img2ImgPipeline",
        inpaint="StableDiffusion3InpaintPipeline",
        tokenizers=("tokenizer_3", "tokenizer"),
    ),
    "flux": Family(
        "FluxPipeline",
        flux,
        img2img="FluxImg2ImgPipeline",
        inpaint="FluxInpaintPipeline",
        control=Controlled(
            "FluxControlNetModel",
            "FluxControlNetPipeline",
            "FluxControlNetImg2ImgPipeline",
            "FluxControlNetInpaintPipeline",
        ),
        layout=PACKED,
        tokenizers=("tokenizer_2",),
    ),
    "flux-fill": Family(
        "FluxFillPipeline",
        flux_fill,
        inpaint="FluxFillPipeline",
        edits="fill",
        draws=False,
        layout=PACKED,
        names_passes=False,
        tokenizers=("tokenizer_2",),
        takes_negative=False,
    ),
    "flux-kontext": Family(
        "FluxKontextPipeline",
        flux_kontext,
        inpaint="FluxKontextInpaintPipeline",
        edits="instruct",
        max_pictures=4,
        side_by_side=True,  # a list of pictures is a batch to its pipeline
        layout=PACKED,
        names_passes=False,
        tokenizers=("tokenizer_2",),
    ),
    # Its pipeline takes pictures to look at, not one to go on from.
    "flux2-klein": Family(
        "Flux2KleinPipeline",
        flux2_klein,
        inpaint="Flux2KleinInpaintPipeline",
        edits="instruct",
        max_pictures=4,
        layout=PATCHES,
        read=_chat,
        takes_negative=False,
    ),
    "qwen-image": Family(
        "QwenImagePipeline",
        qwen_image,
        img2img="QwenImageImg2ImgPipeline",
        inpaint="QwenImageInpaintPipeline",
        layout=PACKED_FRAME,
    ),
    "z-image": Family(
        "ZImagePipeline", z_image, img2img="ZImageImg2ImgPipeline", inpaint="ZImageInpaintPipeline", read=_chat
    ),
}

PLANNED: dict[str, str] = {
    "prompt": "drop it",
    "negative_prompt": "drop it",
    "num_inference_steps": "write the card's 'steps'",
    "guidance_scale": "write the card's 'guidance_scale'",
    "true_cfg_scale": "write the card's 'guidance_scale'",
    "width": "write the card's 'native_size'",
    "height": "write the card's 'native_size'",
    "max_sequence_length": "write the card's 'max_prompt_tokens'",
    **dict.fromkeys(("strength", "denoising_start", "denoising_end"), "say it in a recipe"),
    **dict.fromkeys(("image", "generator", "latents", "num_images_per_prompt", "output_type"), "drop it"),
    **dict.fromkeys(("mask_image", "masked_image_latents", "padding_mask_crop"), "drop it"),
    **dict.fromkeys(("image_reference", "max_area", "_auto_resize"), "drop it"),
    **dict.fromkeys(("control_image", "controlnet_conditioning_scale"), "say it in a recipe"),
    **dict.fromkeys(("timesteps", "sigmas"), "name a 'scheduler'"),
}
"""Arguments of a pipeline's call that plans and cards say elsewhere, with the remedy: a card's `settings` may not."""

SCORERS = ("clip", "pickscore", "vqa", "verifier")
"""Families that judge pictures; models/scoring.py has their classes."""

REMOTE = "remote"
"""The family of models that another server draws with (models/remote); they only make pictures from a prompt."""

ROLES: dict[str, tuple[str, ...]] = {
    REMOTE: ("base",),
    **{name: row.roles for name, row in FAMILIES.items()},
    **dict.fromkeys(SCORERS, ("scorer",)),
}
"""Every family that a card may name, and what its models may be."""


def card_facts(family: str) -> dict[str, Any]:
    """What planning needs to know of all models of a family, as fields of `ModelCard`."""
    row = FAMILIES.get(family)
    if row is None:
        return {"relays": False, "refines": False, "edits": ""}
    return {
        "relays": row.relays,
        "refines": bool(row.img2img),
        "inpaints": bool(row.inpaint),
        "edits": row.edits or ("strength" if row.img2img else ""),
        "max_pictures": row.max_pictures,
        "side_by_side": row.side_by_side,
        "flow": row.flow,
        "takes_negative": row.takes_negative,
    }


def relaying() -> tuple[str, ...]:
    """The families that hand latents over in mid-denoising, for messages."""
    return tuple(name for name, row in FAMILIES.items() if row.relays)
