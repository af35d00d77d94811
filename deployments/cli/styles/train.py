"""`triptych styles train`: captioned pictures to a style: weights, a card, and a sheet that shows what it does."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
import yaml
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from deployments.cli.console import AsJson, Config, err, out, print_json
from deployments.settings import DEFAULT_CONFIG, load_serve_config
from router.errors import RequestError

if TYPE_CHECKING:
    from models.styles.pictures import Example
    from router.types import ModelCard, Style

SHOWN = 6
"""Captions on the sheet."""
WEIGHTS = (0.0, 0.5, 1.0)

Folder = Annotated[Path, typer.Argument(help="Pictures, each with its caption in NAME.txt or in its metadata.")]
Model = Annotated[str, typer.Option(help="Catalogue id of the base model.")]
Kind = Annotated[Literal["lora"], typer.Option(help="What is trained.")]
Name = Annotated[str | None, typer.Option(help="Id of the style (default: the folder's name).")]
Out = Annotated[Path, typer.Option("--out", help="Where weights, card, sheet and the run's state go.")]
Rank = Annotated[int, typer.Option(min=1, max=256, help="Rank of what is added to each layer.")]
Steps = Annotated[int, typer.Option(min=1, help="Steps in all; a run that was ended goes on from where it was.")]
Rate = Annotated[float, typer.Option(min=1e-6, max=1.0, help="Highest learning rate.")]
Batch = Annotated[int, typer.Option(min=1, max=256, help="Pictures a step.")]
Seed = Annotated[int, typer.Option(min=0, help="Of the first weights, the order and the noise.")]
Licence = Annotated[str, typer.Option(help="Of the style, for its card.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")]


def train(
    folder: Folder,
    model: Model,
    kind: Kind = "lora",
    name: Name = None,
    out_folder: Out = Path("styles"),
    rank: Rank = 8,
    steps: Steps = 600,
    rate: Rate = 2e-3,
    batch: Batch = 16,
    seed: Seed = 0,
    licence: Licence = "unknown",
    device: Device = "cpu",
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Train a style on captioned pictures, or go on with a training that was ended.

    Writes NAME.safetensors, NAME.yaml (its card) and NAME.png (a sheet); name the folder in the config to serve it.
    """
    from deployments.assembly import catalogue_of
    from models.styles.cards import load_style
    from models.styles.pictures import examples
    from models.styles.training import Recipe, train_lora

    named = name or re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-._")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", named):
        raise RequestError(f"--name {named!r}: a style's id has letters, digits, dots, hyphens and underscores", "name")
    card = catalogue_of(load_serve_config(config).settings)[model]
    pictures = examples(folder)
    recipe = Recipe(rank=rank, steps=steps, rate=rate, batch=batch, seed=seed)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
    )
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=err) as progress:
        task = progress.add_task(named, total=steps, loss="-")
        trained = train_lora(
            card, pictures, out_folder, named, recipe, device,
            lambda step, loss: progress.update(task, completed=step, loss=f"{loss:.4f}"),
        )  # fmt: skip
    told = f"triptych {' '.join(map(shlex.quote, sys.argv[1:]))}"
    card_path = trained.path.with_suffix(".yaml")
    card_path.write_text(_card(named, card, licence, pictures, told, trained), encoding="utf-8")
    style = load_style(card_path)
    sheet_path = trained.path.with_suffix(".png")
    sheet(card, style, pictures, device).save(sheet_path)
    files = [str(path) for path in (trained.path, card_path, sheet_path)]
    if as_json:
        report = {"style": named, "files": files, "steps": trained.step, "loss": trained.loss}
        print_json({**report, "seconds": round(trained.seconds, 1), "bytes": trained.path.stat().st_size})
        return
    for file in files:
        out.print(f"wrote {file}", highlight=False, soft_wrap=True)
    out.print(
        f"{trained.step} steps, loss {trained.loss:.4f}, {trained.path.stat().st_size / 1e6:.2f} MB. To serve it: "
        f"`styles: {{directories: [{out_folder.resolve()}]}}` in the config; then `style: {{{named}: 1}}`",
        highlight=False, soft_wrap=True, markup=False,
    )  # fmt: skip


def _card(name: str, card: ModelCard, licence: str, pictures: Sequence[Example], command: str, trained: Any) -> str:
    """The style's card as YAML, with the command that made it."""
    fields = {
        "id": name,
        "family": card.family,
        "kind": "lora",
        "source": {"file": trained.path.name},
        "licence": licence,
        "latent_space": card.latent_space,
        "description": f"Trained on {len(pictures)} pictures for {trained.step} steps.",
    }
    return f"# {command}\n{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)}"


def sheet(card: ModelCard, style: Style, pictures: Sequence[Example], device: str = "cpu") -> Any:
    """A PIL picture: a row for each of some captions, a column for each weight, the same seeds throughout."""
    import numpy as np
    from PIL import Image, ImageDraw

    from models import load_engine
    from router.types import Picture, Scalar, Step, spelled, wearing

    engine = load_engine(replace(card, styles={style.id: style}, tuning={}, tuned="", changes=""), device)
    captions = list(dict.fromkeys(one.caption for one in pictures))
    captions = captions[:: max(1, len(captions) // SHOWN)][:SHOWN]
    width, height = card.native_size
    scale = max(1, 128 // width)
    side, line = (width * scale, height * scale), 14
    page = Image.new("RGB", ((side[0] + 8) * len(WEIGHTS) + 8, (side[1] + line + 8) * len(captions) + 8), "white")
    pen = ImageDraw.Draw(page)
    for row, caption in enumerate(captions):
        top = 8 + row * (side[1] + line + 8)
        for column, weight in enumerate(WEIGHTS):
            settings: dict[str, Scalar] = {"prompt": caption, "seed": row}
            if worn := spelled(wearing({style.id: weight})):
                settings["style"] = worn
            made = engine.run(Step(f"sheet-{row}-{column}", "generate", card.id, (), "image", settings)).value
            assert isinstance(made, Picture)
            picture = Image.fromarray(np.ascontiguousarray(made.pixels)).resize(side, Image.Resampling.NEAREST)
            page.paste(picture, (8 + column * (side[0] + 8), top))
        pen.text((8, top + side[1] + 1), caption[: page.width // 6], fill="black", font_size=10)
    return page
