"""`triptych replay`: makes pictures again from what their files say, and compares.

    file ─▶ metadata ─▶ a body of generations, of the fields that make a picture ─▶ PNG ─▶ comparison of pixels

A file may come from anyone, so it only says what is drawn: one picture, without webhooks, users or priorities.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from deployments.cli.console import AsJson, Config, err, exit_code, out, print_json, say
from deployments.cli.pictures.edit import pictures
from deployments.cli.pictures.reading import Files, bytes_of, picture_of
from deployments.cli.sources import Source, source
from deployments.settings import DEFAULT_CONFIG
from models.provenance.comparison import Comparison, compare
from models.provenance.reading import read_pixels
from models.provenance.texts import printable
from router.errors import RequestError, TriptychError

DRAWN = (
    *("model", "recipe", "steps", "guidance_scale", "style", "tags", "turns", "seed", "size"),
    *("image", "mask", "reference", "strength", "input_fidelity"),
)
"""Fields of a file's replay that are sent; the prompts stand beside it."""

Keep = Annotated[
    Path | None, typer.Option("--keep", help="A folder for the pictures as they were made again: NAME.replayed.png.")
]
Given = Annotated[
    list[Path] | None,
    typer.Option("--given", help="A picture that an edit began with, in their order; else the server has to have it."),
]
GivenMask = Annotated[Path | None, typer.Option("--given-mask", help="The mask of that edit.")]
GivenReference = Annotated[
    Path | None, typer.Option("--given-reference", help="The picture that a style drew after; else as --given.")
]
Url = Annotated[
    str | None, typer.Option(help="A running Triptych, such as http://127.0.0.1:8000; else in this process.")
]


@dataclass(frozen=True)
class Replayed:
    """What became of one file. changed: in words, what differs from what is recorded, besides the pixels

    exit_code: of the failure, where there is an error
    """

    file: str
    comparison: Comparison | None = None
    changed: tuple[str, ...] = ()
    error: str = ""
    error_code: str = ""
    exit_code: int = 0

    @property
    def same(self) -> bool:
        return self.comparison is not None and self.comparison.same

    @property
    def verdict(self) -> str:
        return "failed" if self.comparison is None else self.comparison.verdict

    def report(self) -> dict[str, Any]:
        told = {} if self.comparison is None else {"comparison": asdict(self.comparison)}
        failed = {"error": {"message": self.error, "code": self.error_code}} if self.error else {}
        return {"file": self.file, "verdict": self.verdict, **told, "changed": list(self.changed), **failed}


def replay(
    files: Files,
    keep: Keep = None,
    given: Given = None,
    given_mask: GivenMask = None,
    given_reference: GivenReference = None,
    config: Config = DEFAULT_CONFIG,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Make pictures again from their files, and compare: identical pixels, or within the error of a lossy codec.

    Exit codes: 0 all are the same; 1 one of them differs; else that of the first failure.
    """
    if keep is not None and not keep.is_dir():
        raise RequestError(f"--keep {keep}: there is no such folder; make it first", "keep")
    read = pictures(given or (), given_mask, given_reference)
    brought = {key: value for key, value in read.items() if value is not None}
    found = asyncio.run(_each(files, keep, brought, lambda: source(url, config), print_them=not as_json))
    same = sum(one.same for one in found)
    if as_json:
        print_json({"files": [one.report() for one in found], "same": same, "of": len(found)})
    elif len(found) > 1:
        say(f"{same} of {len(found)} are the same")
    different = any(one.verdict == "different" for one in found)
    if code := 1 if different else next((one.exit_code for one in found if one.error), 0):
        raise typer.Exit(code)


async def _each(
    files: Sequence[Path],
    keep: Path | None,
    brought: Mapping[str, Any],
    connect: Callable[[], Source],
    print_them: bool,
) -> list[Replayed]:
    """What became of each file, one after the other.

    brought: base64 of given pictures, instead of their digests;   connect: called once, when the first can be replayed
    """
    found: list[Replayed] = []
    asked: Source | None = None
    # Of several files, the bar counts those that are done; a single one has the bars of its steps.
    steps = err if len(files) == 1 else Console(quiet=True)
    # On a terminal, the bar must know of the lines that are printed above it.
    with _counting(out if out.is_terminal else err, len(files)) as told:
        for file in files:
            told(printable(file.name))
            try:
                recorded = _recorded(file)
                asked = asked or connect()
                one = await _again(recorded, asked, keep, brought, steps)
            except TriptychError as error:
                one = Replayed(str(file), error=error.message, error_code=error.code, exit_code=exit_code(error))
            found.append(one)
            for line in lines(one) if print_them else ():
                say(line)
    return found


@dataclass(frozen=True)
class _Recorded:
    """A file that says how to make it again."""

    file: Path
    data: bytes
    format: str
    metadata: Mapping[str, Any]

    @property
    def output(self) -> Mapping[str, Any]:
        return _mapping(self.metadata.get("output"))

    @property
    def body(self) -> dict[str, Any]:
        """What is asked of Triptych."""
        told = _mapping(self.metadata.get("replay"))
        body = {key: told[key] for key in DRAWN if key in told}
        words = {key: self.metadata.get(key) for key in ("prompt", "negative_prompt")}
        body |= {key: word for key, word in words.items() if word}
        # Made alone, the bytes do not depend on what else waits.
        return {**body, "n": 1, "output_format": "png", "deterministic": True}


def _recorded(file: Path) -> _Recorded:
    """Raises `RequestError` for what cannot be replayed, with the reason."""
    data = bytes_of(file)
    picture = picture_of(file, data)
    if picture.frames > 1:
        message = f"it is an animation of {picture.frames} frames; only a single picture can be made again"
        raise RequestError(f"{file}: {message}", "file")
    if not picture.metadata:
        marked = " but that a model made it" if picture.source_type else ""
        raise RequestError(
            f"{file}: it says nothing{marked}, so it cannot be made again; triptych inspect shows what it has", "file"
        )
    if not isinstance(picture.metadata.get("replay"), Mapping):
        raise RequestError(
            f"{file}: it was written before files said all that replays them; send its prompt, recipe and seed", "file"
        )
    return _Recorded(file, data, picture.format, picture.metadata)


async def _again(
    recorded: _Recorded, asked: Source, keep: Path | None, brought: Mapping[str, Any], console: Console
) -> Replayed:
    """The picture once more, against the file. Raises what making a picture may raise."""
    body = recorded.body
    answer = await asked.generate(body | {key: file for key, file in brought.items() if key in body}, console)
    made = base64.b64decode(answer["data"][0]["b64_json"])
    if keep is not None:
        _keep(keep / f"{recorded.file.stem}.replayed.png", made)
    compression = recorded.output.get("compression")
    comparison = compare(
        recorded.data,
        read_pixels(made),
        recorded.format,
        compression if isinstance(compression, int) and 0 <= compression <= 100 else None,
        str(recorded.output["format"]) if "format" in recorded.output else None,
    )
    return Replayed(str(recorded.file), comparison, tuple(changes(recorded.metadata, answer["x_triptych"])))


def _keep(file: Path, made: bytes) -> None:
    """Write a picture where there is none. Raises `RequestError`: what lies there may be what it is compared with."""
    try:
        with file.open("xb") as opened:
            opened.write(made)
    except FileExistsError:
        raise RequestError(f"--keep: {file} is there already; move it away, or name another folder", "keep") from None
    except OSError as error:
        raise RequestError(f"--keep: {file} cannot be written: {error.strerror}", "keep") from None


def changes(recorded: Mapping[str, Any], report: Mapping[str, Any]) -> Iterator[str]:
    """What of the policy, the plan and the weights is not as it was when the file was written."""
    (made,) = report["pictures"]
    policy = f"{report['policy']}@{report['policy_digest']}"
    if policy != recorded.get("policy"):
        yield f"policy {policy}, not {recorded.get('policy')}"
    revisions = _mapping(recorded.get("models"))
    for step in made["steps"]:
        facts = step["facts"]
        for model, key in ((step["model"], "revision"), (step["settings"].get("guest"), "guest_revision")):
            if model in revisions and facts.get(key) not in (None, revisions[model]):
                yield f"weights of {model} at {facts[key]}, not {revisions[model]}"
    if made["plan_digest"] == recorded.get("plan"):
        return
    yield f"plan {made['plan_digest']}, not {recorded.get('plan')}"
    steps = recorded.get("steps")
    listed = [one for one in steps if isinstance(one, Mapping)] if isinstance(steps, list) else []
    before = {str(one.get("id")): _mapping(one.get("settings")) for one in listed}
    for step in made["steps"]:
        if step["id"] not in before:
            yield f"step {step['id']} is new"
            continue
        for key, value in step["settings"].items():
            if key not in ("prompt", "negative_prompt") and before[step["id"]].get(key) != value:
                yield f"step {step['id']}: {key} {value}, not {before[step['id']].get(key)}"
    yield from (f"step {gone} is gone" for gone in before if gone not in {step["id"] for step in made["steps"]})


def lines(one: Replayed) -> Iterator[str]:
    """A result for people."""
    told = one.error if one.comparison is None else one.comparison.reason
    name = "" if told.startswith(one.file) else f"{one.file}: "
    yield printable(f"{one.verdict}: {name}{told}")
    yield from (printable(f"  changed since: {change}") for change in one.changed)


@contextlib.contextmanager
def _counting(console: Console, total: int) -> Iterator[Callable[[str], None]]:
    """A bar over several files, which is told the name of the next one; nothing for a single file."""
    if total == 1:
        yield lambda _: None
        return
    columns = (
        TextColumn("{task.completed}/{task.total}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)
        begun = 0

        def told(name: str) -> None:
            nonlocal begun
            bar.update(task, completed=begun, description=name)
            begun += 1

        yield told


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
