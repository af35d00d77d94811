"""What the commands of `triptych` share: two consoles, JSON on stdout, and the options that several of them have."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

# Prompts, names of recipes and messages are data: `[bold]` and `:x:` in them are letters, not markup or emoji.
out = Console(markup=False, emoji=False, highlight=False)
err = Console(stderr=True, markup=False, emoji=False, highlight=False)

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
