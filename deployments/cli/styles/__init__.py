"""`triptych styles`: what pipelines can wear, and how to train one."""

from __future__ import annotations

import typer

from deployments.cli.styles.train import train

styles_app = typer.Typer(help="Train what pictures wear.", no_args_is_help=True)


@styles_app.callback()
def _group() -> None:
    """A group even with one command."""


styles_app.command()(train)
