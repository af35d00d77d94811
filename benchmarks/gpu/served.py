"""A real model with random weights, asked for pictures over HTTP, on Ray Serve as it is started for users.

    python -m benchmarks.gpu.served [--quick] [--model sdxl] [--weights FOLDER] [--pictures 5] [--json]

`benchmarks/gpu/run.py` calls it with weights that it has written; without --weights they are drawn here. `--quick`
serves scaled-down SD1.5 on the CPU.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from benchmarks.command import parser
from benchmarks.gpu.random_weights import MODELS
from benchmarks.gpu.run import PROMPT, QUICK_SIDE, card_of, speed
from benchmarks.serving.rig.application import POLICY, folder_of_its_own, serving
from deployments.cluster.local_cluster import free_port
from deployments.settings import ServeConfig, parse_settings

BASES = tuple(model for model in MODELS if model != "sdxl-refiner")
TIMEOUT_S = 900.0


def main(argv: list[str] | None = None) -> None:
    made = parser(__doc__ or "")
    made.add_argument("--model", choices=BASES, default="sd15")
    made.add_argument("--weights", type=Path, help="a folder that `benchmarks.gpu.random_weights` wrote")
    made.add_argument("--pictures", type=int, default=5)
    made.add_argument("--json", action="store_true", help="print the figures as one line of JSON at the end")
    chosen = made.parse_args(argv)
    device = "cpu" if chosen.quick else "cuda"
    with ExitStack() as stack:
        weights = chosen.weights
        if weights is None:
            weights = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="triptych-gpu-")))
            card_of(chosen.model, weights, chosen.quick, device)
        folder = stack.enter_context(folder_of_its_own())
        config = configured(folder, chosen.model, weights, chosen.quick, device)
        served = stack.enter_context(serving(config, folder))
        row = asked(served.url, 1 if chosen.quick else chosen.pictures)
    print(json.dumps(row) if chosen.json else f"{chosen.model} over HTTP: {row['picture_s']:.3f} s a picture")


def configured(folder: Path, model: str, weights: Path, quick: bool, device: str) -> ServeConfig:
    """One model, one recipe, and nothing that looks at pictures or writes decisions down."""
    (folder / "policies").mkdir()
    text = f"  drawn: {{generate: {{model: {model}}}}}"
    (folder / "policies" / "evidence.yaml").write_text(POLICY.format(recipes=text, further=""), encoding="utf-8")
    overrides: dict[str, Any] = {"source": {"local": str(weights), "revision": "random"}}
    if quick:
        side = [QUICK_SIDE, QUICK_SIDE]
        overrides |= {"native_size": side, "native_sizes": [side], "min_side": 64, "steps": 2, "dtype": "float32"}
    place = {"device": device, "num_cpus": 0.5}
    settings = {
        "models": {model: {"card": f"real/{model}", "overrides": overrides, "max_batch": 1, **place}},
        "policies": {"directory": str(folder / "policies"), "default": "evidence"},
        "artifact": "router/artifacts/real",
        "store": {
            "url": f"sqlite:///{folder / 'triptych.sqlite'}",
            "pictures": str(folder / "pictures"),
            "keep_free_mib": 0,
        },
        "feedback": {"log": False},
    }
    return ServeConfig(settings=parse_settings(settings), port=free_port())


def asked(url: str, pictures: int) -> dict[str, Any]:
    """Seconds of pictures that are asked for one after the other; the first is not counted. Raises `SystemExit`."""
    seconds = []
    with httpx.Client(timeout=TIMEOUT_S) as client:
        for seed in range(pictures + 1):
            body = {"prompt": PROMPT, "recipe": "drawn", "seed": seed, "response_format": "b64_json"}
            began = time.perf_counter()
            answer = client.post(f"{url}/v1/images/generations", json=body)
            if answer.status_code != 200:
                raise SystemExit(f"the server answered {answer.status_code}: {answer.text[:300]}")
            if seed:
                seconds.append(time.perf_counter() - began)
    return {"batch": 1, "cpus": os.cpu_count(), **speed(seconds)}


if __name__ == "__main__":
    main()
