"""What the parts of a run took: rows of a table, a sentence with what to try, a trace for Chrome, a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.onnx.graphs import FAMILIES as EXPORTED
from models.profiling.parts import Span
from router.types import ModelCard

REST = "the rest"
LARGE = 0.25
"""A share of the seconds from which a part is worth an option."""


@dataclass(frozen=True)
class Row:
    """A part of a run. each_s: its calls, in order;   share: of the seconds of the run"""

    part: str
    each_s: tuple[float, ...]
    share: float

    @property
    def seconds(self) -> float:
        return sum(self.each_s)


def rows_of(spans: Sequence[Span]) -> list[Row]:
    """The parts in the order in which they began, and what none of them had."""
    whole = next(span.seconds for span in spans if span.part == "run")
    each: dict[str, list[float]] = {}
    for span in spans:
        if span.part != "run":
            each.setdefault(span.part, []).append(span.seconds)
    each[REST] = [max(0.0, whole - sum(map(sum, each.values())))]
    return [Row(part, tuple(seconds), sum(seconds) / whole) for part, seconds in each.items()]


def sentence(rows: Sequence[Row], card: ModelCard, device: str, denoiser: str, batch: int) -> str:
    """Where the time goes, and which keys of `tuning` are worth a try that are not in use yet."""
    whole = sum(row.seconds for row in rows)
    main, *others = sorted(rows, key=lambda row: -row.share)
    calls = len(main.each_s)
    often = f" in {calls} calls" if calls > 1 else ""
    beside = "" if not others else f", then {others[0].part} with {others[0].share:.0%}"
    pictures = "a picture" if batch == 1 else f"{batch} pictures"
    text = f"Of {whole:.3g} s for {pictures}, {main.part} takes {main.share:.0%}{often}{beside}."
    worth = worth_trying(rows, card, device, denoiser, batch)
    said = f"Worth a try: {'; '.join(worth)}." if worth else "No key of `tuning` is left that helps here."
    return f"{text} {said}"


def worth_trying(rows: Sequence[Row], card: ModelCard, device: str, denoiser: str, batch: int) -> list[str]:
    """Options for the parts that take a large share, in the order of the shares."""
    gpu = device.startswith("cuda")
    shares = {row.part: row.share for row in rows}
    text = sum(share for part, share in shares.items() if part.startswith("text_encoder"))
    used = card.tuning
    transformer, slow = card.backbone == "dit", not card.flow and card.scheduler != "dpmsolver++"
    torch = not card.source.get("onnx")  # ONNX Runtime runs a graph as it is
    network = {
        "`compile: regional`": torch and "compile" not in used,
        "`cache: {first_block: 0.1}`": torch and transformer and "cache" not in used,
        "`attention: flash`": torch and gpu and transformer and "attention" not in used,
        "`channels_last: true`": torch and not transformer and "channels_last" not in used,
        "`quantize: int8`": torch and "quantize" not in used and not gpu,
        "graphs by `triptych models export`": torch and card.family in EXPORTED,
        "fewer steps with `scheduler: dpmsolver++`": slow and card.steps > 4,
    }
    options: dict[str, tuple[float, Mapping[str, bool]]] = {
        "network": (shares.get(denoiser, 0.0), network),
        "decode": (shares.get("vae decode", 0.0), {"`channels_last: true`": torch and "channels_last" not in used}),
        "text": (text, {"several pictures of one prompt in a request (`n`), which read it in one call": batch == 1}),
        "rest": (
            shares.get(REST, 0.0) + shares.get("scheduler", 0.0),
            {"larger batches, since what is between the networks hardly grows with them": batch == 1},
        ),
    }
    found: list[str] = []
    for share, ways in sorted(options.values(), key=lambda one: -one[0]):
        if share >= LARGE:
            found += [way for way, possible in ways.items() if possible and way not in found]
    return found


def chrome_trace(spans: Sequence[Span], name: str) -> dict[str, Any]:
    """The run for chrome://tracing or https://ui.perfetto.dev. Times are in microseconds there."""
    events = [
        {"name": s.part, "ph": "X", "pid": 1, "tid": 1, "ts": s.begun_s * 1e6, "dur": s.seconds * 1e6} for s in spans
    ]
    named = {"name": "process_name", "ph": "M", "pid": 1, "args": {"name": name}}
    return {"traceEvents": [named, *events], "displayTimeUnit": "ms"}


def plot(spans: Sequence[Span], file: Path, title: str) -> None:
    """The run as one bar of its calls in time, a row for each part; the ending of `file` says the format."""
    from matplotlib.figure import Figure

    parts = list(dict.fromkeys(span.part for span in spans))[::-1]
    figure = Figure(figsize=(8, 0.6 + 0.4 * len(parts)), layout="constrained")
    axes = figure.subplots()
    for level, part in enumerate(parts):
        bars = [(span.begun_s, span.seconds) for span in spans if span.part == part]
        axes.broken_barh(bars, (level - 0.35, 0.7), facecolors="#888888" if part == "run" else "#0b6e4f", edgecolor="w")
    axes.set_yticks(range(len(parts)), parts)
    axes.set_xlabel("seconds")
    axes.set_title(title, fontsize=9)
    figure.savefig(file)
