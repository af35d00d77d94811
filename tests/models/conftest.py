"""Tiny random models of every family, built and loaded once per session."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from models import Engine, load_engine
from router.types import ModelCard


@pytest.fixture(scope="session")
def cards(tiny_weights: Path) -> dict[str, ModelCard]:
    """Cards of saved tiny models: sd15, sdxl, sdxl-refiner, flux, flux-dev (guidance embedding), clip."""
    from tests.models import tiny

    return tiny.cards(tiny_weights)


@pytest.fixture(scope="session")
def engine(cards: dict[str, ModelCard]) -> Callable[[str], Engine]:
    """Loaded engines by card name; each is loaded on first use."""

    @cache
    def loaded(name: str) -> Engine:
        return load_engine(cards[name], threads=1)

    return loaded
