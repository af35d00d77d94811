"""A model card to a folder of graphs, in diffusers' layout, checked against torch before it counts as written."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from models.exporting.eight_bits import in_eight_bits
from models.exporting.statistics import Statistics, statistics
from models.families import FAMILIES
from models.onnx.graphs import FAMILIES as EXPORTED
from models.onnx.graphs import FILE, PRECISIONS, RECORD, Graph, graphs_of
from models.onnx.sessions import Session
from models.weights.loading import load_pipeline
from models.weights.revisions import NO_WEIGHTS, revision
from router.errors import LoadError, RequestError, did_you_mean
from router.types import ModelCard

OPSET = 20
MOST_APART = {"fp32": 1e-3, "fp16": 0.05, "int8": 0.3}
"""How far a graph may be from torch on random numbers, as a share of the spread of what torch says."""


@dataclass(frozen=True)
class Exported:
    """One graph that was written.

    part: its folder, such as `vae/vae_decoder`;   apart: root mean square of the difference to torch on random numbers,
    as a share of the spread
    """

    part: str
    apart: float
    statistics: Statistics


def export(
    card: ModelCard, folder: Path, precision: str = "fp32", on_graph: Callable[[str], None] | None = None
) -> list[Exported]:
    """Write the model of a card to a new folder, from which `source: {onnx: folder}` runs it.

    precision: `fp32`; `fp16`: all but a VAE that its checkpoint wants in float32; `int8`: the matrix products of its
    network by 8-bit weights and inputs
    on_graph: hears the name of each graph before it is made
    Raises `RequestError` for what cannot be exported, and `LoadError` for a model that cannot be loaded, or whose graph
    says something else than torch.
    """
    _check(card, folder, precision)
    plain = replace(card, tuning={}, tuned="", changes="")
    pipe = load_pipeline(plain, "cpu", "float32")
    folder.parent.mkdir(parents=True, exist_ok=True)
    made: list[Exported] = []
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as name:
        staged = Path(name) / folder.name
        staged.mkdir()
        for part, component in pipe.components.items():
            if part.startswith(NO_WEIGHTS) and component is not None:
                component.save_pretrained(staged / part)
            elif component is not None:
                made += _network(pipe, part, component, staged, precision, card, on_graph)
        pipe.save_config(staged)
        _record(staged / "model_index.json", {"precision": precision, "of": revision(plain), **_versions()})
        if folder.exists():
            folder.rmdir()  # it was empty a moment ago
        staged.rename(folder)
    return made


def smaller(card: ModelCard, exact: Path, folder: Path) -> None:
    """Write `int8` from an exported `fp32`, without tracing the model anew.

    exact: the folder with that;   folder: a new one
    """
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as name:
        staged = Path(name) / folder.name
        shutil.copytree(exact, staged)
        in_eight_bits(staged / FAMILIES[card.family].denoiser / FILE)
        record = json.loads((staged / "model_index.json").read_text(encoding="utf-8"))[RECORD]
        _record(staged / "model_index.json", {**record, "precision": "int8"})
        staged.rename(folder)


def _check(card: ModelCard, folder: Path, precision: str) -> None:
    if precision not in PRECISIONS:
        raise RequestError(f"there is no precision {precision!r}{did_you_mean(precision, PRECISIONS)}", "precision")
    if card.source.get("onnx"):
        raise RequestError(f"{card.id!r} is exported already; export the model that it was made from", "model")
    if card.family not in EXPORTED:
        raise RequestError(f"family {card.family!r} is not exported; {', '.join(EXPORTED)} are", "model")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RequestError(f"--to {folder}: it exists and is not an empty folder; name a new one", "to")
    check_exporter()


def check_exporter() -> None:
    """Raise `RequestError` if what exporting needs is not installed."""
    for package in ("onnx", "onnxscript"):
        if find_spec(package) is None:
            raise RequestError(f"exporting graphs needs {package}; run: pip install 'triptych[onnx]'", "model")


def _network(
    pipe: Any,
    part: str,
    network: Any,
    staged: Path,
    precision: str,
    card: ModelCard,
    on_graph: Callable[[str], None] | None,
) -> Iterator[Exported]:
    graphs = graphs_of(network)
    if not graphs or getattr(network.config, "time_cond_proj_dim", None):
        raise RequestError(f"{card.id!r}: its {part} ({type(network).__name__}) is not exported", "model")
    network.eval()
    for graph in graphs:
        home = staged / part / graph.folder
        home.mkdir(parents=True)
        if on_graph is not None:
            on_graph(home.relative_to(staged).as_posix())
        half = precision == "fp16" and not getattr(network.config, "force_upcast", False)
        checked = list(graph.example(pipe, network, 1))
        expected = _by_torch(network, graph, checked)
        if half:
            network.half()
        _write(pipe, network, graph, home / FILE, half)
        if half:
            network.float()
        exact = precision != "int8" or part != FAMILIES[card.family].denoiser
        if not exact:
            in_eight_bits(home / FILE)
        kind = "fp32" if exact and not half else precision
        apart = _apart(home / FILE, graph, checked, expected)
        if not apart <= MOST_APART[kind]:
            raise LoadError(
                f"model {card.id!r}: the graph of {part} differs from torch by {apart:.2g} of the spread, more "
                f"than {kind} explains; nothing was written"
            )
        yield Exported(home.relative_to(staged).as_posix(), apart, statistics(home / FILE))
    (staged / part / "config.json").write_text(_config(network), encoding="utf-8")


def _config(network: Any) -> str:
    """As its library writes it."""
    said = network.config
    return str(said.to_json_string() if hasattr(said, "to_json_string") else network.to_json_string())


def _write(pipe: Any, network: Any, graph: Graph, file: Path, half: bool) -> None:
    """The graph by torch's exporter, with axes that vary."""
    import torch

    class Traced(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, *tensors: Any) -> Any:
            return tuple(graph.call(self.network, *tensors))

    # Two of everything that may vary, since 1 would be taken for a constant.
    tensors = tuple(_cast(tensor, half) for tensor in graph.example(pipe, network, 2))
    varying = tuple(dict(axes) for axes in graph.inputs.values())
    with torch.no_grad(), _quiet():
        torch.onnx.export(
            Traced().eval(),
            tensors,
            str(file),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_shapes=(varying,),
            external_data=_large(network),
            verbose=False,
        )


def _large(network: Any) -> bool:
    """A graph and its weights are one file up to 2 GB, which is the most that the format allows."""
    return sum(parameter.numel() * parameter.element_size() for parameter in network.parameters()) > 1.5e9


def _cast(tensor: Any, half: bool) -> Any:
    return tensor.half() if half and tensor.is_floating_point() else tensor


def _by_torch(network: Any, graph: Graph, tensors: Sequence[Any]) -> Sequence[Any]:
    import torch

    with torch.no_grad():
        return graph.call(network, *tensors)


def _apart(file: Path, graph: Graph, tensors: Sequence[Any], expected: Sequence[Any]) -> float:
    """The largest difference of any output to torch's, as a share of the spread of that output."""
    session = Session(file, "cpu", "cpu")
    made = session(dict(zip(graph.inputs, tensors, strict=True)))
    shares = [
        float((made[name] - wanted).square().mean().sqrt() / (wanted.std() + 1e-6))
        for name, wanted in zip(graph.outputs, expected, strict=True)
    ]
    return max(shares) if all(share == share for share in shares) else float("nan")


def _record(index: Path, said: dict[str, str]) -> None:
    text = json.loads(index.read_text(encoding="utf-8"))
    index.write_text(json.dumps({**text, RECORD: said}, indent=2) + "\n", encoding="utf-8")


def _versions() -> dict[str, str]:
    return {package: version(package) for package in ("torch", "onnx", "diffusers", "transformers")}


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells on the terminal what it does."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
