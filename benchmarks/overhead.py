"""Seconds per picture over HTTP against the bare diffusers pipeline, in one run: the price of routing and serving.

    python -m benchmarks.overhead [--quick] [--pictures 30]

Both make the same picture (same weights, settings and seed, one CPU thread), taking turns, so that whatever else the
machine does hits both alike. Printed and stored: medians, their difference, and the ratio of medians with a 95 %
bootstrap interval. Read the ratio together with the seconds: the embedded models take a fraction of a second, where a
fixed cost weighs heavily; the same milliseconds vanish beside a real checkpoint. `--quick` serves one model only.
"""

from __future__ import annotations

import base64
import io
import json
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image
from tqdm import tqdm

from benchmarks.command import is_full, parser, results
from deployments.assembly import catalogue_of
from deployments.cluster.local_cluster import free_port, start
from deployments.settings import DEFAULT_CONFIG, ServeConfig, load_serve_config
from models.engine.settings import arguments, read_call
from models.weights.loading import load_pipeline
from router.learning.intervals import resampled
from router.types import ModelCard, Step

RESULTS = Path(__file__).resolve().parent / "results"
PROMPT = "a red circle"
MODELS = ("sd15", "sdxl", "flux")
ALONE = "version: 1\nname: alone\nrecipes: {sd15: {generate: {model: sd15}}}\nobjective: {minimise: cost_usd}\n"

Make = Callable[[int], bytes]


def bare(card: ModelCard) -> Make:
    """A function that makes one picture with the bare pipeline and encodes it as PNG."""
    import torch

    pipe = load_pipeline(card)
    step = Step("bare", "generate", card.id, (), "image", {"prompt": PROMPT, "scheduler": card.scheduler})
    call = arguments(read_call(step, card), card, pipe)

    def make(seed: int) -> bytes:
        image = pipe(**call, generator=torch.Generator("cpu").manual_seed(seed)).images[0]
        file = io.BytesIO()
        image.save(file, "PNG")
        return file.getvalue()

    return make


def over_http(url: str, model: str) -> Make:
    """A function that makes one picture over HTTP."""
    client = httpx.Client(timeout=120)

    def make(seed: int) -> bytes:
        answer = client.post(f"{url}/v1/images/generations", json={"prompt": PROMPT, "model": model, "seed": seed})
        answer.raise_for_status()
        return base64.b64decode(answer.json()["data"][0]["b64_json"])

    return make


def measure(
    direct: Callable[[int], bytes], served: Callable[[int], bytes], pictures: int, label: str
) -> dict[str, Any]:
    """Alternate both, and compare them seed by seed."""
    for warm_up in range(2):
        direct(warm_up), served(warm_up)
    seconds: dict[str, list[float]] = {"bare": [], "http": []}
    for seed in tqdm(range(pictures), desc=label):
        order = (("bare", direct), ("http", served))
        files = {}
        for name, make in order if seed % 2 == 0 else reversed(order):
            began = time.perf_counter()
            files[name] = make(seed)
            seconds[name].append(time.perf_counter() - began)
        pixels = [np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files.values()]
        if not np.array_equal(*pixels):
            raise SystemExit(f"{label}, seed {seed}: the picture over HTTP is not the picture of the bare pipeline")
    return {"seconds": seconds, **compare(np.array(seconds["bare"]), np.array(seconds["http"]))}


def compare(direct: np.ndarray, served: np.ndarray) -> dict[str, Any]:
    """Medians, difference of medians and ratio of medians with a paired bootstrap interval."""
    ratio_95 = resampled(len(direct), lambda rows: np.median(served[rows]) / np.median(direct[rows]), resamples=4_000)
    b, h = float(np.median(direct)), float(np.median(served))
    return {"bare_s": b, "http_s": h, "added_s": h - b, "ratio": h / b, "ratio_95": ratio_95}


def compared(config: ServeConfig, models: Sequence[str], pictures: int) -> dict[str, Any]:
    """Both ways, by model, while the config is served."""
    import torch

    torch.set_num_threads(1)
    catalogue = catalogue_of(config.settings)
    with start(config, port=free_port()) as app:
        return {model: measure(bare(catalogue[model]), over_http(app.url, model), pictures, model) for model in models}


def with_one_model(config: ServeConfig, folder: Path) -> ServeConfig:
    """SD1.5 alone, under a policy of its own in `folder`: starts in seconds. Nothing is logged."""
    (folder / "alone.yaml").write_text(ALONE, encoding="utf-8")
    policies = config.settings.policies.model_copy(update={"directory": str(folder), "default": "alone"})
    models = {"sd15": config.settings.models["sd15"]}
    feedback = config.settings.feedback.model_copy(update={"log": False})
    changed = {"models": models, "policies": policies, "feedback": feedback}
    return replace(config, settings=config.settings.model_copy(update=changed))


def main(argv: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    made.add_argument("--pictures", type=int, default=30, help="pictures of each model")
    chosen = made.parse_args(argv)
    config = load_serve_config(DEFAULT_CONFIG)
    with results(chosen, RESULTS, is_full(made, chosen)) as out, tempfile.TemporaryDirectory() as folder:
        if chosen.quick:
            found = compared(with_one_model(config, Path(folder)), MODELS[:1], 2)
        else:
            found = compared(config, MODELS, chosen.pictures)
        report(found, out)


def report(results: dict[str, Any], out: Path) -> None:
    """A table on stdout; every second and a picture in `out`."""
    print(f"{'model':8s} {'bare':>9s} {'HTTP':>9s} {'added':>9s} {'ratio':>7s}  95 % interval")
    for model, r in results.items():
        seconds = "".join(f"{r[key]:9.3f}s" for key in ("bare_s", "http_s", "added_s"))
        print(f"{model:8s}{seconds} {r['ratio']:7.2f}  {r['ratio_95'][0]:.2f}-{r['ratio_95'][1]:.2f}")
    pictures = min(len(r["seconds"]["bare"]) for r in results.values())
    about = {"prompt": PROMPT, "pictures": pictures, "machine": platform.machine(), "python": platform.python_version()}
    text = json.dumps({"about": about, "models": results}, indent=1)
    (out / "overhead.json").write_text(text + "\n", encoding="utf-8")
    plot(results, out / "overhead.svg")


def plot(results: dict[str, Any], out: Path) -> None:
    """Every picture as a dot: bare seconds across, HTTP seconds up, the diagonal is no overhead."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "triptych"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 4.2), layout="constrained")
    for model, r in results.items():
        axes.scatter(r["seconds"]["bare"], r["seconds"]["http"], s=14, label=f"{model}: x{r['ratio']:.2f}")
    top = max(max(r["seconds"]["http"]) for r in results.values()) * 1.1
    axes.plot([0, top], [0, top], color="gray", linewidth=0.8, label="no overhead")
    axes.set(
        xlabel="bare pipeline, seconds per picture",
        ylabel="over HTTP, seconds per picture",
        xlim=(0, top),
        ylim=(0, top),
    )
    axes.legend(frameon=False)
    figure.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    main()
