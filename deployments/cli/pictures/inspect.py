"""`triptych inspect`: everything that a picture's file says, ours or of another program."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from deployments.cli.console import AsJson, complain, print_json, say
from deployments.cli.pictures.reading import Files, bytes_of, picture_of
from models.provenance.credentials import available, read_credentials
from models.provenance.foreign import origin_of
from models.provenance.reading import PictureFile
from models.provenance.texts import printable
from models.provenance.xmp import SOURCE_TYPE
from router.errors import TriptychError

SHOWN = 400
"""Characters of a text of another program that are shown; `--json` has all of it."""
WIDTH = 16

Trusted = Annotated[
    Path | None, typer.Option("--trusted", help="Certificates (PEM) by which signers of C2PA are known.")
]


def inspect(files: Files, trusted: Trusted = None, as_json: AsJson = False) -> None:
    """Show what files of pictures say: prompts, seeds, every step, the AI mark, C2PA; also of other programs."""
    anchors = None if trusted is None else bytes_of(trusted).decode("utf-8", "replace")
    reports, failed = [], None
    for number, file in enumerate(files):
        try:
            report = report_of(file, anchors)
        except TriptychError as error:
            if len(files) == 1:
                raise
            failed = failed or error
            reports.append({"file": str(file), "error": error.message})
            if not as_json:
                complain(printable(error.message))
            continue
        reports.append(report)
        if not as_json:
            for line in [*([""] if number else []), *lines(report)]:
                say(line)
    if as_json:
        print_json(reports)
    if failed is not None:
        raise typer.Exit(2)


def report_of(file: Path, trusted: str | None = None) -> dict[str, Any]:
    """All of a file as builtins. Raises `RequestError` if it is no picture that can be read."""
    data = bytes_of(file)
    picture = picture_of(file, data)
    origin = None if picture.metadata else origin_of(picture.texts)
    return {
        "file": str(file),
        "format": picture.format,
        "size": f"{picture.width}x{picture.height}",
        "frames": picture.frames,
        "bytes": len(data),
        "ai_mark": _mark(picture),
        "source_type": picture.source_type,
        "triptych": dict(picture.metadata),
        "origin": None if origin is None else asdict(origin),
        "texts": dict(picture.texts),
        "c2pa": _credentials(data, picture, trusted),
    }


def _mark(picture: PictureFile) -> bool:
    return picture.source_type.rsplit("/", 1)[-1] == SOURCE_TYPE.rsplit("/", 1)[-1]


def _credentials(data: bytes, picture: PictureFile, trusted: str | None) -> dict[str, Any] | None:
    """The C2PA manifest, None if there is none, or in words why it cannot be told."""
    if not available():
        there = b"c2pa" in data[:65_536] or b"jumb" in data[:65_536] or b"caBX" in data or b"C2PA" in data
        remedy = "pip install -c constraints.txt -e '.[c2pa]'"
        return {"problem": f"it may have a manifest; to read it: {remedy}"} if there else None
    try:
        found = read_credentials(data, picture.format, trusted)
    except TriptychError as error:
        return {"problem": error.message}
    return None if found is None else asdict(found)


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """The report for people."""
    yield printable(f"{report['file']}: {report['format'].upper()}, {report['size']}, {report['bytes']:,} bytes")
    if report["frames"] > 1:
        yield _row("frames", report["frames"])
    mark = "a trained model made it (IPTC trainedAlgorithmicMedia)" if report["ai_mark"] else report["source_type"]
    yield _row("AI mark", mark or "none")
    if metadata := report["triptych"]:
        yield from _ours(metadata)
    elif origin := report["origin"]:
        yield from _of_others(origin)
    else:
        yield _row("origin", "the file says nothing of how it was made")
        yield from (_row(key, _short(text)) for key, text in report["texts"].items())
    yield from _manifest(report["c2pa"])


def _ours(metadata: Mapping[str, Any]) -> Iterator[str]:
    yield _row("made by", metadata.get("generator", "Triptych"))
    for key in ("prompt", "negative_prompt", "seed", "recipe", "policy", "plan"):
        if metadata.get(key) not in (None, ""):
            yield _row(key.replace("_", " "), metadata[key])
    for model, revision in _mapping(metadata.get("models")).items():
        yield _row("model", f"{model} at {revision}")
    for step in map(_mapping, _listed(metadata.get("steps"))):
        inputs = ", ".join(map(str, _listed(step.get("inputs"))))
        after = f" after {inputs}" if inputs else ""
        by = f" by {step['model']}" if step.get("model") else ""
        yield _row("step", f"{step.get('id', '')}: {step.get('kind', '')}{by}{after}")
        for told in (_mapping(step.get("settings")), _mapping(step.get("facts"))):
            if told:
                yield _row("", ", ".join(f"{key} {value}" for key, value in told.items()))
    output = _mapping(metadata.get("output"))
    if output:
        quality = "" if output.get("compression") is None else f", compression {output['compression']}"
        yield _row("written as", f"{output.get('format')}{quality}")
    if shortened := _listed(metadata.get("shortened")):
        yield _row("shortened", f"{', '.join(map(str, shortened))}: all of it stands in the rest of the file")
    yield _row("again", "triptych replay makes it again" if metadata.get("replay") else "it cannot be replayed")


def _of_others(origin: Mapping[str, Any]) -> Iterator[str]:
    yield _row("made by", origin["program"])
    yield from (_row(key.replace("_", " "), origin[key]) for key in ("prompt", "negative_prompt") if origin[key])
    for sampler in origin["samplers"]:
        yield _row("sampler", ", ".join(f"{key} {value}" for key, value in sampler.items()))
    yield from (_row(str(key), _short(str(value))) for key, value in origin["rest"].items())


def _manifest(found: Mapping[str, Any] | None) -> Iterator[str]:
    if found is None:
        yield _row("C2PA", "no manifest")
        return
    if "problem" in found:
        yield _row("C2PA", found["problem"])
        return
    meaning = {
        "Trusted": "intact, and signed by a certificate that is trusted here",
        "Valid": "intact since it was signed; who signed is not judged here (--trusted)",
    }.get(found["state"], "NOT valid: the file was changed since, or the signature is not sound")
    yield _row("C2PA", f"{found['state']}: {meaning}")
    by = " ".join(part for part in (found["common_name"], f"({found['issuer']})" if found["issuer"] else "") if part)
    yield _row("signed by", f"{by or 'nobody that is named'}{', ' + found['signed_at'] if found['signed_at'] else ''}")
    yield from (_row("action", f"{action} {source}".strip()) for action, source in found["actions"])
    yield from (_row("problem", code) for code in found["problems"])


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text):,} characters; --json has all of them)"


def _row(name: str, value: Any) -> str:
    first, *more = printable(str(value)).splitlines() or [""]
    return "\n".join(
        [f"  {printable(name)[:WIDTH]:<{WIDTH}} {first}".rstrip(), *(" " * (WIDTH + 3) + one for one in more)]
    )
