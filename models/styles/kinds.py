"""The kinds of styles: whose pipelines can wear them, when, and which weights mean something. One row each, with what
inside a pipeline it changes while it is worn.

`models/styles/wearing.py` has the function of each kind that puts it on.
"""

from __future__ import annotations

from dataclasses import dataclass

DRAWN = ("generate", "refine")
CLIP = ("sd15", "sdxl")


@dataclass(frozen=True)
class Kind:
    """One kind of style.

    families: that can wear it;   steps: kinds of steps in which they can
    needs:    what its card must give: `file`, `encoder` (a folder), `text`, or keys of `settings`
    takes:    keys of `settings` that it may have beside those; it has no others
    either:   keys of `settings`, of which it needs just one
    why:      why other families cannot wear it, if that is worth saying
    least, most, many, blends: as of `router.types.Style`
    """

    families: tuple[str, ...]
    steps: tuple[str, ...] = DRAWN
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    either: tuple[str, ...] = ()
    why: str = ""
    least: float = 0.0
    most: float = 1.0
    many: bool = False
    blends: bool = True


KINDS: dict[str, Kind] = {
    # Weights of the denoiser's layers (and of text encoders, if its file has some): a low-rank sum is added.
    "lora": Kind(
        ("sd15", "sdxl", "sd3", "flux", "flux2-klein", "qwen-image", "z-image"),
        needs=("file",),
        takes=("scheduler",),
        least=-2.0,
        most=2.0,
        many=True,
    ),
    # The text encoder's table of tokens, while the prompt with the trigger is read.
    "textual_inversion": Kind(
        CLIP,
        needs=("file",),
        many=True,
    ),
    # What the denoiser reads of the prompt: it goes over into what it would read of another text.
    "embedding_mix": Kind(
        ("sd15", "sdxl", "sd3", "flux"),
        needs=("text",),
        many=True,
    ),
    # What the denoiser reads of the prompt: states of an earlier layer of the text encoder.
    "clip_skip": Kind(
        CLIP,
        needs=("layers",),
    ),
    # The up blocks of the UNet: their own features are made stronger, what skips over to them weaker.
    "freeu": Kind(
        CLIP,
        needs=("s1", "s2", "b1", "b2"),
    ),
    # Attention of the UNet: guided away from one that is perturbed; words that count more or less for some steps; or
    # maps of another prompt's picture.
    "attention": Kind(
        CLIP,
        takes=("blocks", "from", "to", "cross_attention_until", "self_attention_until"),
        either=("pag", "words", "instead_of"),
        why="in a transformer, words and picture share one attention",
        most=2.0,
        many=True,
    ),
    # Attention of the UNet: beside what it reads of the words stands what an encoder saw in a reference picture.
    "ip_adapter": Kind(
        CLIP,
        needs=("file", "encoder"),
        why="diffusers has adapters of other families in other classes",
    ),
    # Guidance: its result gets some of the contrast back that the prediction without it has.
    "guidance_rescale": Kind(
        CLIP,
        steps=("generate",),
        needs=("rescale",),
    ),
    # The scheduler: how a prediction becomes the next latents.
    "scheduler": Kind(
        ("sd15", "sdxl", "sd3", "flux", "flux2-klein", "qwen-image", "z-image"),
        needs=("scheduler",),
        blends=False,
    ),
}
