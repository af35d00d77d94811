"""The command `triptych models plan`: which models of a config fit on which GPU, and what would make the rest fit."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
import yaml
from rich.table import Table

from deployments.cli.console import AsJson, Config, complain, err, out, print_json, say
from deployments.placement import Placement
from deployments.settings import DEFAULT_CONFIG, AppSettings, load_serve_config
from router.errors import LoadError, RequestError

EQUAL_GB = 0.1


def plan(
    gpu: Annotated[list[str], typer.Option("--gpu", help="Memory of a GPU, 24GB or 24GiB; once for each.")],
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT that all must make, or auto: their own size.")] = "auto",
    batch: Annotated[int, typer.Option(min=1, max=64, help="Pictures at once that all must make.")] = 1,
    same_pictures: Annotated[bool, typer.Option("--same-pictures", help="Only changes that alter no picture.")] = False,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Which GPU each model of a config goes on, with the cheapest change that makes it fit, as lines for the config.

    Nothing is downloaded or loaded: memory is counted from configurations. Ends with an error if a model fits nowhere.
    """
    from models.fitting.gpus import parse_gpu
    from models.fitting.placement import plan as placed_on

    gpus = [parse_gpu(text) for text in gpu]
    wide = _size(size)
    settings = load_serve_config(config).settings
    err.print("counting what the models need", highlight=False)
    wanted, elsewhere = _wanted(settings)
    made = placed_on(wanted, gpus, wide, batch, same_pictures)
    lines = _serve_lines(made, settings)
    if as_json:
        print_json({**_report(made), "elsewhere": elsewhere, "serve": lines})
    else:
        _show(made, elsewhere)
        if lines["models"]:
            say("\nFor the serve config, under args:\n")
            say(yaml.safe_dump(lines, sort_keys=False, default_flow_style=None, width=110).rstrip())
    if made.refused and as_json:
        raise typer.Exit(4)
    if made.refused:
        for one in made.refused[1:]:
            complain(f"triptych: {one.reason}")
        raise LoadError(made.refused[0].reason, "model")


def _size(text: str) -> tuple[int, int] | None:
    if text == "auto":
        return None
    if not (found := re.fullmatch(r"([1-9][0-9]{1,4})x([1-9][0-9]{1,4})", text)):
        raise RequestError(f"--size {text!r} is no size; write WIDTHxHEIGHT, such as 1024x1024", "size")
    return int(found[1]), int(found[2])


def _wanted(settings: AppSettings) -> tuple[list[Any], dict[str, str]]:
    """The models that go on a GPU, and the others with the reason."""
    from deployments.assembly import catalogue_of, guests_of
    from models.fitting.placement import Wanted

    catalogue = catalogue_of(settings)
    wanted, elsewhere = [], {}
    for model, chosen in settings.models.items():
        card = catalogue[model]
        if card.remote is not None:
            elsewhere[model] = f"drawn by {card.remote.name}"
        elif settings.workers[str(chosen.worker)].device == "cpu":
            elsewhere[model] = "on the CPU, as the config says"
        else:
            wanted.append(Wanted(card, chosen.dtype, guests_of(model, catalogue), chosen.max_batch))
    return wanted, elsewhere


def _serve_lines(made: Any, settings: AppSettings) -> dict[str, Any]:
    """What of the serve config follows from a plan: its workers and its models, complete."""
    own = set(Placement.model_fields)
    workers: dict[str, Any] = {}
    models: dict[str, Any] = {}
    for number, place in enumerate(made.places):
        if place.fits:
            workers[f"gpu-{number}"] = {"device": "cuda"}
        for fit in place.fits:
            said = settings.models[fit.card.id].model_dump(mode="json", exclude_unset=True)
            kept = {key: value for key, value in said.items() if key not in own and key not in ("worker", "tuning")}
            tuning = {"tuning": dict(fit.card.tuning)} if fit.card.tuning else {}
            few = {"max_batch": fit.pictures} if 0 < fit.pictures < settings.models[fit.card.id].max_batch else {}
            models[fit.card.id] = {**kept, "worker": f"gpu-{number}", **tuning, **few}
    return {"workers": workers, "models": models}


def _report(made: Any) -> dict[str, Any]:
    return {
        "gpus": [
            {
                "gpu": f"gpu-{number}",
                "memory_gb": place.gpu.memory_gb,
                "used_gb": place.used_gb,
                "together": place.together,
                "models": [_fit(fit) for fit in place.fits],
            }
            for number, place in enumerate(made.places)
        ],
        "refused": [
            {"model": one.card.id, "needs_gb": one.best.total_gb, "tuning": dict(one.best.card.tuning),
             "reason": one.reason}
            for one in made.refused
        ],
    }  # fmt: skip


def _fit(fit: Any) -> dict[str, Any]:
    need = fit.need
    return {
        "model": fit.card.id,
        "needs_gb": fit.total_gb,
        "weights_gb": _gb(need.held),
        "phases_gb": {phase: (need.weights[phase] + need.work[phase]) / 1e9 for phase in need.work},
        "change": dict(fit.change.keys),
        "same_pictures": fit.change.same_pictures,
        "price": fit.change.price,
        "tuning": dict(fit.card.tuning),
        "max_pixels": fit.pixels,
        "pictures_at_once": fit.pictures,
    }


def _gb(sizes: Mapping[str, float]) -> dict[str, float]:
    return {name: size / 1e9 for name, size in sizes.items()}


def _show(made: Any, elsewhere: Mapping[str, str]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("GPU", "model"):
        table.add_column(heading, no_wrap=True)
    for heading in ("weights", "read", "denoise", "decode", "needs", "up to", "at once"):
        table.add_column(heading, justify="right", no_wrap=True)
    for number, place in enumerate(made.places):
        for fit in place.fits:
            work = [f"{fit.need.work[phase] / 1e9:.1f}" if phase in fit.need.work else "" for phase in PHASES]
            held = sum(fit.need.held.values()) / 1e9
            reach = (f"{fit.pixels / 1e6:.1f} MP", str(fit.pictures)) if fit.card.role != "scorer" else ("", "")
            cells = (f"{held:.1f}", *work, f"{fit.total_gb:.1f} GB", *reach)
            table.add_row(f"gpu-{number}", fit.card.id, *cells)
    out.print(table)
    out.print()
    for line in _sentences(made, elsewhere):
        say(line)


PHASES = ("read", "denoise", "decode")


def _sentences(made: Any, elsewhere: Mapping[str, str]) -> Sequence[str]:
    lines = []
    for number, place in enumerate(made.places):
        names = ", ".join(fit.card.id for fit in place.fits)
        if not place.fits:
            lines.append(f"gpu-{number} ({place.gpu.name}) is not needed")
        elif place.together:
            lines.append(f"gpu-{number} ({place.gpu.name}): {names} together, {place.used_gb:.1f} GB")
        else:
            lines.append(
                f"gpu-{number} ({place.gpu.name}): {names} in turns, since not all of them fit at once: one that is "
                f"not used leaves the memory, and loads again when it is; at most {place.used_gb:.1f} GB"
            )
        for fit in place.fits:
            if fit.change.keys:
                changed = "the same pictures" if fit.change.same_pictures else "other pictures"
                lines.append(f"  {fit.card.id} with {fit.change.words} ({changed}): {fit.change.price}")
            if fit.pixels < fit.card.max_pixels:
                lines.append(
                    f"  {fit.card.id} draws up to {fit.pixels / 1e6:.2f} million pixels there, its card says "
                    f"{fit.card.max_pixels / 1e6:.2f}"
                )
    lines += [f"{model}: {why}" for model, why in elsewhere.items()]
    sizes = [place.gpu.memory_gb for place in made.places if place.fits]
    if sizes and max(sizes) - min(sizes) > EQUAL_GB:
        lines.append(
            "These GPUs differ, and Ray gives them out by number: keep them on nodes of their own, and let each worker "
            "ask for its own by accelerator_type or resources"
        )
    return lines
