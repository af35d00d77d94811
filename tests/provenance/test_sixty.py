"""Sixty files of every kind of recipe, in PNG, JPEG and WebP, made and made again on the shipped weights."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from deployments.settings import DEFAULT_CONFIG
from models.provenance import read_metadata
from tests.golden.requests import PICTURES, pictures

LEFT_OUT = ("unipc", "average")
CHECKED = """
version: 1
name: {name}
recipes:
  first:  {{generate: {{model: sd15, steps: 1}}}}
  better: {{generate: {{model: sdxl-turbo}}}}
  sought: {{best_of: {{n: auto, of: [better, first], scorer: alignment, quality_per_s: 0}}}}
objective: {{minimise: cost_usd}}
rules: [{{name: start small, when: {{not: {{tag: never}}}}, prefer: [first]}}]
verify: {{scorer: alignment, accept_above: 1.0, escalate_to: [{then}]}}
"""
"""Policies whose first picture is never good enough."""

FORMATS = {"png": {}, "webp": {"output_compression": 80}, "jpeg": {}}


def requests() -> list[dict[str, Any]]:
    """Twenty, of which the last two are escalated to another recipe, and to a search."""
    asked = [{**body, "model": "golden"} for body in pictures() if body["recipe"] not in LEFT_OUT]
    text = "two small green stars below a large red ring"
    return [
        *asked,
        *({"prompt": text, "seed": seed, "model": f"to-{name}"} for seed, name in ((5, "better"), (6, "sought"))),
    ]


def config_in(folder: Path) -> Path:
    """The shipped config with these policies."""
    (folder / "policies").mkdir()
    (folder / "policies" / "golden.yaml").write_text(PICTURES, encoding="utf-8")
    for then in ("better", "sought"):
        (folder / "policies" / f"to-{then}.yaml").write_text(CHECKED.format(name=f"to-{then}", then=then), "utf-8")
    document = yaml.safe_load(DEFAULT_CONFIG.read_text(encoding="utf-8"))
    args = document["applications"][0]["args"]
    args["policies"] = {"directory": str(folder / "policies"), "default": "golden"}
    args["feedback"] = {"log": False}
    args["aliases"] = {}
    file = folder / "serve.yaml"
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    return file


@pytest.mark.slow
@pytest.mark.shipped_weights
async def test_sixty_files_are_made_again(triptych: Callable[..., Any], tmp_path: Path) -> None:
    """PNG comes back with identical pixels, JPEG and WebP at a lossy quality within what their codec loses, whatever
    the recipe: alone, in chains and fusions, enlarged and in tiles, by a search, and after a check that failed."""
    import asyncio

    from deployments.cli.sources import LocalSource

    config, console = config_in(tmp_path), Console(quiet=True)
    made_by, files = LocalSource(config), []
    for number, body in enumerate(requests()):
        for format, more in FORMATS.items():
            limits = {"response_format": "b64_json", "output_format": format}
            answer = await made_by.generate({**body, **limits, **more}, console)
            files.append(tmp_path / f"{number:02}.{format}")
            files[-1].write_bytes(base64.b64decode(answer["data"][0]["b64_json"]))
    assert len(files) == 60
    recipes = Counter(read_metadata(file.read_bytes())["recipe"] for file in files)
    assert len(recipes) == 20 and set(recipes.values()) == {3}, recipes
    code, out, err = await asyncio.to_thread(triptych, "replay", *files, "-c", config, "--json")
    report = json.loads(out)
    (tmp_path / "report.json").write_text(out)
    wrong = [one for one in report["files"] if one["verdict"] not in ("identical", "within codec")]
    assert (code, wrong, report["same"]) == (0, [], 60), err
    assert all(one["verdict"] == "identical" for one in report["files"] if one["file"].endswith(".png"))
    assert not any(one["changed"] for one in report["files"])
    counted = Counter((Path(one["file"]).suffix, one["verdict"]) for one in report["files"])
    print(dict(counted), max(one["comparison"]["mean"] for one in report["files"]))
