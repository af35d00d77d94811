"""A folder that `triptych models export` wrote: is it whole, and the networks in it.

It is a folder in diffusers' layout in which each network has its configuration as ever, and graphs in the place of
weights: `unet/model.onnx`, `vae/vae_decoder/model.onnx`. Messages name no model; who loads one adds it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from models.onnx.graphs import FILE, GRAPHS, PRECISIONS, RECORD, Graph, graphs_of
from models.onnx.networks import run_by
from models.onnx.sessions import Session, provider_of
from router.errors import LoadError

LIBRARIES = ("diffusers", "transformers")
WITHOUT_GRAPHS = ("scheduler", "tokenizer", "feature_extractor")
"""Components that are configuration only, by the beginning of their name."""

REMEDY = "write the folder anew with `triptych models export`"

Build = Callable[[str, str, Mapping[str, Any]], Any]
"""(library, class, configuration) to a network without weights."""


def check_exported(folder: Path, dtype: str | None) -> None:
    """Raise `LoadError` for a folder that is none, and for a dtype that its graphs do not have. No graph is read."""
    precision = precision_of(folder)
    if dtype is not None and dtype != PRECISIONS[precision]:
        raise LoadError(f"dtype {dtype!r}: its graphs compute in {precision}; leave dtype out, or export it again")
    for name, (library, kind) in _listed(folder).items():
        if library not in LIBRARIES:
            raise LoadError(f"component {name} wants code from {library!r} ({kind}); refused")
        if not name.startswith(WITHOUT_GRAPHS) and kind not in GRAPHS:
            raise LoadError(f"component {name} is a {kind}, which is not run from graphs; {REMEDY}")


def precision_of(folder: Path) -> str:
    """What a folder was exported as. Raises `LoadError` if it does not say so."""
    if not folder.is_dir():
        raise LoadError(f"there is no folder {folder}; {REMEDY}")
    record = _json(folder / "model_index.json").get(RECORD)
    precision = record.get("precision") if isinstance(record, dict) else None
    if precision not in PRECISIONS:
        raise LoadError(f"{folder} was not written by `triptych models export`; {REMEDY}")
    return str(precision)


def networks_in(folder: Path, device: str, tensorrt: bool, build: Build, have: Collection[str] = ()) -> dict[str, Any]:
    """The networks of a folder by the pipeline's names for them. Raises `LoadError`.

    tensorrt: on a GPU, by TensorRT;   have: names that are not needed
    """
    half = precision_of(folder) == "fp16"
    provider = provider_of(device, tensorrt)
    found = {}
    for name, (library, kind) in _listed(folder).items():
        if name in have or name.startswith(WITHOUT_GRAPHS):
            continue
        network = build(library, kind, _json(folder / name / "config.json"))
        sessions: dict[str, Session] = {}
        for graph in graphs_of(network):
            file = folder / name / graph.folder / FILE
            if not file.is_file():
                raise LoadError(f"{file} is missing; {REMEDY}")
            sessions[graph.folder] = Session(file, device, provider, half)
            _check_ends(graph, sessions[graph.folder], file)
        found[name] = run_by(network, sessions)
    return found


def _check_ends(graph: Graph, session: Session, file: Path) -> None:
    """Refuse a graph of another network. One may do without an input that has no effect."""
    if (inputs := set(session.inputs) - set(graph.inputs)) or (outputs := set(graph.outputs) - set(session.outputs)):
        other = f"an input {min(inputs)!r}" if inputs else f"no output {min(outputs)!r}"
        raise LoadError(f"{file} has {other}, so it is the graph of another network; {REMEDY}")


def _listed(folder: Path) -> dict[str, tuple[str, str]]:
    """Library and class of each component that is there."""
    return {
        name: (str(entry[0]), str(entry[1]))
        for name, entry in _json(folder / "model_index.json").items()
        if not name.startswith("_") and isinstance(entry, list) and len(entry) == 2 and entry[0] is not None
    }


def _json(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LoadError(f"{file} is missing; {REMEDY}") from None
    except (OSError, ValueError) as error:
        raise LoadError(f"{file} cannot be read: {error}; {REMEDY}") from None
    if not isinstance(data, dict):
        raise LoadError(f"{file} is not a JSON object; {REMEDY}")
    return data
