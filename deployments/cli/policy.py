"""The commands `triptych policy ...`: check, explain, compare, probe and draw policies. Nothing is generated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from deployments.cli.console import AsJson, Config, Prompt, complain, out, print_json, say
from deployments.settings import DEFAULT_CONFIG, load_serve_config
from router import errors

policy_app = typer.Typer(help="Check, explain, compare and probe policies.", no_args_is_help=True)

PolicyName = Annotated[
    str, typer.Option("--policy", "-p", help="A policy file, or the name of one in the config's folder.")
]
RequestBody = Annotated[str, typer.Option("--request", help="The rest of the request, as JSON.")]


@policy_app.command()
def validate(
    paths: Annotated[list[Path], typer.Argument(help="Policy files, or folders of them.")],
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Check policy files against the schema and the catalogue; every problem is listed with file, line and column."""
    from deployments.assembly import catalogue_of
    from deployments.known_names import known_of
    from policies import load_policy

    settings = load_serve_config(config).settings
    known = known_of(catalogue_of(settings), settings.safety.moderators)
    files = _files(paths)
    problems: dict[str, list[str]] = {}
    for file in files:
        problems[str(file)] = []
        try:
            policy = load_policy(file, known=known)
        except errors.PolicyError as error:
            problems[str(file)] = list(error.problems) or [error.message]
            continue
        if as_json:
            continue
        say(f"{file}: ok ({policy.name} {policy.digest}: {', '.join(policy.recipes)})")
        for number, rule in enumerate(policy.rules, start=1):
            say(f"  rule {number}: {rule.name}" + (f" (priority {rule.priority})" if rule.priority else ""))
        for skipped in policy.unchecked:
            say(f"  {skipped}")
        for name, recipe in policy.recipes.items():
            assert known.arrange is not None
            for note in known.arrange(name, recipe, policy.recipes).plan.notes:
                say(f"  {name}: {note}")
    if as_json:
        print_json({"valid": not any(problems.values()), "files": problems})
    else:
        for line in (line for lines in problems.values() for line in lines):
            complain(line)
    if any(problems.values()):
        raise typer.Exit(2)


@policy_app.command()
def schema(
    markdown: Annotated[bool, typer.Option("--markdown", help="As the tables of docs/policies.md.")] = False,
    into: Annotated[Path | None, typer.Option(help="With --markdown: put the tables into this file.")] = None,
) -> None:
    """The language as JSON Schema, for editors: every key with its type, range and default."""
    from policies import json_schema
    from policies.language.reference import put_into, reference

    if into is not None and not markdown:
        raise errors.RequestError("--into needs --markdown")
    if into is not None:
        into.write_text(put_into(into.read_text(encoding="utf-8")), encoding="utf-8")
    elif markdown:
        say(reference().rstrip())
    else:
        print_json(json_schema())


@policy_app.command()
def explain(
    prompt: Prompt,
    policy: PolicyName = "balanced",
    request: RequestBody = "{}",
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """What a policy would do with a prompt: every recipe with its estimate, its verdict, and the rule that did it."""
    from deployments.api.wire.responses import route_report
    from deployments.cli import tables as render
    from deployments.offline.rehearsal import Rehearsal

    rehearsal = Rehearsal(load_serve_config(config).settings)
    report = route_report(rehearsal.route(rehearsal.policy(policy), {**_body(request), "prompt": prompt}))
    if as_json:
        print_json(report)
    else:
        render.show(out, render.decision(report))


@policy_app.command()
def diff(
    before: Annotated[str, typer.Argument(help="A policy file, or a name.")],
    after: Annotated[str, typer.Argument(help="Another one.")],
    prompts: Annotated[Path, typer.Argument(help="A prompt a line, or a request as JSON.")],
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Whose recipe changes between two policies, and what that does to expected cost, time and quality."""
    from dataclasses import asdict

    from deployments.cli import tables as render
    from deployments.offline.diff import differences, read_bodies
    from deployments.offline.rehearsal import Rehearsal
    from deployments.operating.differences import summary

    bodies = read_bodies(prompts)
    rehearsal = Rehearsal(load_serve_config(config).settings)
    found = differences(rehearsal.policy(before), rehearsal.policy(after), bodies, rehearsal)
    if as_json:
        print_json({"summary": summary(found), "prompts": [{**asdict(c), "changes": c.changes} for c in found]})
    else:
        render.show(out, render.comparison(found), render.summary(summary(found)))


@policy_app.command("eval")
def evaluate(
    probes: Annotated[list[Path], typer.Argument(help="Files of probes, or folders of them.")],
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Run probes: requests with what their policy should do about them. Exits with 1 if one fails."""
    from deployments.offline.probes import run_probes
    from deployments.offline.rehearsal import Rehearsal

    rehearsal = Rehearsal(load_serve_config(config).settings)
    verdicts = {str(file): run_probes(file, rehearsal) for file in _files(probes)}
    failed = sum(bool(verdict.failures) for found in verdicts.values() for verdict in found)
    if as_json:
        print_json(
            {
                "passed": not failed,
                "files": {file: {v.probe: list(v.failures) for v in found} for file, found in verdicts.items()},
            }
        )
    else:
        for file, found in verdicts.items():
            for verdict in found:
                say(f"{'FAILED' if verdict.failures else 'ok    '} {file}: {verdict.probe}")
                for failure in verdict.failures:
                    complain(f"         {failure}")
        say(f"{sum(map(len, verdicts.values()))} probes, {failed} failed")
    if failed:
        raise typer.Exit(1)


@policy_app.command()
def graph(
    recipe: Annotated[str, typer.Argument(help="A recipe of the policy.")],
    policy: PolicyName = "balanced",
    request: RequestBody = "{}",
    config: Config = DEFAULT_CONFIG,
) -> None:
    """The plan of a recipe as a Mermaid flow chart."""
    from deployments.cli.mermaid import mermaid
    from deployments.offline.rehearsal import Rehearsal

    rehearsal = Rehearsal(load_serve_config(config).settings)
    plan = rehearsal.plan(rehearsal.policy(policy), recipe, {"prompt": "a picture", **_body(request)})
    say(mermaid(plan).rstrip())


def _files(paths: list[Path]) -> list[Path]:
    """Files, and the policy or probe files of folders."""
    from policies.store.folder import policy_files

    files = [file for path in paths for file in (policy_files(path) if path.is_dir() else [path])]
    if not files:
        raise errors.PolicyError(f"no .yaml file in {', '.join(map(str, paths))}")
    return files


def _body(text: str) -> dict[str, Any]:
    try:
        body = json.loads(text)
    except ValueError as error:
        raise errors.RequestError(f"--request: not valid JSON: {error}") from None
    if not isinstance(body, dict):
        raise errors.RequestError('--request: should be an object, such as {"tags": ["print"]}')
    return body
