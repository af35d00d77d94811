"""The command `triptych models tune`: which steps, scheduler, precision, engine and cache are worth it here."""

from __future__ import annotations

import hashlib
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from deployments.cli.console import AsJson, Config, err, out, print_json, say
from deployments.settings import DEFAULT_CONFIG, load_serve_config
from router.errors import RequestError, did_you_mean

if TYPE_CHECKING:
    from models.sweep.standings import Aim, Standing
    from models.sweep.sweep import Found
    from models.sweep.ways import Way
    from router.types import ModelCard

YAML = "tuned.yaml"
PLOT = "front.svg"


def tune(
    model: Annotated[str, typer.Argument(help="A model of the config, by its id.")],
    prompts: Annotated[Path, typer.Option(help="A text file of a prompt a line, as people ask for here.")],
    latency: Annotated[
        str | None,
        typer.Option(help="Such as 2s or 800ms: the best picture in that time. Default: the fastest as good."),
    ] = None,
    within: Annotated[float, typer.Option(min=0, max=1, help="What may be lost of the mean score.")] = 0.01,
    alike: Annotated[
        float,
        typer.Option(min=0, max=1, help="Mean SSIM to keep to the pictures as they are now; 0: others are as welcome."),
    ] = 0.998,
    minutes: Annotated[float, typer.Option(min=0.01, help="The budget. Run it again to go on.")] = 10.0,
    into: Annotated[Path, typer.Option(help="Folder for what is found; of a sweep that was ended, to go on.")] = Path(
        "tuned"
    ),
    graphs: Annotated[bool, typer.Option(help="Also by ONNX Runtime, from graphs that are exported first.")] = True,
    scorer: Annotated[str | None, typer.Option(help="The model that judges (default: the config's only one).")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the first prompt's picture.")] = 0,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Find the settings that are worth it here: steps, scheduler, precision, compiling, caches and engine.

    All ways draw the same prompts by the same seeds, the better half goes on to more of them. Ctrl-C ends it early with
    what is known by then; the same command goes on.
    """
    from deployments.assembly import catalogue_of
    from models.exporting.export import check_exporter
    from models.sweep.standings import Aim
    from models.sweep.ways import ways_of

    settings = load_serve_config(config).settings
    catalogue = catalogue_of(settings)
    if model not in catalogue:
        raise RequestError(f"the config has no model {model!r}{did_you_mean(model, catalogue.ids())}", "model")
    card = catalogue[model]
    if card.role != "base" or card.remote is not None:
        raise RequestError(f"{model!r} does not draw from a prompt on this machine; tune one that does", "model")
    judge = _judge(scorer, catalogue)
    aim = Aim(None if latency is None else _seconds(latency), within, alike)
    texts = _prompts(prompts)
    if graphs:
        check_exporter()
    device = _device(settings.models[model].device)
    ways, missing = ways_of(card, device, graphs)
    for reason in missing:
        err.print(f"not tried: {reason}", soft_wrap=True)
    found, way, clock = _search(card, judge, texts, ways, aim, minutes, into, seed, settings, device)
    files = _write(found, ways, way, aim, into, card, settings.models[model], clock)
    if as_json:
        print_json(_plain(found, way, clock, files, model))
    else:
        _show(found, way, aim, clock, files)


def _judge(name: str | None, catalogue: Any) -> ModelCard:
    scorers = [one for one in catalogue if catalogue[one].role == "scorer"]
    if name is None and len(scorers) == 1:
        return catalogue[scorers[0]]  # type: ignore[no-any-return]
    if name not in scorers:
        asked = "name one by --scorer" if name is None else f"there is no {name!r}{did_you_mean(name, scorers)}"
        raise RequestError(
            f"a scorer has to judge, and the config has {', '.join(scorers) or 'none'}; {asked}", "scorer"
        )
    return catalogue[name]  # type: ignore[no-any-return]


def _seconds(text: str) -> float:
    if not (found := re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|s)", text)) or not float(found[1]):
        raise RequestError(f"--latency {text!r}: write seconds or milliseconds, such as 2s or 800ms", "latency")
    return float(found[1]) / (1000 if found[2] == "ms" else 1)


def _prompts(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"--prompts {file} cannot be read: {error}", "prompts") from None
    texts = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not texts:
        raise RequestError(f"--prompts {file} has no prompt; write one a line, the more the better", "prompts")
    return texts


def _device(name: str) -> str:
    if name != "auto":
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _search(
    card: ModelCard,
    judge: ModelCard,
    texts: Sequence[str],
    ways: Sequence[Way],
    aim: Aim,
    minutes: float,
    into: Path,
    seed: int,
    settings: Any,
    device: str,
) -> tuple[Found, Standing | None, str]:
    from models import load_engine
    from models.sweep.drawing import Studio
    from models.sweep.journal import Journal
    from models.sweep.standings import chosen
    from models.sweep.sweep import State, sweep
    from models.weights.revisions import revision

    placed, judged = settings.models[card.id], settings.models[judge.id]
    about = {
        "model": card.id,
        "revision": revision(card),
        "tuning": card.tuned,
        "steps": card.steps,
        "scheduler": card.scheduler,
        "scorer": judge.id,
        "prompts": hashlib.sha256("\n".join(texts).encode()).hexdigest(),
        "seed": seed,
        "device": device,
        "threads": placed.threads,
    }
    journal = Journal(into, about)
    judging = load_engine(judge, _device(judged.device), judged.dtype, placed.threads)
    studio = Studio(card, judging, texts, into, device, placed.dtype, placed.threads, seed)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task(f"{len(ways)} ways", total=60 * minutes)

        def on_state(state: State) -> None:
            told = f"round {state.rung}: {state.ways} ways, {state.prompts} prompts each; {state.drawn} pictures"
            progress.update(task, completed=state.seconds, description=told)

        found = sweep(ways, studio, journal, aim, minutes, on_state)
    return found, chosen(found.standings, aim), studio.clock


def _write(
    found: Found,
    ways: Sequence[Way],
    taken: Standing | None,
    aim: Aim,
    into: Path,
    card: ModelCard,
    placed: Any,
    clock: str,
) -> list[str]:
    """The plot and the YAML; their paths."""
    from models.sweep.outcome import entry, plot

    files = []
    if find_spec("matplotlib") is not None:
        title = f"{card.id}: {len(found.standings)} ways, up to {_most(found)} prompts"
        plot(found.standings, taken, aim, into / PLOT, title, clock)
        files.append(str(into / PLOT))
    else:
        err.print("no plot: run pip install 'triptych[plots]' for one")
    if taken is not None:
        way = next(way for way in ways if way.name == taken.way)
        graphs = into / f"onnx-{way.build.exported}" if way.build.exported else None
        written = entry(placed.model_dump(mode="json", exclude_defaults=True), card, way, graphs)
        text = yaml.safe_dump({"models": {card.id: written}}, sort_keys=False, allow_unicode=True)
        told = f"# triptych {' '.join(map(shlex.quote, sys.argv[1:]))}\n"
        (into / YAML).write_text(told + text, encoding="utf-8")
        files.append(str(into / YAML))
    return files


def _most(found: Found) -> int:
    return max(one.prompts for one in found.standings)


def _ends(found: Found) -> tuple[Standing, list[Standing]]:
    """The present way, and the front of those that were seen often enough."""
    from models.sweep.standings import front, well_seen

    return found.standings[0], front(well_seen(found.standings))


def _plain(found: Found, taken: Standing | None, clock: str, files: Sequence[str], model: str) -> dict[str, Any]:
    present, shown = _ends(found)
    return {
        "model": model,
        "present": asdict(present),
        "chosen": None if taken is None else asdict(taken),
        "front": [asdict(one) for one in shown],
        "ways": [asdict(one) for one in found.standings],
        "left_out": dict(found.left_out),
        "whole": found.whole,
        "clock": clock,
        "files": list(files),
    }


def _show(found: Found, taken: Standing | None, aim: Aim, clock: str, files: Sequence[str]) -> None:
    present, shown = _ends(found)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("way", overflow="fold")
    for heading in ("seconds", "times as fast", "score", "to as it is", "SSIM", "PSNR", "GB"):
        table.add_column(heading, justify="right")
    for one in [present, *(one for one in shown if one is not present)]:
        table.add_row(
            one.way + (" (as it is)" if one is present else ""),
            f"{one.seconds:.3g}",
            f"{present.seconds / one.seconds:.2f}",
            f"{one.quality:.3f}",
            f"{one.change:+.3f} ± {1.96 * one.doubt:.3f}",
            f"{one.ssim:.2f}",
            f"{one.psnr:.0f} dB",
            f"{one.memory_gb:.2f}",
        )
    out.print(table)
    say(f"{clock} seconds, the median of {present.prompts} prompts; {len(found.left_out)} ways were not drawn")
    if not found.whole:
        say("it was ended before the last prompt; the same command goes on")
    if taken is None:
        say(_why_none(found, aim))
    elif taken.way == present.way:
        say("stay with what it is: nothing that was tried is faster and as good")
    else:
        say(f"take: {taken.way}: {present.seconds / taken.seconds:.2f} times as fast, score {taken.change:+.3f}")
    for file in files:
        say(f"wrote {file}")


def _why_none(found: Found, aim: Aim) -> str:
    fastest = min(found.standings, key=lambda one: one.seconds)
    return (
        f"no way makes a picture in {aim.latency_s:g} s; the fastest, {fastest.way}, takes {fastest.seconds:.3g} s. "
        "Ask for a smaller size, or for a smaller model"
    )
