"""Model cards: what is known of a checkpoint without loading it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One checkpoint: what differs between SD1.5, SDXL and FLUX is a row of a table, not a subclass.

    latent_space: models that name the same space may hand latents to one another
    vae_scale:    pixels per latent cell along one side (8 for the real families)
    family:       which row of models/families.py draws with it, or which class of models/scoring.py judges with it
    role:         "base" makes a picture from noise, "refiner" only continues one, "scorer" judges one
    relays:       its share of the denoising names a noise level, so that models of its latent space go on from one
                  another; false where the schedule depends on checkpoint and size. The family says this
    refines:      it goes on from a finished picture by `strength`. The family says this
    vocabulary:   file with what the training captions say, if they say little enough to be listed; words: its lines,
                  single words, and pairs of a number, size, colour or material with the word after it
    guests:       catalogue ids of models of the same latent space whose networks its worker holds beside its own, so
                  that both can predict in one step; the installation says this (the catalogue), not the card's file
    seconds_per_step, overhead_s: prior of the cost model at `native_size`, one picture, guidance included;
                  replaced by what workers measure
    """

    id: str
    family: str
    role: Literal["base", "refiner", "scorer"]
    source: Mapping[str, Scalar]  # one of hub / local / file, and revision; see models/cards/README.md
    backbone: str = "unet"
    latent_space: str = ""
    latent_channels: int = 4
    vae_scale: int = 8
    native_size: tuple[int, int] = (512, 512)  # width, height
    size_multiple: int = 8
    min_side: int = 64
    max_pixels: int = 1024 * 1024
    steps: int = 25
    min_steps: int = 1  # a schedule that ends above no noise needs two
    max_steps: int = 150
    guidance_scale: float = 7.5
    max_guidance_scale: float = 30.0
    scheduler: str = "default"
    max_prompt_tokens: int = 77
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
    guests: tuple[str, ...] = ()
    description: str = ""
    card_path: str = ""  # where this card was read from, for error messages

    @property
    def revision(self) -> str:
        """The revision of the weights that the source names, or "unpinned"."""
        return str(self.source.get("revision") or "unpinned")


class Catalogue(Protocol):
    """Looks a model card up by its catalogue id; raises `CatalogueError` with the nearest id if there is none."""

    def __getitem__(self, model: str) -> ModelCard: ...

    def __contains__(self, model: object) -> bool: ...

    def ids(self) -> Sequence[str]: ...
