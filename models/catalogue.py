"""Model cards by name: `embedded/sd15`, `real/flux-schnell`, or the path of a card file.

A catalogue gives each card the id that policies use, so one policy serves the embedded and the real family.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from models.families import relaying
from models.schema import absolute, parse, validate
from models.tuning.settings import Tuning
from router.errors import CatalogueError, did_you_mean
from router.types import ModelCard, Style

PACKAGE = Path(__file__).resolve().parent
CARDS = PACKAGE / "cards"
ENTRY = ("card", "overrides", "guests", "tuning")


@dataclass(frozen=True)
class Catalogue:
    """The models of one installation by catalogue id; a `router.types.Catalogue`."""

    cards: Mapping[str, ModelCard]

    def __getitem__(self, model: str) -> ModelCard:
        try:
            return self.cards[model]
        except KeyError:
            raise CatalogueError(f"there is no model {model!r}{did_you_mean(model, self.cards)}") from None

    def __contains__(self, model: object) -> bool:
        return model in self.cards

    def __iter__(self) -> Iterator[str]:
        return iter(self.cards)

    def __len__(self) -> int:
        return len(self.cards)

    def ids(self) -> Sequence[str]:
        return tuple(self.cards)


def card_names() -> tuple[str, ...]:
    """The names of the cards that ship with the package, such as `embedded/sd15`."""
    return tuple(sorted(path.relative_to(CARDS).with_suffix("").as_posix() for path in CARDS.rglob("*.yaml")))


def load_card(name: str | Path, overrides: Mapping[str, Any] | None = None) -> ModelCard:
    """Read one card, by shipped name or path, with some of its keys replaced.

    An override replaces the whole value of its key, `source` included. Paths in a shipped card start at the models
    package, in another card at its own folder, in an override at the working directory.
    Raises `CatalogueError` naming file, line and the nearest key.
    """
    path = _find(name)
    data, lines = parse(_read(path), str(path))
    base = PACKAGE if path.is_relative_to(CARDS) else path.parent
    if overrides:
        if "onnx" in (overrides.get("source") or {}):
            data.pop("controlnets", None)  # they reach into torch's network, and a graph takes its place
        lines = {place: line for place, line in lines.items() if place and place[0] not in overrides}
    card = validate({**data, **(overrides or {})}, str(path), lines)
    named = ("source", "components", "controlnets")
    source, parts, nets = (Path.cwd() if key in (overrides or {}) else base for key in named)
    components = {name: absolute(spec, parts) for name, spec in card.components.items()}
    controlnets = {kind: absolute(spec, nets) for kind, spec in card.controlnets.items()}
    card = replace(card, source=absolute(card.source, source), components=components, controlnets=controlnets)
    if not card.vocabulary:
        return card
    home = Path.cwd() if "vocabulary" in (overrides or {}) else PACKAGE if path.is_relative_to(CARDS) else path.parent
    return replace(card, words=_words(home / Path(card.vocabulary).expanduser(), str(path)))


def _words(file: Path, card: str) -> frozenset[str]:
    """The lines of a vocabulary, without comments."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogueError(f"{card}: 'vocabulary' {file} cannot be read ({error})") from None
    return frozenset(line.strip().casefold() for line in lines if line.strip() and not line.startswith("#"))


def load_catalogue(
    models: Mapping[str, str | Path | Mapping[str, Any]], styles: Mapping[str, Style] | None = None
) -> Catalogue:
    """`{catalogue id: card name or path, or {card: ..., overrides: {...}, guests: [...], tuning: {...}}}` to a
    catalogue.

    styles: those of the installation, by id (`models.styles.cards.load_styles`); every card knows them
    guests: catalogue ids of models whose networks the worker of this one holds, too (`denoise` in recipes)
    tuning: how the worker runs it, a `Tuning` or what one is made of
    Raises `CatalogueError` for a bad card, an unknown key or an unknown name; the message names the catalogue id.
    """
    catalogue = Catalogue(
        {model: replace(_entry(model, entry), styles=styles or {}) for model, entry in models.items()}
    )
    for card in catalogue.cards.values():
        for guest in card.guests:
            _check_guest(card, guest, catalogue)
    return catalogue


def _check_guest(card: ModelCard, guest: str, catalogue: Catalogue) -> None:
    """Raise `CatalogueError` for a guest that could never predict beside the card's model."""
    where = f"model {card.id!r}: guests: "
    if guest not in catalogue:
        raise CatalogueError(f"{where}there is no model {guest!r}{did_you_mean(guest, catalogue.cards)}")
    other = catalogue[guest]
    for one in (card, other):
        if one.role != "base" or not one.relays:
            raise CatalogueError(
                f"{where}{one.id!r} is {one.kind} of family {one.family!r}; two models predict together only if "
                f"both are base models of a family with a fixed noise schedule ({', '.join(relaying())})"
            )
    if guest == card.id or card.guests.count(guest) > 1:
        raise CatalogueError(f"{where}{guest!r} is there already; name each other model once")
    for key in ("latent_space", "latent_channels", "vae_scale"):
        if getattr(card, key) != getattr(other, key):
            raise CatalogueError(
                f"{where}{guest!r} has another {key} ({getattr(other, key)!r}, not {getattr(card, key)!r}), so the "
                "predictions of the two cannot be averaged"
            )


def _entry(model: str, entry: str | Path | Mapping[str, Any]) -> ModelCard:
    spec = entry if isinstance(entry, Mapping) else {"card": entry}
    for key in spec:
        if key not in ENTRY:
            raise CatalogueError(f"model {model!r}: unknown key {key!r}{did_you_mean(key, ENTRY)}")
    if not isinstance(spec.get("card"), (str, Path)):
        raise CatalogueError(
            f"model {model!r}: 'card' is missing: give a card's name ({', '.join(card_names())}) or path"
        )
    overrides = spec.get("overrides") or {}
    if not isinstance(overrides, Mapping):
        raise CatalogueError(f"model {model!r}: 'overrides' is a mapping of card keys, not {overrides!r}")
    guests: tuple[str, ...] = tuple(spec.get("guests") or ())  # type: ignore[arg-type]
    if isinstance(spec.get("guests"), str):
        raise CatalogueError(f"model {model!r}: 'guests' is a list of catalogue ids, such as [{spec['guests']}]")
    try:
        card = replace(load_card(spec["card"], overrides), id=model, guests=guests)
    except CatalogueError as error:
        raise CatalogueError(f"model {model!r}: {error.message}") from None
    return _tuned(card, spec.get("tuning"))


def _tuned(card: ModelCard, tuning: Any) -> ModelCard:
    try:
        chosen = tuning if isinstance(tuning, Tuning) else Tuning.model_validate(tuning or {})
    except ValidationError as error:
        wrong = error.errors()[0]
        where = ".".join(str(part) for part in ("tuning", *wrong["loc"]))
        raise CatalogueError(f"model {card.id!r}: {where}: {wrong['msg'].removeprefix('Value error, ')}") from None
    if card.role == "scorer" and chosen.said():
        raise CatalogueError(f"model {card.id!r}: tuning is for models that draw, and this one scores; leave it out")
    if card.remote is not None and chosen.said():
        raise CatalogueError(
            f"model {card.id!r}: tuning is for models that are drawn here, and this one is drawn by "
            f"{card.remote.name}; leave it out, and tune it there"
        )
    return replace(card, tuning=chosen.said(), tuned=chosen.tuned, changes=chosen.changes)


def _find(name: str | Path) -> Path:
    shipped = CARDS / f"{name}.yaml"
    if str(name) in card_names():
        return shipped
    path = Path(name).expanduser()
    if path.suffix in (".yaml", ".yml"):
        if path.is_file():
            return path.resolve()
        raise CatalogueError(f"there is no card file {path} (looked in {Path.cwd()})")
    raise CatalogueError(
        f"there is no card {str(name)!r}{did_you_mean(str(name), card_names())}; or give a path to a .yaml file"
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogueError(f"{path}: cannot be read: {error}") from None
