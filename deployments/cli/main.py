"""The command `triptych`: serve, generate, edit, route, replay, inspect, feedback, policy, models, styles,
keys, router.

Exit codes are `MEANINGS`, and the table in docs/operations.md. Results go to stdout, the rest to stderr; with `--json`,
stdout has one JSON document in any case: the result, or the error in the envelope that HTTP has.
"""

from __future__ import annotations

import asyncio
import base64
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from deployments.api.errors import envelope
from deployments.cli import feedback as cli_feedback
from deployments.cli import router as cli_router
from deployments.cli.bootstrap.bootstrap import bootstrap
from deployments.cli.bootstrap.drift import drift
from deployments.cli.bootstrap.label import label
from deployments.cli.console import EXIT_CODES, AsJson, Config, Prompt, err, exit_code, out, print_json
from deployments.cli.keys import keys_app
from deployments.cli.models.download import download
from deployments.cli.models.export import export
from deployments.cli.models.fits import fits
from deployments.cli.models.plan import plan
from deployments.cli.models.profile import profile
from deployments.cli.models.tune import tune
from deployments.cli.pictures.edit import Also, Extend, Image, Mask, Reference, Strength, pictures
from deployments.cli.pictures.inspect import inspect
from deployments.cli.pictures.replay import replay
from deployments.cli.policy import policy_app
from deployments.cli.styles import styles_app
from deployments.settings import DEFAULT_CONFIG, load_serve_config
from router import errors

MEANINGS = {
    0: "done",
    1: "failed, or not better (router retrain), or a probe failed (policy eval), or a picture differs (replay)",
    2: "the input is wrong: an option, a request, a policy, a table, a config",
    3: "no recipe may make this picture",
    4: "what it needs is not there: weights, a server, a database, time",
    130: "interrupted",
}

# Newer versions of typer have a click of their own.
USAGE_ERROR: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")

EXAMPLES = """Examples:

triptych generate "a red circle" -o circle.png --seed 1

triptych route "two green stars" -m frugal

triptych policy explain "two green stars" -p frugal

Exit codes: """ + "; ".join(f"{code} {meaning}" for code, meaning in MEANINGS.items())

app = typer.Typer(
    name="triptych",
    help="Routes each prompt to the text-to-image recipe that is worth it.",
    epilog=EXAMPLES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models_app = typer.Typer(
    help="See the catalogue, fetch or export weights, see what fits on which GPU, where seconds go, what is worth it.",
    no_args_is_help=True,
)
app.add_typer(policy_app, name="policy")
app.add_typer(models_app, name="models")
app.add_typer(styles_app, name="styles")
app.add_typer(keys_app, name="keys")
app.add_typer(cli_router.app, name="router")


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        out.print(f"triptych {version('triptych')}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Routes each prompt to the text-to-image recipe that is worth it."""


Url = Annotated[
    str | None, typer.Option(help="A running Triptych, such as http://127.0.0.1:8000; else in this process.")
]
Target = Annotated[str, typer.Option("--model", "-m", help="auto, or a policy, a recipe or a model.")]
Recipe = Annotated[str | None, typer.Option(help="A recipe of the policy, by name.")]
Size = Annotated[str, typer.Option(help="auto or WIDTHxHEIGHT.")]
Number = Annotated[int, typer.Option("-n", help="Pictures; the i-th one takes seed + i.")]
Seed = Annotated[int | None, typer.Option(help="Random when not given; reported either way.")]
Steps = Annotated[int | None, typer.Option(help="Denoising steps.")]
Guidance = Annotated[float | None, typer.Option("--guidance-scale", help="Classifier-free guidance.")]
Negative = Annotated[str | None, typer.Option("--negative-prompt", help="What the picture should not show.")]
Budget = Annotated[float | None, typer.Option("--latency-budget-s", help="Seconds that the answer may take.")]
MaxCost = Annotated[float | None, typer.Option("--max-cost-usd", help="What the answer may cost.")]
Styles = Annotated[
    list[str] | None,
    typer.Option("--style", metavar="NAME=WEIGHT", help="A style that the picture wears; may be repeated."),
]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="A fact for the policy's rules; may be repeated.")]


@app.command()
def serve(
    config: Config = DEFAULT_CONFIG,
    host: Annotated[str | None, typer.Option(help="Address to listen on (default: the config's).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on (default: the config's).")] = None,
) -> None:
    """Start the application on Ray Serve, say when it is ready, and stop it cleanly on Ctrl-C."""
    from deployments.cli import tables as render
    from deployments.cluster.local_cluster import start

    loaded = load_serve_config(config)
    names = ", ".join(loaded.settings.models)
    err.print(f"starting {loaded.name} with the models {names}")
    with render.deploying(err) as on_change:
        running = start(loaded, host=host, port=port, on_change=on_change)
    with running:
        broken = asyncio.run(_not_ready(running.url))
        for model, why in broken.items():
            err.print(f"{model} did not load; recipes that need it are left out: {why}", style="red", markup=False)
        dials, log = loaded.settings.metrics, loaded.settings.logs
        metrics = "" if dials.port is None else f"http://{dials.host}:{dials.port}/metrics"
        out.print(render.welcome(running.url, metrics, str(log.path)), highlight=False, soft_wrap=True, markup=False)
        running.wait()
        err.print("stopping: what is being made may finish; Ctrl-C again ends all at once", highlight=False)


async def _not_ready(url: str) -> dict[str, str]:
    """Models that failed to load, with the reason."""
    import httpx

    async with httpx.AsyncClient(timeout=30) as client:
        models = (await client.get(f"{url}/readyz")).json()["models"]
    return {name: state["reason"] for name, state in models.items() if state["state"] == "failed"}


@app.command()
def generate(
    prompt: Prompt,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write; .png, .webp or .jpg.")] = Path(
        "out.png"
    ),
    model: Target = "auto",
    recipe: Recipe = None,
    size: Size = "auto",
    n: Number = 1,
    seed: Seed = None,
    steps: Steps = None,
    guidance_scale: Guidance = None,
    negative_prompt: Negative = None,
    latency_budget_s: Budget = None,
    max_cost_usd: MaxCost = None,
    style: Styles = None,
    tag: Tags = None,
    image: Image = None,
    also: Also = None,
    mask: Mask = None,
    reference: Reference = None,
    strength: Strength = None,
    extend: Extend = None,
    config: Config = DEFAULT_CONFIG,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Make pictures. The file carries its prompt, seed, recipe and model revisions."""
    from deployments.cli import tables as render
    from deployments.cli.sources import source

    formats = {".png": "png", ".webp": "webp", ".jpg": "jpeg", ".jpeg": "jpeg"}
    if output.suffix.lower() not in formats:
        known = ", ".join(formats)
        raise errors.RequestError(
            f"--output {output}: the ending says the format, and it must be one of {known}", "output"
        )
    if not output.absolute().parent.is_dir():
        raise errors.RequestError(f"--output {output}: there is no folder {output.absolute().parent}; make it first")
    body = request_body(
        prompt=prompt, model=model, recipe=recipe, size=size, n=n, seed=seed, steps=steps, tags=tag or None,
        guidance_scale=guidance_scale, negative_prompt=negative_prompt, latency_budget_s=latency_budget_s,
        max_cost_usd=max_cost_usd, style=weights_of(style), output_format=formats[output.suffix.lower()],
        **pictures([image, *(also or ())], mask, reference, strength, extend),
    )  # fmt: skip
    answer = asyncio.run(source(url, config).generate(body, err))
    files = write_pictures(answer, output)
    report = answer["x_triptych"]
    if as_json:
        print_json({"files": [str(file) for file in files], "x_triptych": report})
        return
    render.show(out, render.decision(report), render.steps(report))
    for file, seed_used in zip(files, report["seeds"], strict=True):
        out.print(f"wrote {file} (seed {seed_used}, {report['latency_s']:.2f} s)", highlight=False, soft_wrap=True)


@app.command()
def edit(
    image: Annotated[Path, typer.Argument(help="A picture to paint over: PNG, JPEG or WebP.")],
    prompt: Prompt,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write; .png, .webp or .jpg.")] = Path(
        "out.png"
    ),
    also: Also = None,
    mask: Mask = None,
    strength: Strength = None,
    extend: Extend = None,
    model: Target = "auto",
    recipe: Recipe = None,
    size: Size = "auto",
    n: Number = 1,
    seed: Seed = None,
    config: Config = DEFAULT_CONFIG,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Paint over a picture as the prompt says; with a mask, only what that leaves open. `generate --image` has more."""
    generate(
        prompt, output, model, recipe, size, n, seed, image=image, also=also, mask=mask, strength=strength,
        extend=extend, config=config, url=url, as_json=as_json,
    )  # fmt: skip


@app.command()
def route(
    prompt: Prompt,
    model: Target = "auto",
    recipe: Recipe = None,
    size: Size = "auto",
    n: Number = 1,
    steps: Steps = None,
    latency_budget_s: Budget = None,
    max_cost_usd: MaxCost = None,
    style: Styles = None,
    tag: Tags = None,
    image: Image = None,
    also: Also = None,
    mask: Mask = None,
    reference: Reference = None,
    strength: Strength = None,
    extend: Extend = None,
    config: Config = DEFAULT_CONFIG,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Explain which recipe would be chosen, and why. Nothing is generated."""
    from deployments.cli import tables as render
    from deployments.cli.sources import source

    body = request_body(
        prompt=prompt, model=model, recipe=recipe, size=size, n=n, steps=steps, tags=tag or None,
        latency_budget_s=latency_budget_s, max_cost_usd=max_cost_usd, style=weights_of(style),
        **pictures([image, *(also or ())], mask, reference, strength, extend),
    )  # fmt: skip
    report = asyncio.run(source(url, config).route(body))
    if as_json:
        print_json(report)
    else:
        render.show(out, render.decision(report))


@models_app.command("list")
def models_list(config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """The model cards that a config serves."""
    from dataclasses import asdict, replace

    from deployments.assembly import catalogue_of
    from deployments.cli import tables as render

    catalogue = catalogue_of(load_serve_config(config).settings)
    cards = [catalogue[name] for name in catalogue.ids()]
    if as_json:
        listed = [asdict(replace(card, styles={})) for card in cards]
        print_json([{**one, "styles": render.worn_by(card)} for one, card in zip(listed, cards, strict=True)])
    else:
        render.show(out, render.models(cards))


cli_feedback.add_to(app, cli_router.app)
app.command()(bootstrap)
cli_router.app.command()(drift)
app.command()(label)
app.command()(inspect)
app.command()(replay)
models_app.command()(profile)
models_app.command()(plan)
models_app.command()(fits)
models_app.command()(download)
models_app.command()(export)
models_app.command()(tune)


def request_body(**given: Any) -> dict[str, Any]:
    """The request as it would go over the wire; options that were not given are left out."""
    return {key: value for key, value in given.items() if value is not None}


def weights_of(options: Sequence[str] | None) -> dict[str, float] | None:
    """`["film=0.7"]` to `{"film": 0.7}`; a name alone has weight 1. Raises `RequestError`."""
    found = {}
    for option in options or ():
        name, _, weight = option.partition("=")
        try:
            found[name] = float(weight or 1)
        except ValueError:
            raise errors.RequestError(
                f"--style {option}: {weight!r} is not a number; such as film=0.7", "style"
            ) from None
    return found or None


def write_pictures(answer: Mapping[str, Any], output: Path) -> list[Path]:
    """`out.png`, or `out-1.png`, `out-2.png`, ... for several."""
    data = answer["data"]
    files = []
    for number, item in enumerate(data, start=1):
        file = output if len(data) == 1 else output.with_stem(f"{output.stem}-{number}")
        file.write_bytes(base64.b64decode(item["b64_json"]))
        files.append(file)
    return files


def main() -> None:
    """Entry point: expected failures become one line on stderr and an exit code, others a traceback. With `--json` an
    expected failure is the envelope of HTTP on stdout, a wrong option included."""
    as_json = "--json" in sys.argv[1:]
    try:
        if not as_json:
            app(prog_name="triptych")
        sys.exit(app(prog_name="triptych", standalone_mode=False))
    except errors.TriptychError as error:
        if as_json:
            print_json(envelope(error))
            sys.exit(exit_code(error))
        err.print(f"triptych: {error.message}", style="red", highlight=False, soft_wrap=True, markup=False)
        details = getattr(error, "problems", None) or [
            f"{r.recipe}: {r.reason}" for r in getattr(error, "rejections", ())
        ]  # fmt: skip
        for line in details:
            err.print(f"  {line}", highlight=False, soft_wrap=True, markup=False)
        sys.exit(exit_code(error))
    except (KeyboardInterrupt, typer.Abort):
        err.print("interrupted")
        sys.exit(EXIT_CODES[KeyboardInterrupt])
    except USAGE_ERROR as error:  # a wrong option or argument, with --json
        print_json(envelope(errors.RequestError(error.format_message())))
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
