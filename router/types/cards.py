"""Model cards: what is known of a checkpoint without loading it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from router.types.styles import Style

Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Remote:
    """The server that draws with a model, by OpenAI's images API.

    url, model: where its API begins, such as `https://host/v1`, and what it calls the model
    key_env:    the environment variable with its key, in the process of the worker; "": none is sent
    timeout_s:  within which a picture has to be there
    takes:      settings of a step that it can be told beside prompt and size -> what they are called there
    stream:     it answers with events;   previews: so many pictures are asked for on the way (0..3)
    price_usd:  of a picture, or of a megapixel (10^6 pixels) as `price_per` says; None: its seconds at `usd_per_hour`
    """

    url: str
    model: str
    key_env: str = ""
    timeout_s: float = 120.0
    takes: Mapping[str, str] = field(default_factory=dict)
    stream: bool = False
    previews: int = 0
    price_usd: float | None = None
    price_per: Literal["picture", "megapixel"] = "picture"

    @property
    def name(self) -> str:
        """`host/model`, as answers and files say it."""
        return f"{self.url.partition('://')[2].partition('/')[0]}/{self.model}"


@dataclass(frozen=True, slots=True)
class Licence:
    """The terms of a model. name: SPDX, or the publisher's;   gated: whether its download asks for accepted terms"""

    name: str
    commercial_use: bool
    gated: bool


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One checkpoint: what differs between SD1.5, SDXL and FLUX is a row of a table, not a subclass.

    latent_space: models that name the same space may hand latents to one another
    vae_scale:    pixels per latent cell along one side (8 for the real families)
    family:       which row of models/families.py draws with it, or which class of models/scoring.py judges with it
    role:         "base" makes a picture from noise, "refiner" only continues one, "editor" only changes given ones,
                  "scorer" judges one
    native_sizes, area_tolerance, aspect_tolerance: sizes (width, height) at which it draws well from noise, and how far
                  from one of them it still does: area by a factor from..to of that size's, aspect (width over height)
                  by a factor up or down. Empty: `native_size` alone. See `good_at`
    guidance:     "real": above 1 a second pass is run, which heeds a negative prompt; "input": distilled, a number that
                  the network reads, in one pass, and a negative prompt has no effect
    tile_guidance_scale: guidance of a refine in tiles that does not say its own; None: `guidance_scale`
    flow:         flow matching, whose img2img rounds its share of the steps up, not down. The family says this
    takes_negative: its pipeline has an argument for a negative prompt. The family says this
    relays:       its share of the denoising names a noise level, so that models of its latent space go on from one
                  another; false where the schedule depends on checkpoint and size. The family says this
    refines:      it goes on from a finished picture by `strength`. The family says this
    inpaints:     it draws what a mask leaves open of a picture. The family says this
    edits:        how it changes a given picture: by "strength" (noised again so far), by "instruct" (drawn anew while
                  it looks at the picture), by "fill" (what a mask leaves open, and nothing else), or "" (not at all).
                  The family says this
    max_pictures: how many given pictures it looks at; side_by_side: several of them are one picture to it, beside one
                  another. The family says both
    controlnets:  by kind ("canny", "depth", …), where the weights of a ControlNet are: path or hub, and revision
    prompt_chunks, prompt_weights: a longer prompt is read in so many parts at most, each as long as its encoder reads;
                  `(word:1.3)` in it is a weight. `max_prompt_tokens` is for all of them
    vocabulary:   file with what the training captions say, if they say little enough to be listed; words: its lines,
                  single words, and pairs of a number, size, colour or material with the word after it
    components:   parts of its pipeline, by name, that come from sources of their own or are kept in another precision;
                  builtins of `models.components.Component`
    remote:       the server that draws with it; None: its weights are loaded here. The source says this
    guests:       catalogue ids of models of the same latent space whose networks its worker holds beside its own, so
                  that both can predict in one step; the installation says this (the catalogue), not the card's file
    tuning:       how its worker runs it (`models.tuning.settings.Tuning`), as builtins; the installation says this, too
    tuned, changes: all of that which may change seconds, and the part that changes more of a picture than rounding, in
                  one line each
    styles:       `Style`s of the installation by id, those that its family cannot wear included; as guests
    seconds_per_step, overhead_s: prior of the cost model at `native_size`, one picture, guidance included;
                  replaced by what workers measure
    """

    id: str
    family: str
    role: Literal["base", "refiner", "editor", "scorer"]
    source: Mapping[str, Scalar]  # one of hub / local / file, and revision; see models/cards/README.md
    components: Mapping[str, Mapping[str, Scalar]] = field(default_factory=dict)
    backbone: str = "unet"
    latent_space: str = ""
    latent_channels: int = 4
    vae_scale: int = 8
    native_size: tuple[int, int] = (512, 512)  # width, height
    native_sizes: tuple[tuple[int, int], ...] = ()
    area_tolerance: tuple[float, float] = (0.8, 1.25)
    aspect_tolerance: float = 1.25
    size_multiple: int = 8
    min_side: int = 64
    max_pixels: int = 1024 * 1024
    steps: int = 25
    min_steps: int = 1  # a schedule that ends above no noise needs two
    max_steps: int = 150
    guidance_scale: float = 7.5
    max_guidance_scale: float = 30.0
    guidance: Literal["real", "input"] = "real"
    tile_guidance_scale: float | None = None
    scheduler: str = "default"
    max_prompt_tokens: int = 77
    prompt_chunks: int = 1
    prompt_weights: bool = False
    vocabulary: str = ""
    words: frozenset[str] = frozenset()
    settings: Mapping[str, Scalar] = field(default_factory=dict)  # further keyword arguments of the pipeline call
    dtype: str = "float32"
    memory_gb: float = 1.0
    licence: str = "unknown"
    commercial_use: bool = True
    gated: bool = False
    seconds_per_step: float = 0.1
    overhead_s: float = 0.0
    usd_per_hour: float = 1.0  # price of the accelerator it occupies
    relays: bool = False
    refines: bool = True
    inpaints: bool = False
    edits: Literal["", "strength", "instruct", "fill"] = "strength"
    max_pictures: int = 1
    side_by_side: bool = False
    controlnets: Mapping[str, Mapping[str, Scalar]] = field(default_factory=dict)
    flow: bool = False
    takes_negative: bool = True
    remote: Remote | None = None
    guests: tuple[str, ...] = ()
    tuning: Mapping[str, object] = field(default_factory=dict)
    tuned: str = ""
    changes: str = ""
    styles: Mapping[str, Style] = field(default_factory=dict, repr=False)
    description: str = ""
    card_path: str = ""  # where this card was read from, for error messages

    @property
    def revision(self) -> str:
        """The revision of the weights that the source names, or "unpinned"."""
        return str(self.source.get("revision") or "unpinned")

    @property
    def kind(self) -> str:
        """Its role with an article, for messages."""
        return f"an {self.role}" if self.role == "editor" else f"a {self.role}"

    @property
    def terms(self) -> Licence:
        """Its licence."""
        return Licence(self.licence, self.commercial_use, self.gated)

    def takes(self, setting: str) -> bool:
        """Can it be told this setting of a step? A server of somebody else's may have no word for it."""
        return self.remote is None or setting in self.remote.takes

    def cost_usd(self, seconds: float, pixels: float) -> float:
        """The price of a picture of so many pixels that took `seconds`."""
        if self.remote is None or self.remote.price_usd is None:
            return seconds * self.usd_per_hour / 3600
        return self.remote.price_usd * (pixels / 1e6 if self.remote.price_per == "megapixel" else 1.0)

    def good_at(self, width: int, height: int) -> bool:
        """Does it draw well from noise at this size in pixels? It may take more sizes than those (`max_pixels`)."""
        low, high = self.area_tolerance
        for across, down in self.native_sizes or (self.native_size,):
            area, aspect = width * height / (across * down), (width * down) / (height * across)
            within = low - 1e-9 <= area <= high + 1e-9
            if within and max(aspect, 1 / aspect) <= self.aspect_tolerance + 1e-9:
                return True
        return False

    def passes(self, guidance_scale: float) -> int:
        """How often the network is run in a step: twice with real guidance, as which 1 and less do not count."""
        return 2 if self.guidance == "real" and guidance_scale > 1 else 1

    def heeds_negative(self, guidance_scale: float) -> bool:
        """Has a negative prompt any effect?"""
        return self.takes_negative and self.passes(guidance_scale) == 2

    def effective_strength(self, steps: int, strength: float) -> float:
        """The share (0..1) of `steps` that img2img by `strength` really runs, as diffusers counts them: whole steps,
        rounded up in flow matching and down in diffusion; one at least."""
        # Rounded exactly as there, with the errors of their floating point.
        whole = steps - int(max(steps - steps * strength, 0.0)) if self.flow else int(steps * strength)
        return min(steps, max(1, whole)) / steps


class Catalogue(Protocol):
    """Looks a model card up by its catalogue id; raises `CatalogueError` with the nearest id if there is none."""

    def __getitem__(self, model: str) -> ModelCard: ...

    def __contains__(self, model: object) -> bool: ...

    def ids(self) -> Sequence[str]: ...
