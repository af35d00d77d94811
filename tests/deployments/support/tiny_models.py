"""The tiny random models as an operator would configure them: a shipped card with what differs overridden."""

from pathlib import Path
from typing import Any

from models.schema import CardFile
from router.types import ModelCard
from tests.models import tiny


def model_settings(weights: Path) -> dict[str, Any]:
    """`models:` of a Serve config on the folders that `tiny.save_all` wrote, on CPU.

    `broken` is sd15 with a folder that does not exist.
    """
    cards = tiny.cards(weights)
    shipped = {name: name for name in ("sd15", "sdxl", "sdxl-refiner", "flux")}
    shipped |= {"alignment": "clip", "sdxl-turbo": "sdxl"}
    models = {model: _entry(model, cards[name]) for model, name in shipped.items()}
    lost = {**models["sd15"]["overrides"], "source": {"local": str(weights / "nowhere")}}
    models["sdxl"]["guests"] = ["sdxl-turbo"]
    return {**models, "broken": {**models["sd15"], "overrides": lost}}


def _entry(model: str, card: ModelCard) -> dict[str, Any]:
    return settings_of(card, "real/clip-alignment" if model == "alignment" else f"embedded/{model}")


def settings_of(card: ModelCard, shipped: str) -> dict[str, Any]:
    """The settings of a model that is a shipped card by name, with all that the card of its weights says otherwise."""
    kept = ("id", "description", "licence", "commercial_use", "gated")
    overrides = {key: getattr(card, key) for key in CardFile.model_fields if key not in kept}
    overrides |= {
        "settings": dict(card.settings),
        "source": {**card.source, "revision": "tiny"},
        "steps": 8,  # the presets hand over at 80 %, which wants more than the four of the cards
        "native_size": list(card.native_size),
    }
    # One by one, so that bytes do not depend on what was asked for at the same time; tests of batches say otherwise.
    return {"card": shipped, "overrides": overrides, "device": "cpu", "num_cpus": 0, "max_batch": 1}
