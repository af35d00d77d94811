"""The command `triptych bootstrap`: from checkpoints to a router that is proven to pay, or shown not to."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from deployments.cli.artefacts import print_figures
from deployments.cli.console import AsJson, Config, err, say
from deployments.settings import DEFAULT_CONFIG, load_serve_config
from router.bootstrap.drift import Cell
from router.errors import RequestError

PICTURES = 2_000
FEW = 200  # for a refresh


def bootstrap(
    out_folder: Annotated[Path, typer.Option("--out", "-o", help="Folder of the study; the same one goes on with it.")],
    policy: Annotated[
        str | None, typer.Option("--policy", "-p", help="Whose recipes are measured (default: the config's default).")
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            help="A file (text, CSV, JSON Lines), `log` (those of the decision log), `everyday` or `shapes`, which "
            "come with Triptych.",
            show_default="shapes for the embedded models, else everyday",
        ),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(help="A scorer of the config, `ocr`, or several as A+B.", show_default="the policy's scorer"),
    ] = None,
    pictures: Annotated[int | None, typer.Option(min=1, help=f"Pictures in all (default: {PICTURES}).")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.01, help="Minutes in all, earlier runs included.")] = None,
    usd: Annotated[float | None, typer.Option(min=0.0001, help="Dollars in all, at the cards' prices.")] = None,
    url: Annotated[str | None, typer.Option(help="Draw on a running Triptych, in the class batch.")] = None,
    choose: Annotated[
        str, typer.Option(help="Which pictures: value (that better decisions most a second) or uniform (a sweep).")
    ] = "value",
    seeds: Annotated[int, typer.Option(min=1, max=10, help="Pictures of one prompt and recipe, at most.")] = 2,
    proof: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share of the budget for prompts that nothing is learned from.")
    ] = 0.25,
    until: Annotated[
        float, typer.Option(min=0, help="Stop if the later half of the pictures bettered decisions by less (0..1).")
    ] = 0.001,
    at_once: Annotated[int, typer.Option(min=1, max=64, help="Pictures under way at the same time.")] = 4,
    seed: Annotated[int, typer.Option(help="Of prompts' order and pictures.")] = 0,
    refresh: Annotated[
        bool,
        typer.Option(
            "--refresh",
            help=f"Only measure anew what the log of the config says has drifted, by {FEW} pictures "
            "(or --pictures of them).",
        ),
    ] = False,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Draw, judge, train and prove: what routing between a policy's recipes buys on your prompts, and whether it does.

    Stop it with Ctrl-C and start it again with the same options: it goes on, and draws no picture twice.
    """
    from deployments.bootstrap.bootstrapping import Bootstrap, Options
    from deployments.bootstrap.campaign import Budget, Standing
    from deployments.bootstrap.refreshing import drift_in
    from deployments.bootstrap.study import load

    if choose not in ("value", "uniform"):
        raise RequestError(f"--choose {choose}: value or uniform", "choose")
    fresh = pictures or FEW
    if pictures is None and minutes is None and usd is None:
        pictures = PICTURES
    options = Options(
        out_folder, Budget(pictures, minutes, usd), policy, url, prompts, judge,
        "uniform" if choose == "uniform" else "value", seeds, proof, until, at_once, seed,
    )  # fmt: skip
    given = load_serve_config(config)
    drifted: list[Cell] = []
    if refresh:
        load(out_folder)  # there is something to refresh
        drifted = [cell for cell in drift_in(given.settings) if cell.told is not None]
        if not drifted:
            say("{}" if as_json else "nothing drifted, so nothing is measured anew (`triptych router drift` shows it)")
            return
    run = Bootstrap(given, options)
    told: list[str] = []

    def note(text: str) -> None:
        told.append(text)
        err.print(text, style="yellow" if text.startswith("warning") else None, soft_wrap=True)

    here = f"{len(run.ledger)} are there" if len(run.ledger) else "none is there yet"
    err.print(
        f"{len(run.study.recipes)} recipes of {run.study.policy}, {len(run.study.prompts)} prompts, judged by "
        f"{run.study.judge}; pictures: {here}",
        soft_wrap=True,
    )
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[left]}"), TimeElapsedColumn())
    try:
        with Progress(*columns, console=err, transient=True) as bars:
            task = bars.add_task("loading", total=1.0, left="")

            def tell(standing: Standing) -> None:
                bars.update(
                    task, completed=min(1.0, standing.used), left=standing.left,
                    description=f"{standing.phase}: {standing.pictures} pictures, {standing.recent}",
                )  # fmt: skip

            job = run.refresh(drifted, fresh, tell, note) if refresh else run.run(tell, note)
            ended = asyncio.run(job)
            bars.update(task, description="training and proving", left="")
            done = run.conclude(ended)
    except KeyboardInterrupt:
        err.print(f"stopped: {len(run.ledger)} pictures are kept in {out_folder}; the same command goes on with them")
        raise
    found = done.conclusion
    if as_json:
        truth = found.truth
        gains = {name: [c.gain.value, c.gain.low, c.gain.high] for name, c in truth.curves.items()} if truth else {}
        print_figures({
            "pays": truth.pays if truth else None, "verdict": done.verdict, "ended": ended, "pictures": found.pictures,
            "unjudged": found.unjudged, "over_random_mixing": gains, "seconds": dict(found.costs.seconds),
            "artefact": str(options.out / "artefact"), "digest": found.artifact.digest, "page": str(done.page),
            "config": str(done.config), "notes": told,
        })  # fmt: skip
        return
    say(done.verdict)
    say(f"ended: {ended}; {found.pictures} pictures" + (f", {found.unjudged} not judged" if found.unjudged else ""))
    say(f"the page: {done.page}" + (f", with {done.plot.name}" if done.plot else " (its plot needs matplotlib)"))
    say(f"serve it: triptych serve --config {done.config}")
    say(f"or, in your own config, under args:    artifact: {(options.out / 'artefact').resolve()}")
