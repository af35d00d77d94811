"""What other programs wrote into their pictures: A1111 and its kin, ComfyUI, InvokeAI, Fooocus, NovelAI.

Read by `sd-parsers` from texts that were read here, so that its limits are ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MOST_CHARS = 4 * 2**20
"""Of one text that is parsed."""


@dataclass(frozen=True)
class Origin:
    """program: who wrote it;   samplers: each with name, model and settings;   rest: what else was found"""

    program: str
    prompt: str
    negative_prompt: str
    samplers: tuple[Mapping[str, Any], ...]
    rest: Mapping[str, Any]


def origin_of(texts: Mapping[str, str]) -> Origin | None:
    """Which program wrote these texts of a file (`PictureFile.texts`), and what they say; None if it is not known."""
    from sd_parsers.exceptions import ParserError
    from sd_parsers.parsers import MANAGED_PARSERS

    short = {key: text for key, text in texts.items() if len(text) <= MOST_CHARS}
    for parser in MANAGED_PARSERS:
        try:
            found = parser().parse(dict(short))  # type: ignore[abstract]  # the list has only whole classes
        except (ParserError, RecursionError, ValueError, KeyError, TypeError, AttributeError, IndexError):
            continue  # the text may come from anyone, and the parsers check little
        return Origin(
            program=str(found.generator.value),
            prompt=str(found.full_prompt),
            negative_prompt=str(found.full_negative_prompt),
            samplers=tuple(_sampler(sampler) for sampler in found.samplers),
            rest=found.metadata,
        )
    return _workflow(short)


def _sampler(sampler: Any) -> dict[str, Any]:
    model = sampler.model
    named = {} if model is None else {"model": model.name or "", "model hash": model.hash or ""}
    return {"sampler": sampler.name, **{key: value for key, value in named.items() if value}, **sampler.parameters}


def _workflow(texts: Mapping[str, str]) -> Origin | None:
    """A graph of ComfyUI that stands alone, of which the parser makes nothing: its nodes by kind."""
    for key in ("prompt", "workflow"):
        try:
            graph = json.loads(texts.get(key, ""))
        except (ValueError, RecursionError):
            continue
        listed = graph.get("nodes") if key == "workflow" and isinstance(graph, dict) else graph
        nodes = list(listed.values()) if isinstance(listed, dict) else listed if isinstance(listed, list) else []
        kinds = [node.get("class_type") or node.get("type") for node in nodes if isinstance(node, dict)]
        if kinds and all(isinstance(kind, str) for kind in kinds):
            counted = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
            return Origin("ComfyUI", "", "", (), {"nodes": counted})
    return None
