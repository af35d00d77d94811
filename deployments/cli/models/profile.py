"""The command `triptych models profile`: where the seconds of a model go on this machine."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from deployments.cli.console import AsJson, Config, err, out, print_json, say
from deployments.settings import DEFAULT_CONFIG, load_serve_config
from router.errors import RequestError, StepError, did_you_mean
from router.types import ModelCard, Scalar, Step, StepResult, Value

OPERATORS = 15


def profile(
    model: Annotated[str, typer.Argument(help="A model of the config, by its id.")],
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT in pixels, or auto: the model's own.")] = "auto",
    steps: Annotated[int | None, typer.Option(min=1, help="Denoising steps (default: the card's).")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Pictures in one call.")] = 1,
    prompt: Annotated[str, typer.Option(help="What is drawn.")] = "a red circle above a blue square",
    trace: Annotated[Path | None, typer.Option(help="Write a Chrome trace (JSON) here.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write a plot here; .svg or .png.")] = None,
    operators: Annotated[bool, typer.Option(help="Also which operators of torch take time and memory.")] = False,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Where the seconds of a model go: text encoders, each denoising step, scheduler, VAE; and what to try.

    It runs as the config tunes it: once to warm up, once to look.
    """
    from deployments.assembly import catalogue_of

    settings = load_serve_config(config).settings
    catalogue = catalogue_of(settings)
    if model not in catalogue:
        raise RequestError(f"the config has no model {model!r}{did_you_mean(model, catalogue.ids())}", "model")
    card = catalogue[model]
    if card.role == "scorer":
        raise RequestError(f"{model!r} judges pictures and draws none; profile one that draws", "model")
    if card.remote is not None:
        raise RequestError(f"{model!r} is drawn by {card.remote.name}; profile it on that machine", "model")
    width, height = _size(size, card)
    if plot is not None:
        _check_plot(plot)
    for file in (trace, plot):
        if file is not None and not file.absolute().parent.is_dir():
            raise RequestError(f"{file}: there is no folder {file.absolute().parent}; make it first")
    placed = settings.models[model]
    err.print(f"loading {model}")
    found = _look(card, placed, _steps(card, width, height, steps, batch, prompt), operators, trace)
    if plot is not None:
        from models.profiling import report

        report.plot(found["spans"], plot, f"{model}, {width}x{height}, {found['device']}")
    if trace is not None and not operators:
        from models.profiling import report

        trace.write_text(json.dumps(report.chrome_trace(found["spans"], model)), encoding="utf-8")
    files = [str(file) for file in (trace, plot) if file is not None]
    if as_json:
        print_json({**_plain(found), "size": [width, height], "batch": batch, "tuning": card.tuned, "files": files})
    else:
        _show(found, files)


def _size(size: str, card: ModelCard) -> tuple[int, int]:
    if size == "auto":
        return card.native_size
    if not (found := re.fullmatch(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", size)):
        raise RequestError(f"--size {size!r} is no size; write WIDTHxHEIGHT, such as 512x512", "size")
    return int(found[1]), int(found[2])


def _check_plot(file: Path) -> None:
    if file.suffix.lower() not in (".svg", ".png", ".pdf"):
        raise RequestError(f"--plot {file}: the ending says the format, and it must be .svg, .png or .pdf", "plot")
    if importlib.util.find_spec("matplotlib") is None:
        remedy = "run: pip install -c constraints.txt -e '.[plots]', or leave it out"
        raise RequestError(f"--plot needs matplotlib; {remedy}", "plot")


def _steps(
    card: ModelCard, width: int, height: int, steps: int | None, batch: int, prompt: str
) -> list[tuple[Step, tuple[Value, ...]]]:
    """A step for each picture, with its inputs: what the model does, refiners on a grey picture."""
    from dataclasses import replace

    from models.engine.warmup import warm_up_step

    usual, inputs = warm_up_step(card, (width, height))
    own: dict[str, Scalar] = {"prompt": prompt, "steps": steps or card.steps}
    return [
        (replace(usual, id=f"picture-{n}", settings={**usual.settings, **own, "seed": n}), inputs) for n in range(batch)
    ]


def _look(
    card: ModelCard, placed: Any, asked: list[tuple[Step, tuple[Value, ...]]], operators: bool, trace: Path | None
) -> dict[str, Any]:
    """Load, run once, run again and look."""
    from deployments.assembly import engine_loader
    from models.engine.diffusion import DiffusionEngine
    from models.families import FAMILIES
    from models.profiling.parts import Parts
    from models.profiling.report import rows_of, sentence

    engine = engine_loader(card, placed.device, placed.dtype, placed.threads)()
    assert isinstance(engine, DiffusionEngine)
    denoiser = FAMILIES[card.family].denoiser
    _run(engine, asked)
    if operators:  # another run, since it is slower while it is looked at that closely
        used = _operators(lambda: _run(engine, asked), engine.device, trace)
    parts = Parts(engine.device, denoiser)
    engine.parts = parts
    engine.prompts.forget()  # so that reading the prompt is looked at, too
    results = _run(engine, asked)
    spans = parts.spans()
    rows = rows_of(spans)
    return {
        "model": card.id,
        "device": engine.device,
        "seconds": sum(result.seconds for result in results),
        "facts": dict(results[0].facts),
        "rows": rows,
        "spans": spans,
        "sentence": sentence(rows, card, engine.device, denoiser, len(asked)),
        **({"operators": used} if operators else {}),
    }


def _run(engine: Any, asked: list[tuple[Step, tuple[Value, ...]]]) -> list[StepResult]:
    results = engine.run_batch([step for step, _ in asked], [inputs for _, inputs in asked])
    for result in results:
        if not isinstance(result, StepResult):
            raise result if isinstance(result, StepError) else StepError(str(result))
    return list(results)


def _operators(run: Any, device: str, trace: Path | None) -> list[dict[str, Any]]:
    """What torch's own profiler says: the operators that take most, without those that they call."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as looking

    gpu = device.startswith("cuda")
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    with looking(activities=kinds, profile_memory=True) as found:
        run()
    if trace is not None:
        found.export_chrome_trace(str(trace))
    kind = "device" if gpu else "cpu"
    rows = sorted(found.key_averages(), key=lambda row: -getattr(row, f"self_{kind}_time_total"))[:OPERATORS]
    return [
        {
            "operator": row.key,
            "calls": row.count,
            "seconds": getattr(row, f"self_{kind}_time_total") / 1e6,
            "memory_mb": getattr(row, f"self_{kind}_memory_usage") / 1e6,
        }
        for row in rows
    ]


def _plain(found: Mapping[str, Any]) -> dict[str, Any]:
    rows = [
        {"part": row.part, "calls": len(row.each_s), "seconds": row.seconds, "share": row.share, "each_s": row.each_s}
        for row in found["rows"]
    ]
    return {key: value for key, value in found.items() if key not in ("rows", "spans")} | {"parts": rows}


def _show(found: Mapping[str, Any], files: list[str]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("part", no_wrap=True)
    for heading in ("calls", "seconds", "each", "share"):
        table.add_column(heading, justify="right")
    for row in found["rows"]:
        each = row.seconds / len(row.each_s)
        table.add_row(row.part, str(len(row.each_s)), f"{row.seconds:.4f}", f"{each:.4f}", f"{row.share:.0%}")
    out.print(table)
    if "operators" in found:
        used = Table(box=None, pad_edge=False, header_style="bold")
        used.add_column("operator", overflow="fold")
        for heading in ("calls", "seconds", "memory"):
            used.add_column(heading, justify="right")
        for one in found["operators"]:
            used.add_row(one["operator"], str(one["calls"]), f"{one['seconds']:.4f}", f"{one['memory_mb']:.1f} MB")
        out.print()
        out.print(used)
    if (peak := found["facts"].get("peak_memory_gb")) is not None:
        say(f"at most {peak:.2f} GB of {found['device']}")
    say(found["sentence"])
    for file in files:
        say(f"wrote {file}")
