"""What the commands of `triptych` share: two consoles, JSON on stdout, exit codes, and options of several of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from deployments.settings import ConfigError
from deployments.store.errors import StoreError
from router import errors

# Prompts, names of recipes and messages are data: `[bold]` and `:x:` in them are letters, not markup or emoji.
out = Console(markup=False, emoji=False, highlight=False)
err = Console(stderr=True, markup=False, emoji=False, highlight=False)

EXIT_CODES: dict[type[BaseException], int] = {
    errors.RequestError: 2,
    errors.PolicyError: 2,
    errors.CatalogueError: 2,
    errors.ArtifactError: 2,
    ConfigError: 2,
    errors.NoRecipeError: 3,
    errors.PlanError: 3,
    errors.LoadError: 4,
    errors.OverloadedError: 4,
    errors.DeadlineError: 4,
    StoreError: 4,
    KeyboardInterrupt: 130,
}

Config = Annotated[
    Path,
    typer.Option(
        "--config", "-c", help="Serve config: which models, policies and predictor.", show_default="the embedded models"
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Prompt = Annotated[str, typer.Argument(help="What the picture should show.")]


def print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def say(line: str) -> None:
    """A line of the result, as it is."""
    out.print(line, highlight=False, soft_wrap=True, markup=False)


def complain(line: str) -> None:
    """A line about what is wrong."""
    err.print(line, style="red", highlight=False, soft_wrap=True, markup=False)


def exit_code(error: BaseException) -> int:
    """The exit code of a failure; 1 for whatever is not in the table."""
    return next((EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES), 1)
