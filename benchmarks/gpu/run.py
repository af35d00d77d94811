"""Real models at full size with random weights on one CUDA device: seconds, memory, pictures a minute, way by way.

    python -m benchmarks.gpu.run [--quick] [--models sdxl flux-dev] [--pictures 5] [--no-http] [--folder FOLDER]

Nothing is downloaded: time and memory do not depend on the numbers in the weights, which are drawn and written to a
folder (34 GB for FLUX; --folder says where), one model after the other, read by the loader that serves, and deleted. A
model is run eagerly, compiled, with other attention, cached, quantised, offloaded and in batches. Each way loads it
anew, draws once (which compiles), then the pictures whose median counts, at the model's own size and steps. Beside it
stand the memory that was planned (`models/weights/needs`), a bare loop around the diffusers pipeline, and Triptych
over HTTP, on Ray Serve. What this machine lacks for a way is in its row, with the reason. Printed as one table and
stored as gpu.json.

Without a GPU it refuses. `--quick` runs scaled-down shapes on the CPU: the same code, and figures that mean nothing.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.command import is_full, parser, results
from benchmarks.gpu.random_weights import MODELS, write
from benchmarks.gpu.ways import Way, run_by, ways_of
from benchmarks.speed.memory_plan import growth_mb
from models import load_engine
from models.engine.device import free
from models.engine.warmup import warm_up_step
from models.weights.needs.memory import estimate_memory_gb
from router.errors import LoadError, TriptychError
from router.types import ModelCard, Picture, Step, StepResult, Value

RESULTS = Path(__file__).resolve().parents[1] / "results"
PROMPT = "a red circle above a blue square"
QUICK = ("sd15", "sdxl-refiner", "flux-schnell")
QUICK_SIDE = 128


def main(argv: list[str] | None = None) -> None:
    made = parser(__doc__ or "")
    made.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    made.add_argument("--pictures", type=int, default=5, help="of each way, whose median counts")
    made.add_argument("--no-http", action="store_true", help="leave Triptych over HTTP out")
    made.add_argument("--folder", type=Path, help="where weights are written (default: a temporary folder)")
    chosen = made.parse_args(argv)
    if chosen.pictures < 1:
        made.error("--pictures must be 1 or more")
    import torch

    if not chosen.quick and not torch.cuda.is_available():
        raise SystemExit("torch sees no CUDA device here; --quick shows on the CPU that the script runs")
    device = "cpu" if chosen.quick else "cuda"
    models = QUICK if chosen.quick else chosen.models
    rows: list[dict[str, Any]] = []
    about = machine(device)
    with results(chosen, RESULTS, is_full(made, chosen, ("folder",))) as out, silent():
        for model in models:
            for row in of_model(model, chosen, device):
                rows.append(row)
                print(line(row), flush=True)
                text = json.dumps({"about": about, "rows": rows}, indent=1)
                (out / "gpu.json").write_text(text + "\n", encoding="utf-8")


def of_model(model: str, chosen: argparse.Namespace, device: str) -> Iterator[dict[str, Any]]:
    """A row for each way of a model, the bare loop and HTTP."""
    with tempfile.TemporaryDirectory(prefix="triptych-gpu-", dir=chosen.folder) as folder:
        card = card_of(model, Path(folder), chosen.quick, device)
        pictures = 1 if chosen.quick else chosen.pictures
        for way in ways_of(card, chosen.quick):
            yield {"model": model, "way": way.name, **measured(run_by(card, way), way, pictures, device)}
        yield {"model": model, "way": "bare diffusers loop", **bare(card, pictures, device)}
        if card.role == "base" and not chosen.quick and not chosen.no_http:
            yield {"model": model, "way": "Triptych over HTTP", **over_http(model, folder, pictures)}


def card_of(model: str, folder: Path, quick: bool, device: str) -> ModelCard:
    """A card over random weights, which are written: at full size in the card's own precision, or scaled down."""
    from models import load_card

    dtype = "float32" if quick else load_card(f"real/{model}").dtype
    card = write(model, folder, small=quick, dtype=dtype, device=device)
    if not quick:
        return card
    side = (QUICK_SIDE, QUICK_SIDE)
    return replace(card, native_size=side, native_sizes=(), min_side=64, steps=2, min_steps=1, dtype="float32")


def measured(card: ModelCard, way: Way, pictures: int, device: str) -> dict[str, Any]:
    """Seconds and memory of a way, or why it cannot be had here."""
    steps = asked(card, way.batch)
    found: dict[str, Any] = {"batch": way.batch, "planned_gb": estimate_memory_gb(card, batch=way.batch)}
    seconds: list[float] = []

    def work() -> None:
        began = time.perf_counter()
        engine = load_engine(card, device)
        found["load_s"] = time.perf_counter() - began
        for number in range(pictures + 1):
            began = time.perf_counter()
            for result in engine.run_batch([step for step, _ in steps], [inputs for _, inputs in steps]):
                if not isinstance(result, StepResult):
                    raise result
                if "batch_too_large" in result.facts:
                    raise LoadError(f"{way.batch} pictures at once are too many for its memory")
            took = time.perf_counter() - began
            if number:
                seconds.append(took / way.batch)
            else:
                found["first_s"] = took

    try:
        found["peak_gb"] = peak_gb(work, device)
    except TriptychError as error:
        return {**found, "missing": error.message}
    finally:
        free()
    return {**found, **speed(seconds), "plan_over_measured": found["planned_gb"] / found["peak_gb"]}


def bare(card: ModelCard, pictures: int, device: str) -> dict[str, Any]:
    """The same pictures by the pipeline's own call, with nothing of ours around it."""
    import torch

    from models.engine.settings import arguments, read_call
    from models.families import FAMILIES
    from models.handover import to_image
    from models.weights.loading import pipeline_class, quieten

    quieten()
    (step, inputs), seconds = asked(card, 1)[0], []

    def work() -> None:
        dtype = getattr(torch, card.dtype)
        options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True, **FAMILIES[card.family].extra}
        pipe = pipeline_class(card).from_pretrained(str(card.source["local"]), **options).to(device)
        pipe.set_progress_bar_config(disable=True)
        given = arguments(read_call(step, card), card, pipe)
        if inputs and isinstance(inputs[0], Picture):
            given["image"] = to_image(inputs[0], *card.native_size)
        for number in range(pictures + 1):
            began = time.perf_counter()
            pipe(**given, generator=torch.Generator("cpu").manual_seed(number))
            if number:
                seconds.append(time.perf_counter() - began)

    peak = peak_gb(work, device)
    free()
    return {"batch": 1, "peak_gb": peak, **speed(seconds)}


def over_http(model: str, folder: str, pictures: int) -> dict[str, Any]:
    """The same pictures asked of Triptych, in a process that leaves nothing on the device."""
    words = ["--model", model, "--weights", folder, "--pictures", str(pictures), "--json"]
    done = subprocess.run([sys.executable, "-m", "benchmarks.gpu.served", *words], capture_output=True, text=True)
    if done.returncode:
        return {"batch": 1, "missing": (done.stderr.strip().splitlines() or ["it failed"])[-1]}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def asked(card: ModelCard, batch: int) -> list[tuple[Step, tuple[Value, ...]]]:
    """A step for each picture of a batch, with its inputs: refiners go on from a grey picture."""
    usual, inputs = warm_up_step(card, card.native_size)
    own = {"prompt": PROMPT, "steps": card.steps}
    return [(replace(usual, id=str(n), settings={**usual.settings, **own, "seed": n}), inputs) for n in range(batch)]


def peak_gb(work: Callable[[], None], device: str) -> float:
    """The most memory that is taken while `work` runs, weights included, in 10^9 bytes: of tensors on a GPU, by which
    the process grows on a CPU."""
    if device == "cpu":
        return growth_mb(work) / 1e3
    import torch

    free()
    most = 0
    reset = torch.cuda.reset_peak_memory_stats

    def resetting(*args: Any) -> None:  # each step of ours begins to count anew
        nonlocal most
        most = max(most, torch.cuda.max_memory_allocated())
        reset(*args)

    torch.cuda.reset_peak_memory_stats = resetting  # type: ignore[assignment]
    try:
        reset()
        work()
    finally:
        torch.cuda.reset_peak_memory_stats = reset
    return max(most, torch.cuda.max_memory_allocated()) / 1e9


def speed(seconds: Sequence[float]) -> dict[str, Any]:
    """Seconds a picture, their median, and pictures a minute."""
    middle = statistics.median(seconds)
    return {"seconds": [round(one, 4) for one in seconds], "picture_s": middle, "pictures_a_minute": 60 / middle}


def machine(device: str) -> dict[str, Any]:
    """On what it ran."""
    import diffusers
    import torch

    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    memory = torch.cuda.get_device_properties(0).total_memory / 1e9 if device == "cuda" else None
    versions = {"torch": torch.__version__, "diffusers": diffusers.__version__, "python": platform.python_version()}
    return {"device": device, "name": name, "memory_gb": memory, **versions}


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    head = f"{row['model']:14}{row['way']:26}"
    if "missing" in row:
        return f"{head}not here: {row['missing']}"
    peak = f"{row['peak_gb']:8.2f} GB" if "peak_gb" in row else f"{'':11}"
    planned = f" (planned {row['planned_gb']:.2f})" if "planned_gb" in row else ""
    return f"{head}{row['picture_s']:8.3f} s a picture{row['pictures_a_minute']:8.1f} a minute{peak}{planned}"


@contextmanager
def silent() -> Iterator[None]:
    """Without what diffusers says of components that a checkpoint has none of."""
    import diffusers

    level = diffusers.utils.logging.get_verbosity()
    diffusers.utils.logging.set_verbosity_error()
    try:
        yield
    finally:
        diffusers.utils.logging.set_verbosity(level)
        gc.collect()


if __name__ == "__main__":
    main()
