"""The command `triptych`, called as a shell would call it, in this process and without Ray."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from models.provenance import read_metadata


@pytest.fixture(scope="module")
def config(tiny_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Serve config on tiny weights."""
    file = tmp_path_factory.mktemp("cli") / "serve.yaml"
    application = {"name": "triptych", "import_path": "deployments.app:build", "args": tiny_settings}
    file.write_text(yaml.safe_dump({"applications": [application]}), encoding="utf-8")
    return file


def test_generate_writes_a_picture_that_carries_its_origin(triptych, config: Path, tmp_path: Path) -> None:
    """`generate -o` writes a valid PNG whose metadata tell prompt, seed, recipe and model revisions."""
    file = tmp_path / "circle.png"
    code, out, err = triptych("generate", "a red circle", "-o", file, "--seed", 7, "-m", "sd15", "--config", config)
    assert code == 0, err
    assert Image.open(file).format == "PNG"
    metadata = read_metadata(file.read_bytes())
    assert (metadata["prompt"], metadata["seed"], metadata["recipe"]) == ("a red circle", 7, "sd15")
    assert metadata["models"] == {"sd15": "tiny"}  # the revision that the test's cards name
    assert "sd15" in out and str(file) in out


def test_the_same_seed_gives_the_same_file(triptych, config: Path, tmp_path: Path) -> None:
    """Two runs with the same seed write the same bytes; another seed writes others."""
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        code, _, err = triptych(
            "generate", "a red circle", "-o", tmp_path / f"{name}.png", "--seed", seed, "-m", "sd15", "-c", config
        )
        assert code == 0, err
    a, b, c = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert a == b != c


def test_several_pictures_get_numbered_files(triptych, config: Path, tmp_path: Path) -> None:
    """`-n 2` writes two numbered files, and --json names them with their seeds."""
    code, out, err = triptych(
        "generate",
        "a red circle",
        "-n",
        2,
        "-o",
        tmp_path / "x.webp",
        "--seed",
        3,
        "-m",
        "sd15",
        "-c",
        config,
        "--json",
    )
    assert code == 0, err
    report = json.loads(out)
    assert [Path(file).name for file in report["files"]] == ["x-1.webp", "x-2.webp"]
    assert report["x_triptych"]["seeds"] == [3, 4]
    assert all(Image.open(io.BytesIO(Path(file).read_bytes())).format == "WEBP" for file in report["files"])


def test_route_explains_every_recipe(triptych, config: Path) -> None:
    """`route` lists an estimate and a verdict for every recipe, and runs nothing."""
    code, out, err = triptych("route", "three small yellow stars above a large blue ring", "-c", config, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["recipe"] in report["estimates"]
    named = {entry["recipe"] for entry in report["ranking"]} | {entry["recipe"] for entry in report["rejected"]}
    assert set(report["estimates"]) <= named
    assert "pictures" not in report
    code, out, _ = triptych("route", "a red circle", "-c", config)
    assert code == 0 and "chosen" in out


def test_models_list_shows_the_catalogue(triptych, config: Path) -> None:
    """`models list` shows every card of the config, as a table and as JSON."""
    code, out, _ = triptych("models", "list", "-c", config, "--json")
    assert code == 0
    assert {"sd15", "sdxl", "sdxl-refiner", "flux"} <= {card["id"] for card in json.loads(out)}
    code, out, _ = triptych("models", "list", "-c", config)
    assert code == 0 and "flux" in out


def test_policy_validate_names_every_problem(triptych, config: Path, tmp_path: Path) -> None:
    """A broken policy exits with 2 and its problems, each with file, line and the nearest name."""
    good, broken = tmp_path / "good.yaml", tmp_path / "broken.yaml"
    good.write_text(
        "version: 1\nname: good\nrecipes:\n  a: {generate: {model: sd15}}\nobjective: {minimise: cost_usd}\n"
    )
    broken.write_text(
        "version: 1\nname: broken\nrecipes:\n  a: {generate: {model: fluks}}\nobjectiv: {minimise: cost_usd}\n"
    )
    code, out, err = triptych("policy", "validate", good, broken, "-c", config)
    assert code == 2
    assert "good.yaml: ok" in out
    assert "broken.yaml:4" in err and "did you mean 'flux'" in err
    assert "broken.yaml:5" in err and "did you mean 'objective'" in err
    assert triptych("policy", "validate", good, "-c", config)[0] == 0


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["generate", " ", "-o", "x.png"], 2, "empty"),
        (["generate", "x" * 40_000, "-o", "x.png"], 2, "32,000"),
        (["generate", "a red circle", "-n", "11", "-o", "x.png"], 2, "10"),
        (["generate", "a red circle", "--size", "65x64", "-m", "sd15", "-o", "x.png"], 3, "multiple"),
        (["generate", "a red circle", "-m", "fluks", "-o", "x.png"], 2, "did you mean 'flux'"),
        (["generate", "a red circle", "--guidance-scale", "nan", "-o", "x.png"], 2, "guidance_scale"),
        (["generate", "a red circle", "-o", "x.tiff"], 2, ".png"),
        (["generate", "a red circle", "-o", "nowhere/x.png"], 2, "no folder"),
        (["route", "a red circle", "--max-cost-usd", "0"], 3, "cost"),
        (["route", "a red circle", "--url", "http://127.0.0.1:9"], 4, "triptych serve"),
    ],
)
def test_bad_input_is_one_clear_message(
    triptych, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], code: int, says: str
) -> None:
    """Bad input exits with its documented code, says on stderr what is wrong, and writes nothing."""
    monkeypatch.chdir(tmp_path)
    got, out, err = triptych(*args, "--config", config)
    assert got == code, err
    assert says in " ".join(err.split())
    assert "Traceback" not in err
    assert out == ""
    assert not list(tmp_path.iterdir())


def test_a_missing_config_is_named(triptych) -> None:
    """A config that is not there exits with 2 and its path."""
    code, _, err = triptych("models", "list", "--config", "/nowhere/serve.yaml")
    assert code == 2 and "/nowhere/serve.yaml" in err


def test_edit_paints_over_a_picture_and_replay_does_it_again(triptych, config: Path, tmp_path: Path) -> None:
    """`edit` keeps every byte outside the mask, `generate --image` is the same request, and `replay` makes it again of
    the pictures that it is given; without them it says what it lacks."""
    given, mask, made, again = (tmp_path / f"{name}.png" for name in ("given", "mask", "made", "again"))
    noise = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(given)
    clear = Image.fromarray(noise).convert("RGBA")
    clear.putalpha(Image.fromarray(np.repeat([[0], [255]], 16, 0).repeat(32, 1).astype(np.uint8)))
    clear.save(mask)
    options = ("--mask", mask, "--seed", 3, "-m", "sd15", "-c", config)
    code, out, err = triptych("edit", given, "a green star", "-o", made, *options)
    assert code == 0, err
    assert np.array_equal(np.asarray(Image.open(made))[16:], noise[16:]) and "inpaint" in out
    code, _, err = triptych("generate", "a green star", "--image", given, "-o", again, *options)
    assert code == 0 and again.read_bytes() == made.read_bytes(), err
    code, out, _ = triptych("replay", made, "--given", given, "--given-mask", mask, "-c", config)
    assert code == 0 and "identical" in out, out
    code, out, _ = triptych("replay", made, "-c", config)
    assert code == 2 and "pass its file" in out, out
    code, _, err = triptych("edit", tmp_path / "none.png", "a star", "-c", config)
    assert code == 2 and "cannot be read" in err
