"""The commands that learn from use: `triptych feedback`, and `triptych router` log, retrain, canary, rollback."""

from __future__ import annotations

import asyncio
import csv
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deployments.cli.console import AsJson, Config, err, out, print_json, say
from deployments.settings import DEFAULT_CONFIG, AppSettings, load_serve_config
from router.errors import ArtifactError, RequestError

if TYPE_CHECKING:
    from deployments.store.decision_log import DecisionLog

Log = Annotated[Path | None, typer.Argument(help="A store's SQLite file (default: the store of the config).")]
Folder = Annotated[
    Path | None, typer.Option("--artefact", "--artifact", help="A trained folder (default: that of the config).")
]
Source = Annotated[str, typer.Option(help="Whose feedback: rating (people), or scorer:NAME.")]


def feedback(
    request_id: Annotated[str, typer.Argument(metavar="ID", help="The request_id of an answer.")],
    rating: Annotated[
        float | None, typer.Option(help="A person's: 1 (useless) to 5 (just what was asked for).")
    ] = None,
    thumb: Annotated[str | None, typer.Option(metavar="up|down", help="A person's, with two buttons.")] = None,
    score: Annotated[float | None, typer.Option(help="A program's: 0 to 1; with --scorer.")] = None,
    scorer: Annotated[str | None, typer.Option(help="Which program said so.")] = None,
    image: Annotated[int | None, typer.Option(help="Which picture, from 0 (default: all of the request).")] = None,
    url: Annotated[str | None, typer.Option(help="A running Triptych; else the log of the config, directly.")] = None,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Say how good the pictures of a request are."""
    from deployments.api.wire.feedback import parse_feedback

    given = {"id": request_id, "rating": rating, "thumb": thumb, "score": score, "scorer": scorer, "image": image}
    wire = parse_feedback({key: value for key, value in given.items() if value is not None})
    body = wire.model_dump(exclude_none=True)
    report = asyncio.run(_sent(url, body) if url else _written(config, body))
    if as_json:
        print_json(report)
    else:
        again = "; it replaces what was said before" if report["replaced"] else ""
        say(f"{report['source']} {report['value']:g} of 0 to 1, on {', '.join(report['recipes'])}{again}")


async def _sent(url: str, body: dict[str, Any]) -> dict[str, Any]:
    from deployments.cli.sources import HttpSource

    return await HttpSource(url).feedback(body)


async def _written(config: Path, body: dict[str, Any]) -> dict[str, Any]:
    from deployments.api.wire.feedback import feedback_report, parse_feedback
    from deployments.assembly import catalogue_of, log_of
    from deployments.orchestration.metrics import Tally
    from deployments.orchestration.recorder import Recorder

    settings, wire = load_serve_config(config).settings, parse_feedback(body)
    recorder = Recorder(log_of(settings), catalogue_of(settings), Tally())
    return feedback_report(wire, await recorder.attach(wire.id, wire.source, wire.value, wire.image))


def log(
    file: Log = None,
    export: Annotated[Path | None, typer.Option(help="Write a ratings table (.csv) that `train` takes.")] = None,
    source: Source = "rating",
    purge: Annotated[bool, typer.Option("--purge", help="Delete what is beyond the config's age and number.")] = False,
    forget: Annotated[str | None, typer.Option(help="Delete what is kept on this prompt.")] = None,
    take_over: Annotated[
        Path | None, typer.Option(help="Append the decisions of a log of version 0.1, which had a file of its own.")
    ] = None,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """What the log of decisions holds; export ratings, delete what is old or what is to be forgotten."""
    from deployments.cli import tables as render

    settings = load_serve_config(config).settings
    decisions = _log(settings, file)
    if take_over is not None:
        taken = decisions.take_over(take_over)
        err.print(f"took over {taken} decisions of {take_over}", highlight=False, markup=False)
    counts = decisions.counts()  # also: is it there at all?
    if forget is not None:
        err.print(f"deleted {_forgotten(settings, decisions, forget, file)} on that prompt", highlight=False)
    if purge:
        err.print(f"deleted {decisions.purge()} decisions by age and number", highlight=False)
    if export is not None:
        err.print(f"wrote {_export(decisions, source, export)} ratings to {export}", highlight=False, markup=False)
    counts = decisions.counts() if purge or forget is not None else counts
    report = {"path": str(decisions.path), **counts}
    for name in ("since_s", "until_s"):
        seconds = report.pop(name)
        report[name[:-2]] = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds") if seconds else None
    if as_json:
        print_json(report)
    else:
        render.show(out, render.log(report))


def _forgotten(settings: AppSettings, decisions: DecisionLog, prompt: str, file: Path | None) -> str:
    """What was deleted, in words: of the whole store, or of the log in a file."""
    if file is not None:
        return f"{decisions.forget(prompt)} decisions"
    from deployments.store.store import open_store

    store = open_store(settings.store, settings.feedback)
    try:
        gone = store.forget(prompt)
    finally:
        store.close()
    return f"{gone['decisions']} decisions, and {gone['jobs']} jobs with {gone['pictures']} pictures,"


def _export(decisions: DecisionLog, source: str, file: Path) -> int:
    """Rows of prompt, recipe, score (0..1), group; only of decisions whose prompt was stored as text."""
    rated = decisions.rated(source)
    rows = [
        (record.prompt, record.keys[said.recipe], f"{said.value:.6g}", record.prompt_hash[:16])
        for record, feedback in rated
        for said in feedback
        if record.prompt
    ]
    if not rows:
        why = (
            "their prompts are kept as hashes only; learn from them with `triptych router retrain --from-feedback`, or "
            "set feedback.store_prompts: text for those to come"
            if rated
            else "it holds no feedback of that source; `triptych router log` lists the sources"
        )
        raise ArtifactError(f"{decisions.path}: nothing to export of source {source!r}: {why}")
    with file.open("w", encoding="utf-8", newline="") as target:
        writer = csv.writer(target)
        writer.writerow(("prompt", "recipe", "score", "group"))
        writer.writerows(rows)
    if (left := sum(not record.prompt for record, _ in rated)) > 0:
        err.print(f"{left} decisions were left out: their prompts are kept as hashes only", highlight=False)
    return len(rows)


def retrain(
    file: Log = None,
    from_feedback: Annotated[bool, typer.Option("--from-feedback", help="Learn from the log LOG.")] = False,
    artefact: Folder = None,
    out_folder: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where the winner goes (default: in place of the artefact).")
    ] = None,
    policy: Annotated[
        str | None, typer.Option("--policy", "-p", help="Whose decisions (default: the default policy of the config).")
    ] = None,
    source: Source = "rating",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Evaluate only, put nothing in force.")] = False,
    seed: Annotated[int, typer.Option(help="Same log and seed, same result.")] = 0,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Fit to feedback, evaluate it off-policy, and put it in force only if it wins: 0 if so, 1 if all stays."""
    from dataclasses import asdict

    from deployments.assembly import catalogue_of
    from deployments.cli import tables as render
    from deployments.known_names import known_of
    from deployments.offline.rehearsal import find_policy
    from deployments.offline.retraining import retrain as learn

    if not from_feedback:
        raise RequestError("say what to learn from: triptych router retrain --from-feedback [LOG]")
    settings = load_serve_config(config).settings
    catalogue = catalogue_of(settings)
    judged = find_policy(settings, known_of(catalogue, settings.safety.moderators), policy or settings.policies.default)
    folder = artefact or settings.artifact_path
    done = learn(_log(settings, file), source, folder, judged, catalogue, out_folder, seed, dry_run)
    wins, _ = done.comparison.verdict
    if as_json:
        digest = done.artifact.digest if done.artifact else None
        report = {"swapped": done.swapped, "wins": wins, "why": done.why, "digest": digest, "counts": dict(done.counts)}
        report["served"] = done.swapped and is_served(out_folder or folder, settings)
        scorers = {one.scorer: {"calibrated": one.content is not None, "note": one.note} for one in done.scorers}
        print_json({**report, "scorers": scorers, "comparison": asdict(done.comparison)})
    else:
        render.show(out, render.off_policy(done.comparison))
        end = (
            _in_force(out_folder or folder, done.artifact.digest, settings, config, undo=True)
            if done.artifact
            else "dry run: nothing was changed"
            if wins
            else "nothing was changed"
        )
        say("\n".join([done.why, *(f"{one.scorer}: {one.note}" for one in done.scorers), end]))
    if not wins:
        raise typer.Exit(1)


def canary(
    policy: Annotated[str, typer.Argument(help="The policy that answers most requests.")],
    other: Annotated[str, typer.Argument(metavar="CANARY", help="The policy that answers a share of them.")],
    file: Log = None,
    source: Source = "rating",
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """How a canary is rated beside its policy: 0 if it is better, 1 if that is not proven. Valid at every look."""
    from dataclasses import asdict

    from deployments.offline.canary import compare_canary

    found = compare_canary(_log(load_serve_config(config).settings, file), source, policy, other)
    better, why = found.verdict
    if as_json:
        print_json({"better": better, "why": why, **asdict(found)})
    else:
        for side in (found.policy, found.canary):
            low, high = side.interval
            say(
                f"{side.policy}: {side.quality:.4f} ({low:.4f} to {high:.4f}) on {side.decisions} rated decisions, "
                f"{side.cost_usd:.3g} USD and {side.latency_s:.3g} s each"
            )
        say(why)
    if not better:
        raise typer.Exit(1)


def rollback(
    artefact: Folder = None,
    digest: Annotated[str | None, typer.Option(help="The beginning of a digest (default: the one before).")] = None,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Put the artefact back that was in force before."""
    from router.registry.versions import former, roll_back

    settings = load_serve_config(config).settings
    folder = artefact or settings.artifact_path
    restored = roll_back(folder, digest)
    if as_json:
        print_json({"artefact": str(folder), "digest": restored.digest, "earlier": [f.digest for f in former(folder)]})
    else:
        say(_in_force(folder, restored.digest, settings, config))


def is_served(folder: Path, settings: AppSettings) -> bool:
    """Whether it is the folder that the config serves."""
    return folder.resolve() == Path(settings.artifact_path).resolve()


def _in_force(folder: Path, digest: str, settings: AppSettings, config: Path, undo: bool = False) -> str:
    """Where an artefact went, and whether the config serves it."""
    if is_served(folder, settings):
        return f"in force: {folder} ({digest[:12]})" + ("; `triptych router rollback` undoes it" if undo else "")
    return (
        f"written: {folder} ({digest[:12]}), which is not in force: {config} serves {settings.artifact_path}; name it "
        "there under artifact:"
    )


def _log(settings: AppSettings, file: Path | None) -> DecisionLog:
    from deployments.assembly import log_of

    if file is None:
        return log_of(settings)
    chosen = settings.store.model_copy(update={"url": f"sqlite:///{file.absolute()}"})
    return log_of(settings.model_copy(update={"store": chosen}))


def add_to(app: typer.Typer, router_app: typer.Typer) -> None:
    """Put the commands where they belong."""
    app.command()(feedback)
    for command in (log, retrain, canary, rollback):
        router_app.command()(command)
