"""`triptych models profile`: every part is there, the parts are the whole, and what it cannot do is refused first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from deployments.cli.main import app
from models import load_card
from models.profiling.parts import Span
from models.profiling.report import chrome_trace, rows_of, sentence
from router.errors import RequestError


def run(*words: str) -> Any:
    return CliRunner().invoke(app, ["models", "profile", *words], catch_exceptions=False)


def test_a_profile_names_every_part_and_leaves_nothing_out(tmp_path: Path) -> None:
    """Text encoder, each call of the network, scheduler and VAE are timed and sum up to the run; files are written."""
    trace, plot = tmp_path / "trace.json", tmp_path / "plot.svg"
    done = run("sd15", "--steps", "3", "--batch", "2", "--trace", str(trace), "--plot", str(plot), "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    parts = {row["part"]: row for row in found["parts"]}
    assert list(parts) == ["text_encoder", "unet", "scheduler", "vae decode", "the rest"]
    assert parts["unet"]["calls"] == parts["scheduler"]["calls"] == 3
    assert sum(row["share"] for row in parts.values()) == pytest.approx(1.0, abs=0.02)
    assert found["device"] == "cpu" and found["batch"] == 2 and found["sentence"].startswith("Of ")
    assert {"text_s", "denoise_s", "decode_s"} <= set(found["facts"])
    events = [event for event in json.loads(trace.read_text())["traceEvents"] if event["ph"] == "X"]
    assert [event["name"] for event in events].count("unet") == 3
    assert "<svg" in plot.read_text()


def test_operators_have_calls_seconds_and_memory(tmp_path: Path) -> None:
    """`--operators` adds what torch's profiler says, the most expensive first, and the trace is its own; without
    `--json` all of it is a table."""
    trace = tmp_path / "trace.json"
    done = run("sd15", "--steps", "1", "--operators", "--trace", str(trace))
    assert done.exit_code == 0, done.output
    assert "aten::" in done.stdout and "MB" in done.stdout and "text_encoder" in done.stdout
    assert any(event.get("name", "").startswith("aten::") for event in json.loads(trace.read_text())["traceEvents"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("sd1",), "no model 'sd1'; did you mean 'sd15'"),
        (("alignment",), "judges pictures"),
        (("sd15", "--size", "big"), "write WIDTHxHEIGHT"),
        (("sd15", "--plot", "plot.bmp"), "must be .svg, .png or .pdf"),
        (("sd15", "--trace", "nowhere/trace.json"), "there is no folder"),
    ],
)
def test_what_cannot_be_profiled_is_said_before_anything_is_loaded(words: tuple[str, ...], said: str) -> None:
    """An unknown model, a scorer, a bad size, ending or folder is a `RequestError` in words."""
    with pytest.raises(RequestError) as refused:
        run(*words)
    assert said in refused.value.message


def test_a_model_that_is_drawn_elsewhere_is_profiled_there(tmp_path: Path) -> None:
    """Of a remote model nothing runs here that could be looked at, which is said with its server's name."""
    (tmp_path / "away.yaml").write_text(
        "id: away\nfamily: remote\nrole: base\nnative_size: [64, 64]\nseconds_per_step: 0.01\n"
        "source: {remote: {url: 'http://127.0.0.1:9/v1', model: m}}\n"
    )
    args = {"models": {"away": {"card": str(tmp_path / "away.yaml")}}}
    application = {"name": "triptych", "import_path": "deployments.app:build", "args": args}
    (tmp_path / "serve.yaml").write_text(json.dumps({"applications": [application]}))
    with pytest.raises(RequestError, match=r"'away' is drawn by 127.*profile it on that machine"):
        run("away", "-c", str(tmp_path / "serve.yaml"))


SPANS = [
    Span("run", 0.0, 1.0), Span("text_encoder", 0.0, 0.1), Span("unet", 0.1, 0.3), Span("scheduler", 0.4, 0.05),
    Span("unet", 0.45, 0.3), Span("vae decode", 0.75, 0.15),
]  # fmt: skip


def test_the_rows_and_the_sentence_say_where_the_time_goes() -> None:
    """Rows have calls, seconds and shares; the sentence names the largest part and only options that are not in use."""
    rows = {row.part: row for row in rows_of(SPANS)}
    assert rows["unet"].each_s == (0.3, 0.3) and rows["unet"].share == pytest.approx(0.6)
    assert rows["the rest"].seconds == pytest.approx(0.1)
    card = load_card("embedded/sd15")
    said = sentence(rows_of(SPANS), card, "cpu", "unet", 1)
    assert said.startswith("Of 1 s for a picture, unet takes 60% in 2 calls, then vae decode with 15%.")
    assert "`compile: regional`" in said and "first_block" not in said and "flash" not in said
    flux = load_card("embedded/flux")
    spans = [Span(span.part.replace("unet", "transformer"), span.begun_s, span.seconds) for span in SPANS]
    assert "first_block" in sentence(rows_of(spans), flux, "cuda:0", "transformer", 1)


def test_a_chrome_trace_is_in_microseconds() -> None:
    """Every span is a complete event of the trace."""
    events = chrome_trace(SPANS, "sd15")["traceEvents"][1:]
    assert [(event["name"], event["ts"], event["dur"]) for event in events][2] == ("unet", 1e5, 3e5)
