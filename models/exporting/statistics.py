"""What a graph consists of, without loading its weights."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Statistics:
    """A graph in numbers.

    operators: how many nodes of each kind, the most frequent first;   parameters: numbers in its weights
    megabytes: of its file or files, 10^6 bytes;   inputs, outputs: each as `name: axes`
    """

    operators: Mapping[str, int]
    parameters: int
    megabytes: float
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def nodes(self) -> int:
        return sum(self.operators.values())


def statistics(file: Path) -> Statistics:
    """Count. Needs `onnx`."""
    import onnx

    model = onnx.load(str(file), load_external_data=False)
    graph = model.graph
    weights = {tensor.name: math.prod(tensor.dims) for tensor in graph.initializer}
    return Statistics(
        operators=dict(Counter(node.op_type for node in graph.node).most_common()),
        parameters=sum(weights.values()),
        megabytes=sum(one.stat().st_size for one in file.parent.glob(f"{file.name}*")) / 1e6,
        inputs=tuple(_spelled(value) for value in graph.input if value.name not in weights),
        outputs=tuple(_spelled(value) for value in graph.output),
    )


def _spelled(value: object) -> str:
    """Such as `sample: batch, 4, height, width`."""
    dims = value.type.tensor_type.shape.dim  # type: ignore[attr-defined]
    axes = ", ".join(dim.dim_param or str(dim.dim_value) for dim in dims)
    return f"{value.name}: {axes}"  # type: ignore[attr-defined]
