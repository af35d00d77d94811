"""A folder that `triptych models export` wrote: is it complete, and the networks in it.

It is a folder in diffusers' layout in which each network has its configuration as ever, and graphs in the place of
weights: `unet/model.onnx`, `vae/vae_decoder/model.onnx`.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from models.onnx.graphs import FILE, GRAPHS, PRECISIONS, RECORD, Graph, graphs_of
from models.onnx.networks import run_by
from models.onnx.sessions import Session, provider_of
from models.tuning.applying import check, tuning_of
from models.weights.memory import build_empty
from models.weights.revisions import LIBRARIES, NO_WEIGHTS, components, read_json, remedy
from router.errors import LoadError
from router.types import ModelCard


def check_exported(card: ModelCard, dtype: str | None) -> None:
    """Refuse a folder that is none, and a dtype that its graphs do not have. Nothing of the graphs is read."""
    folder = Path(str(card.source["onnx"]))
    if not folder.is_dir():
        raise LoadError(f"model {card.id!r}: there is no folder {folder}; {remedy(card)}")
    precision = precision_of(card)
    if dtype is not None and dtype != PRECISIONS[precision]:
        raise LoadError(
            f"model {card.id!r}: dtype {dtype!r}: its graphs compute in {precision}; leave dtype out, or export again"
        )
    for name, (library, kind) in components(card, folder).items():
        if library not in LIBRARIES:
            raise LoadError(f"model {card.id!r}: component {name} wants code from {library!r} ({kind}); refused")
        if not name.startswith(NO_WEIGHTS) and kind not in GRAPHS:
            raise LoadError(f"model {card.id!r}: component {name} is a {kind}, which is not run from graphs")


def precision_of(card: ModelCard) -> str:
    """What an exported folder was exported as. Raises `LoadError` if it does not say so."""
    folder = Path(str(card.source["onnx"]))
    record = read_json(folder / "model_index.json", card).get(RECORD)
    precision = record.get("precision") if isinstance(record, dict) else None
    if precision not in PRECISIONS:
        raise LoadError(f"model {card.id!r}: {folder} was not written by `triptych models export`; {remedy(card)}")
    return str(precision)


def exported_networks(card: ModelCard, device: str, have: Collection[str] = ()) -> dict[str, Any]:
    """The networks of an exported folder by the pipeline's names for them. Raises `LoadError`.

    have: names that are not needed
    """
    check(card, device)
    folder = Path(str(card.source["onnx"]))
    half = precision_of(card) == "fp16"
    found = {}
    try:
        provider = provider_of(device, tuning_of(card).compile == "tensorrt")
        for name, (library, kind) in components(card, folder).items():
            if name in have or name.startswith(NO_WEIGHTS):
                continue
            network = build_empty(library, kind, read_json(folder / name / "config.json", card))
            sessions: dict[str, Session] = {}
            for graph in graphs_of(network):
                file = folder / name / graph.folder / FILE
                if not file.is_file():
                    raise LoadError(f"{file} is missing; {remedy(card)}")
                sessions[graph.folder] = Session(file, device, provider, half)
                _check_ends(graph, sessions[graph.folder], file, card)
            found[name] = run_by(network, sessions)
    except LoadError as error:
        raise LoadError(f"model {card.id!r}: {error.message}") from None
    return found


def _check_ends(graph: Graph, session: Session, file: Path, card: ModelCard) -> None:
    """Refuse a graph of another network. One may do without an input that has no effect."""
    if (inputs := set(session.inputs) - set(graph.inputs)) or (outputs := set(graph.outputs) - set(session.outputs)):
        other = f"an input {min(inputs)!r}" if inputs else f"no output {min(outputs)!r}"
        raise LoadError(f"{file} has {other}, so it is the graph of another network; {remedy(card)}")
