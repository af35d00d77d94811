"""`triptych models export` and `tune`: what they write can be served, and what they cannot do is refused first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from deployments.assembly import catalogue_of
from deployments.cli.main import app
from deployments.settings import DEFAULT_CONFIG, load_serve_config
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
        (("tune", "sd1", "--prompts", "prompts.txt"), "no model 'sd1'; did you mean 'sd15'"),
        (("tune", "alignment", "--prompts", "prompts.txt"), "does not draw from a prompt"),
        (("tune", "sdxl-refiner", "--prompts", "prompts.txt"), "does not draw from a prompt"),
        (("tune", "sd15", "--prompts", "nowhere.txt"), "cannot be read"),
        (("tune", "sd15", "--prompts", "empty.txt"), "has no prompt"),
        (("tune", "sd15", "--prompts", "prompts.txt", "--latency", "2"), "such as 2s or 800ms"),
        (("tune", "sd15", "--prompts", "prompts.txt", "--latency", "0s"), "such as 2s or 800ms"),
        (("tune", "sd15", "--prompts", "prompts.txt", "--scorer", "sdxl"), "a scorer has to judge"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_loaded(
    words: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unknown models, wrong roles, prompts that are not there and bad settings are refused, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    Path("prompts.txt").write_text("a red circle\n")
    Path("empty.txt").write_text("\n \n")
    with pytest.raises(RequestError) as refused:
        run(*words)
    assert said in refused.value.message
    assert sorted(file.name for file in tmp_path.iterdir()) == ["empty.txt", "prompts.txt"]


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


@pytest.mark.slow
def test_a_sweep_writes_an_entry_that_loads_and_goes_on(tmp_path: Path) -> None:
    """A short sweep of the embedded SD1.5 prints a front and writes plot and YAML; run again, it goes on."""
    (tmp_path / "prompts.txt").write_text("a red circle\na blue square\ntwo green stars\na red ring\na green square\n")
    words = ("tune", "sd15", "--prompts", str(tmp_path / "prompts.txt"), "--into", str(tmp_path / "found"))
    done = run(*words, "--minutes", "0.5", "--within", "0.5", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["chosen"]["seconds"] <= found["present"]["seconds"]
    assert (tmp_path / "found" / "front.svg").is_file()
    looks = (tmp_path / "found" / "looks.jsonl").read_text()
    again = run(*words, "--minutes", "0.2", "--within", "0.5")
    assert again.exit_code == 0, again.output
    assert (tmp_path / "found" / "looks.jsonl").read_text().startswith(looks)
    entry = yaml.safe_load((tmp_path / "found" / "tuned.yaml").read_text())["models"]
    embedded = load_serve_config(DEFAULT_CONFIG).settings
    changed = embedded.model_validate({**embedded.model_dump(exclude_defaults=True), "models": entry})
    assert catalogue_of(changed)["sd15"].family == "sd15"
