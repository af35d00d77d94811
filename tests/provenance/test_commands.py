"""`triptych inspect` and `triptych replay`, as a shell would call them, on the tiny weights in this process."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin
from rich.console import Console

from deployments.api.wire.files import encoded
from deployments.cli.pictures.inspect import lines
from deployments.cli.pictures.replay import changes
from deployments.cli.sources import LocalSource
from models.provenance import encode_image, read_metadata
from models.provenance.credentials import Credentials
from tests.deployments.entrance.test_answers import ROUTE, picture, wire
from tests.provenance.conftest import Issued

PIXELS = np.full((16, 16, 3), 90, np.uint8)
QUIET = """
version: 1
name: {name}
recipes: {{one: {{generate: {{model: sd15, steps: 2}}}}}}
objective: {{minimise: latency_s}}
provenance: {level}
"""
KINDS = {"one": "png", "latents": "webp", "tiled": "jpeg", "best": "png", "together": "jpeg"}
"""Recipes of `lab`, and the format of the file of each."""

KEYS = (
    "prompt", "negative_prompt", "seed", "recipe", "policy", "plan", "models", "steps", "output", "shortened", "replay",
    "id", "kind", "model", "inputs", "settings", "facts", "format", "sdxl", "generator",
)  # fmt: skip

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def config(tiny_settings: dict[str, Any], issued: Issued, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Serve config on tiny weights that signs, with policies that say less."""
    folder = tmp_path_factory.mktemp("replay")
    policies = Path(tiny_settings["policies"]["directory"])
    for level in ("mark", "none"):
        (policies / f"says-{level}.yaml").write_text(QUIET.format(name=f"says-{level}", level=level), "utf-8")
    signing = {"c2pa": {"certificate": str(issued.certificate), "key": str(issued.key)}}
    args = {**tiny_settings, "provenance": signing, "feedback": {"log": False}}
    application = {"name": "triptych", "import_path": "deployments.app:build", "args": args}
    file = folder / "serve.yaml"
    file.write_text(yaml.safe_dump({"applications": [application]}), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
async def made(config: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A signed file of each kind, and one that says less of each level."""
    folder, files = tmp_path_factory.mktemp("made"), {}
    source, console = LocalSource(config), Console(quiet=True)
    asked = {name: {"model": "lab", "recipe": name, "output_format": format} for name, format in KINDS.items()}
    asked |= {level: {"model": f"says-{level}", "output_format": "webp"} for level in ("mark", "none")}
    for name, body in asked.items():
        answer = await source.generate({"prompt": "a red circle", "seed": 7, "negative_prompt": "", **body}, console)
        files[name] = folder / f"{name}.{body['output_format']}"
        files[name].write_bytes(base64.b64decode(answer["data"][0]["b64_json"]))
        told = [note for note in answer["x_triptych"]["notes"] if note.startswith("provenance")]
        assert bool(told) == (name in ("mark", "none")), name
        assert answer["x_triptych"]["provenance"] == (name if told else "full")
    return files


def test_every_kind_is_made_again(triptych: Run, config: Path, made: dict[str, Path], tmp_path: Path) -> None:
    """One model, a chain, tiles, a fusion and a denoise by two: the same pixels, or within what JPEG loses; nothing has
    changed, and `--keep` has the pictures."""
    files = [made[name] for name in KINDS]
    code, out, err = triptych("replay", *files, "-c", config, "--json", "--keep", tmp_path)
    assert code == 0, err + out
    report = json.loads(out)
    assert (report["same"], report["of"]) == (5, 5)
    verdicts = {Path(one["file"]).stem: one["verdict"] for one in report["files"]}
    assert verdicts == {n: "within codec" if f == "jpeg" else "identical" for n, f in KINDS.items()}
    assert [one["changed"] for one in report["files"]] == [[]] * 5
    assert {file.name for file in tmp_path.glob("*.png")} == {f"{name}.replayed.png" for name in KINDS}


def test_keep_overwrites_nothing(triptych: Run, config: Path, made: dict[str, Path], tmp_path: Path) -> None:
    """Also in the folder of the files themselves, the file stays as it is; a second run says what is in the way."""
    file = tmp_path / "one.png"
    file.write_bytes(made["one"].read_bytes())
    code, out, err = triptych("replay", file, "-c", config, "--keep", tmp_path)
    assert code == 0, err + out
    assert file.read_bytes() == made["one"].read_bytes() and (tmp_path / "one.replayed.png").is_file()
    code, out, _ = triptych("replay", file, "-c", config, "--keep", tmp_path)
    assert code == 2 and "one.replayed.png is there already" in " ".join(out.split())


def test_a_file_says_all_that_it_should(made: dict[str, Path]) -> None:
    """Every step that ran, with scheduler, steps, guidance, seed and size; models with revisions; policy and digest;
    no empty shell of what there is not."""
    metadata = read_metadata(made["latents"].read_bytes())
    assert [step["model"] for step in metadata["steps"]] == ["sdxl", "sdxl-refiner"]
    for step in metadata["steps"]:
        assert {"steps", "guidance_scale", "scheduler", "seed", "width", "height"} <= step["settings"].keys()
        assert step["facts"]["scheduler"].endswith("Scheduler")
        assert not {"prompt", "device", "batch", "peak_memory_gb"} & {*step["settings"], *step["facts"]}
    assert metadata["models"] == {"sdxl": "tiny", "sdxl-refiner": "tiny"}
    name, _, digest = metadata["policy"].partition("@")
    assert (name, len(digest), metadata["recipe"]) == ("lab", 12, "latents")
    assert {"styles", "loras", "style"} & metadata.keys() == set()


def test_a_policy_can_have_files_say_less(triptych: Run, config: Path, made: dict[str, Path]) -> None:
    """With `mark`, the AI mark and a signed manifest are all that is there; with `none`, nothing is, and no manifest.
    Neither can be replayed, which is said."""
    code, out, _ = triptych("inspect", made["mark"], made["none"], "--json")
    mark, none = json.loads(out)
    assert code == 0
    assert (mark["ai_mark"], mark["triptych"], mark["texts"], mark["c2pa"]["state"]) == (True, {}, {}, "Valid")
    assert mark["c2pa"]["metadata"] == {}
    assert (none["ai_mark"], none["triptych"], none["texts"], none["c2pa"]) == (False, {}, {}, None)
    assert b"red circle" not in made["mark"].read_bytes() + made["none"].read_bytes()
    code, out, _ = triptych("replay", made["mark"], "-c", config)
    assert code == 2 and "it says nothing but that a model made it" in out
    code, out, _ = triptych("replay", made["none"], "-c", config)
    assert code == 2 and "it says nothing, so it cannot be made again" in out


def test_inspect_shows_everything_for_people(triptych: Run, made: dict[str, Path], issued: Issued) -> None:
    """The mark, prompts, steps, models, who signed: in words, for the file of a chain."""
    code, out, _ = triptych("inspect", made["latents"], "--trusted", issued.root)
    assert code == 0
    for words in (
        "trainedAlgorithmicMedia", "a red circle", "lab@", "sdxl at tiny", "refine by sdxl-refiner after", "from 0.6",
        "DiscreteScheduler", "Trusted", "Signer (Studio of the test)", "triptych replay makes it again",
    ):  # fmt: skip
        assert words in out, words


def test_inspect_reads_other_programs(triptych: Run, tmp_path: Path) -> None:
    """A file of A1111 is told by its own words, one of nobody says so, and escape sequences are not obeyed."""
    info = PngImagePlugin.PngInfo()
    line = "a cat \x1b[2J\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Model: v1-5"
    info.add_text("parameters", line)
    Image.fromarray(PIXELS).save(tmp_path / "cat.png", pnginfo=info)
    (tmp_path / "bare.png").write_bytes(encode_image(PIXELS))
    code, out, _ = triptych("inspect", tmp_path / "cat.png", tmp_path / "bare.png")
    assert code == 0
    for words in ("AUTOMATIC1111", "\\x1b[2J", "dog", "Euler a", "v1-5", "says nothing of how it was made"):
        assert words in out, words
    assert "\x1b" not in out


def test_files_that_cannot_be_read_are_told_one_by_one(
    triptych: Run, config: Path, made: dict[str, Path], tmp_path: Path
):
    """One that is missing, one that is no picture, one that is cut off: each by its name, the others are still shown,
    and the exit code is 2."""
    (tmp_path / "no.png").write_bytes(b"GIF89a nothing")
    (tmp_path / "half.png").write_bytes(made["one"].read_bytes()[:3000])
    wrong = [tmp_path / "none.png", tmp_path / "no.png", tmp_path / "half.png"]
    for command, more in (("inspect", ()), ("replay", ("-c", config))):
        code, out, err = triptych(command, *wrong, made["one"], *more, "--json")
        assert code == 2, err
        report = json.loads(out)
        told = [str(one.get("error")) for one in (report if command == "inspect" else report["files"])]
        assert "no such file" in told[0] and "not a PNG" in told[1] and "damaged or cut off" in told[2]
        assert all(str(file) in error for file, error in zip(wrong, told[:3], strict=True))
        assert told[3] == "None"


def test_a_picture_that_differs_is_found(triptych: Run, config: Path, made: dict[str, Path], tmp_path: Path) -> None:
    """A file whose pixels were painted over, and one whose seed is another: different, with exit code 1."""
    metadata, painted = read_metadata(made["one"].read_bytes()), np.asarray(Image.open(made["one"])).copy()
    painted[2:6, 2:6] ^= 255
    (tmp_path / "painted.png").write_bytes(encode_image(painted, "png", metadata))
    code, out, _ = triptych("replay", tmp_path / "painted.png", "-c", config)
    assert code == 1 and out.startswith("different: ") and "of the pixels differ" in out
    metadata["replay"]["seed"] = 8
    (tmp_path / "seed.png").write_bytes(encode_image(painted, "png", metadata))
    code, out, _ = triptych("replay", tmp_path / "seed.png", made["one"], "-c", config)
    assert code == 1 and "1 of 2 are the same" in out and "changed since: step" in out and "seed 8, not 7" in out


def test_a_file_cannot_ask_for_more_than_a_picture(
    triptych: Run, made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a file that names a webhook, a user, a hundred pictures and a class of its own, only what is drawn is sent."""
    metadata = read_metadata(made["one"].read_bytes())
    metadata["replay"] |= {
        "webhook": "http://10.0.0.1/",
        "user": "x",
        "n": 10,
        "priority": "interactive",
        "stream": True,
    }
    file = tmp_path / "greedy.png"
    file.write_bytes(encode_image(PIXELS, "png", metadata))
    sent = []

    async def post(self: Any, url: str, json: Any) -> httpx.Response:
        sent.append(json)
        return httpx.Response(422, json={"error": {"message": "no recipe", "code": "no_recipe"}})

    monkeypatch.setattr(httpx.AsyncClient, "post", post)
    code, out, _ = triptych("replay", file, "--url", "http://127.0.0.1:9")
    assert code == 3 and "failed: " in out and "no recipe" in out
    (body,) = sent
    assert set(body) == {
        "prompt", "model", "recipe", "seed", "size", "n", "output_format", "deterministic",
    }  # fmt: skip
    assert (body["n"], body["deterministic"]) == (1, True)


def test_what_changed_since_is_told_in_words() -> None:
    """Another policy, other weights, another plan with steps that are new, gone or set otherwise."""
    recorded = {
        "policy": "a@1", "plan": "p", "models": {"sdxl": "old"},
        "steps": [{"id": "1", "settings": {"steps": 20}}, {"id": "2", "settings": {}}],
    }  # fmt: skip
    steps = [
        {"id": "1", "model": "sdxl", "settings": {"steps": 30}, "facts": {"revision": "new"}},
        {"id": "3", "model": None, "settings": {}, "facts": {}},
    ]
    report = {"policy": "a", "policy_digest": "2", "pictures": [{"plan_digest": "q", "steps": steps}]}
    assert list(changes(recorded, report)) == [
        "policy a@2, not a@1",
        "weights of sdxl at new, not old",
        "plan q, not p",
        "step 1: steps 30, not 20",
        "step 3 is new",
        "step 2 is gone",
    ]


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*KEYS]), inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=150, deadline=None)
@given(metadata=st.dictionaries(st.sampled_from([*KEYS]), ODD, max_size=8))
def test_metadata_of_any_shape_are_shown_and_compared(metadata: dict[str, Any]) -> None:
    """What stands in our own places of a file may have been written by anyone: it is shown, and nothing crashes."""
    report = {"file": "x", "format": "png", "size": "1x1", "frames": 1, "bytes": 1, "ai_mark": True, "source_type": "",
              "triptych": metadata, "origin": None, "texts": {}, "c2pa": None}  # fmt: skip
    assert next(lines(report)).startswith("x: PNG")
    step = {"id": "1", "model": "sdxl", "settings": {"steps": 3}, "facts": {"revision": "new"}}
    made = {"policy": "a", "policy_digest": "2", "pictures": [{"plan_digest": "q", "steps": [step]}]}
    assert "plan q, not" in " ".join(changes(metadata, made))


def test_a_certificate_that_cannot_sign_stops_the_start(triptych: Run, config: Path, tmp_path: Path) -> None:
    """A wrong file in the config is an error of the config, by its key, before anything is drawn."""
    document = yaml.safe_load(config.read_text())
    document["applications"][0]["args"]["provenance"]["c2pa"]["key"] = str(tmp_path / "none.pem")
    wrong = tmp_path / "serve.yaml"
    wrong.write_text(yaml.safe_dump(document))
    code, _, err = triptych("generate", "a red circle", "-o", tmp_path / "x.png", "-c", wrong)
    assert code == 2 and "provenance.c2pa" in err and "none.pem" in err


def test_signed_files_differ_only_in_their_manifest(issued: Issued) -> None:
    """Two signatures of one file have other bytes, and the same pixels and metadata."""
    credentials, file = Credentials(issued.certificate, issued.key), encode_image(PIXELS, "png", {"prompt": "x"})
    one, other = (credentials.sign(file, "png", {"prompt": "x"}) for _ in range(2))
    assert one != other and read_metadata(one) == read_metadata(other)
    assert (np.asarray(Image.open(io.BytesIO(one))) == np.asarray(Image.open(io.BytesIO(other)))).all()


def test_steps_stand_in_the_order_of_the_plan() -> None:
    """Whichever branch of a fusion ends first, the file is the same."""
    made = picture()
    late = replace(made, traces=made.traces[::-1])
    assert len(made.traces) > 1
    assert encoded(made, ROUTE, wire()) == encoded(late, ROUTE, wire())
