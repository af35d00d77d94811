"""`triptych models export`: what it writes can be served, and what it cannot do is refused first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from deployments.cli.main import app
from models import load_catalogue, load_engine
from router.errors import RequestError
from router.types import Picture, Step


def run(*words: str) -> Any:
    return CliRunner().invoke(app, ["models", *words], catch_exceptions=False)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("export", "sd1", "--to", "graphs"), "no model 'sd1'; did you mean 'sd15'"),
        (("export", "alignment", "--to", "graphs"), "family 'verifier' is not exported"),
        (("export", "sd15", "--to", "graphs", "--precision", "fp23"), "no precision 'fp23'; did you mean 'fp32'"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_loaded(
    words: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unknown models, families and precisions are refused, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError) as refused:
        run(*words)
    assert said in refused.value.message
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_what_is_exported_can_be_served_by_the_line_that_is_printed(tmp_path: Path) -> None:
    """The command tells what it wrote, and the entry for the serve config that it prints draws a picture."""
    done = run("export", "sd15", "--to", str(tmp_path / "graphs"))
    assert done.exit_code == 0, done.output
    assert "vae/vae_decoder" in done.stdout and "off torch by" in done.stdout
    entry = yaml.safe_load(done.stdout[done.stdout.rindex("  sd15:") :])
    card = load_catalogue(entry)["sd15"]
    made = load_engine(card, threads=1).run(Step("1", "generate", "sd15", (), "image", {"prompt": "a red circle"}))
    assert isinstance(made.value, Picture)
    again = run("export", "sd15", "--to", str(tmp_path / "int8"), "--precision", "int8", "--json")
    graphs = {one["part"]: one for one in json.loads(again.stdout)["graphs"]}
    assert set(graphs) == {"text_encoder", "unet", "vae/vae_encoder", "vae/vae_decoder"}
    assert graphs["unet"]["statistics"]["operators"]["MatMulInteger"] > 0
