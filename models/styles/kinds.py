"""The kinds of styles: whose pipelines can wear them, when, and which weights mean something. One row each.

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
    needs:    what its card must give: `file`, `text`, or keys of `settings`;   takes: further keys of `settings`
    least, most, many, blends: as of `router.types.Style`
    touches:  what inside a pipeline it changes while it is worn, in words
    """

    families: tuple[str, ...]
    touches: str
    steps: tuple[str, ...] = DRAWN
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    least: float = 0.0
    most: float = 1.0
    many: bool = False
    blends: bool = True


KINDS: dict[str, Kind] = {
    "lora": Kind(
        ("sd15", "sdxl", "sd3", "flux", "flux2-klein", "qwen-image", "z-image"),
        "weights of the denoiser's layers (and of text encoders, if its file has some): a low-rank sum is added",
        needs=("file",),
        takes=("scheduler",),
        least=-2.0,
        most=2.0,
        many=True,
    ),
    "textual_inversion": Kind(
        CLIP,
        "the text encoder's table of tokens, while the prompt with the trigger is read",
        needs=("file",),
        many=True,
    ),
    "embedding_mix": Kind(
        ("sd15", "sdxl", "sd3", "flux"),
        "what the denoiser reads of the prompt: it goes over into what it would read of another text",
        needs=("text",),
        many=True,
    ),
    "clip_skip": Kind(
        CLIP,
        "what the denoiser reads of the prompt: states of an earlier layer of the text encoder",
        needs=("layers",),
    ),
    "freeu": Kind(
        CLIP,
        "the up blocks of the UNet: their own features are made stronger, what skips over to them weaker",
        needs=("s1", "s2", "b1", "b2"),
    ),
    "guidance_rescale": Kind(
        CLIP,
        "guidance: its result gets some of the contrast back that the prediction without it has",
        steps=("generate",),
        needs=("rescale",),
    ),
    "scheduler": Kind(
        ("sd15", "sdxl", "sd3", "flux", "flux2-klein", "qwen-image", "z-image"),
        "the scheduler: how a prediction becomes the next latents",
        needs=("scheduler",),
        blends=False,
    ),
}
