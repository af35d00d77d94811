"""The tables of docs/models-and-gpus.md: what each real model needs in each way, and how it fits on GPUs by size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from models.catalogue import card_names, load_card
from models.fitting.changes import FP8, LAYERS, NF4, NOTHING, TILES, WHOLE, Change, Fit, fit_in, need_at, tuned_by
from models.fitting.gpus import Gpu, parse_gpu
from models.weights.needs.memory import GB
from router.errors import RequestError
from router.types import ModelCard

SIZES = ("12GB", "24GB", "48GB", "80GB")
BEGIN, END = "<!-- triptych models fits: begin -->", "<!-- triptych models fits: end -->"

WAYS: dict[str, tuple[Change, ...]] = {
    "as it comes": (NOTHING,),
    "`quantize: fp8`": (FP8,),
    "`offload: model`": (WHOLE,),
    "both": (WHOLE, FP8),
    "`nf4`, `offload: model`": (WHOLE, NF4),
    "`offload: group`, `vae_tiling: 512`": (LAYERS, TILES),
}


def real_cards() -> dict[str, ModelCard]:
    """The shipped cards of real checkpoints that draw, by name."""
    cards = {name: load_card(name) for name in card_names() if name.startswith("real/")}
    return {name: replace(card, id=name) for name, card in cards.items() if card.role != "scorer"}


def fits(gpus: Sequence[Gpu]) -> dict[str, list[Fit | None]]:
    """How each of these models fits on each GPU, alone; None where nothing makes it fit."""
    return {name: [fit_in(card, None, gpu.room_gb) for gpu in gpus] for name, card in real_cards().items()}


def needs_gb() -> dict[str, list[float]]:
    """What each of these models needs in each of `WAYS`, at its native size, one picture at once, in 10^9 bytes."""
    return {
        name: [need_at(_changed(card, changes), None).total / GB for changes in WAYS.values()]
        for name, card in real_cards().items()
    }


def _changed(card: ModelCard, changes: Sequence[Change]) -> ModelCard:
    for change in changes:
        card = tuned_by(card, change)
    return card


def markdown(gpus: Sequence[Gpu]) -> str:
    """Both tables."""
    return f"{_table(['model', *(_spaced(gpu.name) for gpu in gpus)], _cells(fits(gpus)))}\n\n{_needs()}"


def _cells(found: Mapping[str, Sequence[Fit | None]]) -> dict[str, list[str]]:
    return {name: [cell(fit) for fit in row] for name, row in found.items()}


def cell(fit: Fit | None) -> str:
    """A way to fit in few words: what is changed, and what is needed then."""
    if fit is None:
        return "does not fit"
    how = "" if not fit.change.keys else "".join(f"`{key}: {value}` " for key, value in fit.change.keys.items())
    return f"{how or 'as it comes '}({fit.total_gb:.1f})"


def _needs() -> str:
    return _table(["model", *WAYS], {name: [f"{gb:.1f}" for gb in row] for name, row in needs_gb().items()})


def _spaced(name: str) -> str:
    return name.upper().replace("GB", " GB").replace("GIB", " GiB")


def _table(head: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join('---' for _ in head)} |"]
    lines += [f"| {' | '.join((f'`{name}`', *cells))} |" for name, cells in rows.items()]
    return "\n".join(lines)


def put_into(document: str, gpus: Sequence[Gpu]) -> str:
    """The document with the tables between its two markers. Raises `RequestError` if it lacks them."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise RequestError(f"the document needs the lines {BEGIN} and {END}", "into")
    return f"{before}{begin}\n\n{markdown(gpus)}\n\n{end}{after}"


def usual() -> tuple[Gpu, ...]:
    """GPUs as they are sold."""
    return tuple(map(parse_gpu, SIZES))
