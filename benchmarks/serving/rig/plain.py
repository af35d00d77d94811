"""The same pipeline with as little around it as there can be: a loop, FastAPI, Ray Serve, LitServe.

Each makes the same pictures of the same card, on one thread, and answers with base64 of a PNG, as Triptych does.
"""

from __future__ import annotations

import base64
import importlib.util
import io
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil

from deployments.cluster.local_cluster import free_port

PROMPT = "a red circle"
Make = Callable[[int], bytes]


def bare(model: str) -> Make:
    """A function that makes the picture of a seed with the bare diffusers pipeline, and encodes it as PNG."""
    import torch

    from deployments.assembly import catalogue_of
    from deployments.settings import DEFAULT_CONFIG, load_serve_config
    from models.engine.settings import arguments, read_call
    from models.weights.loading import load_pipeline
    from router.types import Step

    torch.set_num_threads(1)
    card = catalogue_of(load_serve_config(DEFAULT_CONFIG).settings)[model]
    pipe = load_pipeline(card)
    step = Step("bare", "generate", card.id, (), "image", {"prompt": PROMPT, "scheduler": card.scheduler})
    call = arguments(read_call(step, card), card, pipe)

    def make(seed: int) -> bytes:
        image = pipe(**call, generator=torch.Generator("cpu").manual_seed(seed)).images[0]
        file = io.BytesIO()
        image.save(file, "PNG")
        return file.getvalue()

    return make


def answer(data: bytes) -> dict[str, Any]:
    """The body of a response."""
    return {"created": int(time.time()), "data": [{"b64_json": base64.b64encode(data).decode()}]}


def fastapi_server(model: str, port: int) -> None:
    """A plain FastAPI server in this process: one picture at a time, in a thread. Runs until it is ended."""
    import threading

    import uvicorn
    from fastapi import FastAPI

    make, turn, app = bare(model), threading.Lock(), FastAPI()

    @app.get("/healthz")
    def healthy() -> dict[str, bool]:
        return {"ok": True}

    @app.post("/")
    def picture(body: dict[str, Any]) -> dict[str, Any]:
        with turn:
            return answer(make(int(body["seed"])))

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


def litserve_server(model: str, port: int) -> None:
    """LitServe around the same. Runs until it is ended."""
    import litserve

    from benchmarks.serving.rig.lit import Pictures

    pictures = Pictures()
    pictures.model = model
    server = litserve.LitServer(pictures, accelerator="cpu", api_path="/", healthcheck_path="/healthz")
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="warning")


def has_litserve() -> bool:
    return importlib.util.find_spec("litserve") is not None


@contextmanager
def in_a_process(kind: str, model: str) -> Iterator[str]:
    """`fastapi_server` or `litserve_server` in a process of its own, which ends with the block; its address."""
    port = free_port()
    code = f"from benchmarks.serving.rig.plain import {kind}_server as serve; serve({model!r}, {port})"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}/"
    try:
        for _ in range(1200):
            if process.poll() is not None:
                raise SystemExit(f"the {kind} server ended")
            try:
                urllib.request.urlopen(url + "healthz", timeout=2).close()
                break
            except OSError:
                time.sleep(0.1)
        yield url
    finally:
        below = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.terminate()
        process.wait(10)
        for child in below:  # LitServe leaves its own behind
            with suppress(psutil.NoSuchProcess):
                child.kill()


def deploy_on_serve(model: str) -> str:
    """A plain Ray Serve application beside Triptych, on the same proxy; its path."""
    from ray import serve

    @serve.deployment(name="plain", ray_actor_options={"num_cpus": 0}, max_ongoing_requests=8)
    class Plain:
        def __init__(self) -> None:
            from benchmarks.serving.rig.plain import bare

            self.make = bare(model)

        async def __call__(self, request: Any) -> dict[str, Any]:
            import asyncio

            from benchmarks.serving.rig.plain import answer

            body = await request.json()
            return answer(await asyncio.to_thread(self.make, int(body["seed"])))

    serve.run(Plain.bind(), name="plain", route_prefix="/plain")
    return "/plain"


def refuse_on_serve() -> str:
    """A Ray Serve application beside Triptych that refuses everything and does nothing else; its path."""
    from ray import serve

    @serve.deployment(name="refusing", ray_actor_options={"num_cpus": 0}, max_ongoing_requests=1000)
    class Refusing:
        async def __call__(self, request: Any) -> Any:
            from starlette.responses import JSONResponse

            await request.json()
            return JSONResponse({"error": {"code": "overloaded"}}, 429, {"Retry-After": "1"})

    serve.run(Refusing.bind(), name="refusing", route_prefix="/refusing")
    return "/refusing"
