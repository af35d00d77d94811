"""What Triptych decides and draws, written down: `python -m tests.golden.record` renews the files beside this one.

`decisions.json.gz`: five hundred requests under five presets. `pictures.json` and `pictures.png`: a request for each
kind of recipe. Both were first written at revision 6beee63, before the code was rearranged, so that a change of
structure can be told from a change of behaviour. Renew them only with a change that is meant to decide or draw
differently, and say so in CHANGELOG.md. Embeddings are kept as halves (`embeddings.npy`), so that no processor's
rounding stands between.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import platform
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deployments.api.wire.files import encoded
from deployments.api.wire.requests import parse_request, to_request
from deployments.assembly import build_orchestrator
from deployments.in_process import LocalWorkers
from deployments.offline.rehearsal import Rehearsal
from deployments.settings import DEFAULT_CONFIG, load_serve_config
from router.errors import TriptychError
from router.prompts.embedding import MiniLMEmbedder
from router.route import Route
from router.types import Plan
from tests.golden.requests import PICTURES, PRESETS, bodies, pictures

HERE = Path(__file__).parent
DECISIONS, EMBEDDINGS = HERE / "decisions.json.gz", HERE / "embeddings.npy"
DRAWN, SHEET = HERE / "pictures.json", HERE / "pictures.png"


class Remembered:
    """An embedder that knows the golden prompts by heart."""

    def __init__(self, known: Mapping[str, NDArray[np.float32]]) -> None:
        self.known = known

    def embed(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        return np.stack([self.known[prompt] for prompt in prompts])


def embedder() -> Remembered:
    """The embeddings of the golden prompts, as they were."""
    stored = np.load(EMBEDDINGS).astype(np.float32)
    return Remembered({body["prompt"]: row for body, row in zip(bodies(), stored, strict=True)})


def decisions(embed: Remembered) -> list[dict[str, Any]]:
    """Every golden request under every preset."""
    rehearsal = Rehearsal(load_serve_config(DEFAULT_CONFIG).settings)
    rehearsal._router.embedder = embed
    policies = {name: rehearsal.policy(name) for name in PRESETS}
    found = []
    for body in bodies():
        for name in PRESETS:
            try:
                found.append(_told(rehearsal.route(policies[name], body)))
            except TriptychError as error:
                found.append({"error": type(error).__name__, "message": str(error)})
    return found


def _told(route: Route) -> dict[str, Any]:
    decision = route.decision
    return {
        "recipe": decision.recipe,
        "estimates": {
            name: [e.quality.mean, e.quality.std, e.work_s, e.queue_s, e.latency_s, e.cost_usd, e.quality.basis]
            for name, e in sorted(route.estimates.items())
        },
        "ranking": [[one.recipe, one.utility] for one in decision.ranking],
        "rejected": sorted([one.recipe, one.gate, one.reason] for one in decision.rejected),
        "reasons": list(decision.reasons),
        "rules": list(decision.rules),
        "plans": {name: digest(plan) for name, plan in sorted({**route.alternatives, "": route.plan}.items())},
    }


def digest(plan: Plan) -> str:
    """Twelve hex digits over every step, hand-over and note of a plan."""
    steps = [
        [s.id, s.kind, s.model, list(s.inputs), s.produces, {k: s.settings[k] for k in sorted(s.settings)}]
        for s in plan.steps
    ]
    whole = [plan.recipe, steps, plan.output, plan.width, plan.height, list(plan.notes)]
    return hashlib.sha256(json.dumps(whole).encode()).hexdigest()[:12]


def drawn() -> dict[str, tuple[bytes, str]]:
    """By recipe: the picture's pixels as a PNG, and the digest of the whole file that a client gets.

    Each is routed by an orchestrator that has measured nothing yet, so that no clock decides about a search.
    """
    settings = load_serve_config(DEFAULT_CONFIG).settings
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "golden.yaml").write_text(PICTURES, encoding="utf-8")
        chosen = settings.model_copy(
            update={
                "policies": settings.policies.model_copy(update={"directory": folder, "default": "golden"}),
                "feedback": settings.feedback.model_copy(update={"log": False}),
            }
        )
        workers = LocalWorkers(chosen)
        for body in pictures():
            wire = parse_request(body, chosen.limits)
            made = asyncio.run(
                build_orchestrator(chosen, workers.by_model, workers).generate(to_request(wire, chosen.limits))
            )
            file = encoded(made.made[0], made.route, wire)
            pixels, bare = Image.open(io.BytesIO(file)).convert("RGB"), io.BytesIO()
            pixels.save(bare, "PNG")
            found[body["recipe"]] = bare.getvalue(), hashlib.sha256(file).hexdigest()[:16]
    return found


def machine() -> str:
    """What the last bits of a picture depend on."""
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return f"{model}; torch {torch.__version__}"


def main() -> None:
    texts = [body["prompt"] for body in bodies()]
    if not EMBEDDINGS.exists():
        embedded = [MiniLMEmbedder().embed([text])[0] for text in texts]
        np.save(EMBEDDINGS, np.stack(embedded).astype(np.float16), allow_pickle=False)
    found = decisions(embedder())
    with gzip.GzipFile(DECISIONS, "wb", mtime=0) as file:
        file.write(json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode())
    made = drawn()
    files = {name: {"file": whole, "pixels": _pixels_digest(png)} for name, (png, whole) in made.items()}
    DRAWN.write_text(json.dumps({"machine": machine(), "pictures": files}, indent=1) + "\n")
    sheet = Image.new("RGB", (128 * len(made), 128))
    for k, (png, _) in enumerate(made.values()):
        sheet.paste(Image.open(io.BytesIO(png)), (128 * k, 0))
    sheet.save(SHEET, optimize=True)
    print(f"{len(found)} decisions, {len(made)} pictures, {machine()}")


def _pixels_digest(png: bytes) -> str:
    return hashlib.sha256(np.asarray(Image.open(io.BytesIO(png))).tobytes()).hexdigest()[:16]


if __name__ == "__main__":
    main()
