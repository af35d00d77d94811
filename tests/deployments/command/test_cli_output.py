"""What the command prints: readable at 80 columns, data as it is, one JSON document with `--json`, known exit codes."""

from __future__ import annotations

import io
import json
import re
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Progress

from deployments.api.errors import envelope
from deployments.cli import console, tables
from deployments.cli import main as cli
from deployments.cli.sources import Count, failure
from deployments.settings import DEFAULT_CONFIG
from router import errors

ROOT = Path(__file__).resolve().parents[3]
PROBES = ROOT / "policies" / "presets" / "probes"


def page(part: Any, width: int = 80) -> str:
    """What a part looks like on a terminal of that width, by the settings of the command's own console."""
    written = io.StringIO()
    Console(file=written, width=width, markup=False, emoji=False, highlight=False).print(part)
    return written.getvalue()


def report(**changes: Any) -> dict[str, Any]:
    """An `x_triptych` object of a policy with three recipes."""
    quality = {"mean": 0.9, "std": 0.1, "basis": "learned"}
    estimate = {"quality": quality, "work_s": 0.3, "queue_s": 0.0, "latency_s": 0.3, "cost_usd": 1.1e-6}
    why = "rule 'large by default' allows only enlarged here (not any of (tag thumbnail, tag campaign))"
    return {
        "recipe": "scorer:x:", "policy": "mine", "warnings": [], "reasons": [], "plan": {"notes": []}, "signals": {},
        "estimates": dict.fromkeys(("scorer:x:", "[bold]plain", "out-a", "out-b"), estimate),
        "ranking": [{"recipe": "scorer:x:", "utility": -1e-6}, {"recipe": "[bold]plain", "utility": -3.5e-6}],
        "rejected": [{"recipe": name, "gate": "rule", "reason": why} for name in ("out-a", "out-b")],
    } | changes  # fmt: skip


def test_the_catalogue_fits_80_columns(triptych: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """`models list` names every model whole, one line each, and where its weights are."""
    from deployments.assembly import catalogue_of
    from deployments.settings import load_serve_config

    catalogue = catalogue_of(load_serve_config(DEFAULT_CONFIG).settings)
    lines = page(tables.models([catalogue[name] for name in catalogue.ids()])).splitlines()
    assert max(map(len, lines)) <= 80
    for name in catalogue.ids():
        one, other = (line for line in lines if line.split() and line.split()[0] == name)
        assert "Apache-2.0" in one and "models/embedded/weights/" in other
    assert "…" not in "".join(lines)


def test_names_are_printed_as_they_are() -> None:
    """`:x:` is no emoji and `[bold]` no markup, on the command's consoles and in its tables."""
    text = page(tables.decision(report()))
    assert "scorer:x:" in text and "[bold]plain" in text and "❌" not in text
    for one in (console.out, console.err):
        assert (one._markup, one._emoji) == (False, False)


def test_a_small_utility_is_not_minus_nothing() -> None:
    """A utility of some millionths of a dollar is told with its digits."""
    text = page(tables.decision(report()))
    assert "utility -3.5e-06" in text and "-0.000" not in text


def test_a_reason_is_told_once_below_the_table() -> None:
    """Recipes that one rule excludes share its line; the table has only the gate, so its rows are not broken."""
    text = page(tables.decision(report()))
    assert text.count("large by default") == 1
    assert "out (rule): out-a, out-b: rule 'large by default'" in " ".join(text.split())
    assert sum(line.startswith("out-") for line in text.splitlines()) == 2


def test_waiting_is_shown_where_something_waits() -> None:
    """The column `wait` is there if a recipe waits, and left out if none does."""
    busy = report()
    busy["estimates"] = {name: one | {"queue_s": 2.0} for name, one in busy["estimates"].items()}
    assert "wait" in page(tables.decision(busy)) and "2.00 s" in page(tables.decision(busy))
    assert "wait" not in page(tables.decision(report()))


def test_progress_without_a_known_end_counts_nothing() -> None:
    """No `0/None`: a count is shown where the number of steps is known."""
    bars = Progress()
    unknown, known = bars.add_task("loading", total=None), bars.add_task("drawing", total=10, completed=3)
    told = [Count().render(bars.tasks[task]).plain for task in (unknown, known)]
    assert told == ["", "3/10"]


def test_the_version_is_told(triptych: Any) -> None:
    """`triptych --version` prints the installed version and exits with 0."""
    assert triptych("--version") == (0, f"triptych {version('triptych')}\n", "")


@pytest.mark.parametrize(
    ("args", "code", "kind"),
    [
        (["route", " "], 2, "invalid_value"),
        (["route", "a red circle", "--max-cost-usd", "0"], 3, "no_recipe"),
        (["route", "a red circle", "--url", "http://127.0.0.1:9"], 4, "model_not_loaded"),
        (["route", "a red circle", "--bogus"], 2, "invalid_request"),
        (["route"], 2, "invalid_request"),
        (["router", "train", "none.tsv", "--out", "x"], 2, "invalid_artifact"),
        (["models", "list", "--config", "/nowhere.yaml"], 2, "invalid_config"),
    ],
)
def test_with_json_an_error_is_the_envelope_of_http(triptych: Any, args: list[str], code: int, kind: str) -> None:
    """stdout has `{"error": {message, type, param, code}}`, stderr nothing, and the exit code is the documented one."""
    got, out, err = triptych(*args, "--json")
    error = json.loads(out)["error"]
    assert (got, error["code"], err) == (code, kind, "")
    assert {"message", "type", "param", "code"} <= set(error) and error["message"]


def test_an_error_of_a_server_keeps_its_code_and_field() -> None:
    """What came as an envelope leaves as the same envelope."""
    told = envelope(errors.RequestError("steps: it must be at least 1", "steps", "invalid_value"))
    assert envelope(failure(400, told["error"])) == told


def test_the_documented_exit_codes_are_those_there_are() -> None:
    """The table of docs/operations.md has exactly the codes of the command with their meanings, and so has the help."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    section = text.partition("exit codes\n")[2].partition("\n#")[0]
    found = {
        int(code): said.replace("`", "") for code, said in re.findall(r"^\| (\d+) \| (.+) \|$", section, re.MULTILINE)
    }
    assert found == cli.MEANINGS
    assert set(cli.EXIT_CODES.values()) <= set(cli.MEANINGS)
    assert all(f"{code} {meaning}" in cli.EXAMPLES for code, meaning in cli.MEANINGS.items())


def test_the_examples_of_the_help_are_commands_that_there_are() -> None:
    """Every example of `triptych --help` is understood."""
    import typer

    command: Any = typer.main.get_command(cli.app)
    lines = [line for line in cli.EXAMPLES.splitlines() if line.startswith("triptych ")]
    assert len(lines) == 3
    for line in lines:
        words, inner, context = shlex.split(line)[1:], command, None
        while hasattr(inner, "commands"):
            name, *words = words
            context = inner.make_context("triptych", [name, *words], parent=context)
            inner = inner.commands[name]
        inner.make_context(name, words, parent=context)


def test_probes_of_a_folder_are_run(triptych: Any, tmp_path: Path) -> None:
    """`policy eval FOLDER` runs every .yaml file in it; a folder without any is refused."""
    code, out, err = triptych("policy", "eval", PROBES, "--json")
    assert code == 0, err
    assert sorted(Path(file).name for file in json.loads(out)["files"]) == sorted(f.name for f in PROBES.glob("*.yaml"))
    code, _, err = triptych("policy", "eval", tmp_path)
    assert code == 2 and "no .yaml file" in err


def commands_shown(text: str) -> list[str]:
    """The indented lines of the banner."""
    return [line.strip() for line in text.splitlines() if line.startswith("  ")]


def test_the_banner_shows_a_command_that_can_be_called_from_anywhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """However the command was called, what the banner shows first is a program that exists, with `generate`."""
    script = tmp_path / "a b" / "triptych"
    script.parent.mkdir()
    script.touch()
    monkeypatch.chdir(tmp_path)
    for called, shown in (("a b/triptych", str(script)), (str(ROOT / "deployments" / "cli" / "__main__.py"), None)):
        monkeypatch.setattr("sys.argv", [called])
        words = shlex.split(commands_shown(tables.welcome("http://127.0.0.1:8000"))[0])
        assert words[0] == (shown or sys.executable)
        assert "generate" in words and words[words.index("-o") + 1] == "circle.png"


@pytest.mark.ray
def test_the_first_command_of_the_banner_leaves_a_picture(
    ray_app: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Both ways that the banner shows, run by a shell as they stand, write circle.png."""
    monkeypatch.setattr("sys.argv", [str(ROOT / "deployments" / "cli" / "__main__.py")])
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for number, line in enumerate(commands_shown(tables.welcome(ray_app.url))[:2]):
        folder = tmp_path / str(number)
        folder.mkdir()
        done = subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert (folder / "circle.png").read_bytes().startswith(b"\x89PNG")
