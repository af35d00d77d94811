"""What a bootstrap is of: policy, recipes, prompts, judge. Written down at the start; a later run is of the same."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.bootstrap.ledger import Shot
from router.bootstrap.choosing import Cell
from router.errors import ArtifactError
from router.learning.ratings import normal_group

FILE = "study.json"
LEAST_PROMPTS = 60
HELD_OUT = 1 / 3  # of the prompts, for the proof


@dataclass(frozen=True)
class Study:
    """recipes: names in the policy, by key;   judge: its name;   judged_by: revision of its weights;   seeds: pictures
    of a prompt and recipe at most;   proof: share of the budget for prompts that nothing is learned from;   key:
    random, names this study towards a server"""

    policy: str
    digest: str
    recipes: Mapping[str, str]
    prompts: tuple[str, ...]
    judge: str
    judged_by: str
    probability: bool
    seeds: int
    proof: float
    seed: int
    key: str

    @property
    def keys(self) -> tuple[str, ...]:
        """The recipes' keys; a cell's number is a place in it."""
        return tuple(self.recipes)

    def split(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows of the prompts that are learned from, and of those for the proof, both in random order."""
        order = np.random.default_rng(self.seed).permutation(len(self.prompts))
        held_out = int(len(order) * HELD_OUT) if self.proof > 0 else 0
        return order[held_out:], order[:held_out]

    def shot(self, cell: Cell) -> Shot:
        """The picture of a cell. All recipes draw a prompt with the same seeds."""
        prompt = self.prompts[cell.prompt]
        digest = hashlib.sha256(json.dumps([prompt, cell.seed, self.seed]).encode()).digest()
        return Shot(prompt, self.keys[cell.recipe], int.from_bytes(digest[:4], "big") >> 1)


def begin(folder: Path, wanted: Mapping[str, Any]) -> Study:
    """The study in a folder, which is begun if there is none. wanted: everything but `key`.

    Raises `ArtifactError` if the folder holds a study of something else, or there is too little to study.
    """
    file = folder / FILE
    if not file.exists():
        if len(wanted["prompts"]) < LEAST_PROMPTS:
            raise ArtifactError(
                f"{len(wanted['prompts'])} different prompts; a study needs {LEAST_PROMPTS} to learn from some and to "
                "prove it on others. Give more with --prompts"
            )
        if len(wanted["recipes"]) < 2:
            raise ArtifactError(
                f"policy {wanted['policy']!r} has {len(wanted['recipes'])} different recipe(s); routing needs two to "
                "choose between"
            )
        study = Study(**wanted, key=secrets.token_hex(8))
        folder.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        part.write_text(json.dumps(asdict(study), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        part.replace(file)
        return study
    study = load(folder)
    for field in fields(Study):
        if field.name in wanted and getattr(study, field.name) != wanted[field.name]:
            raise ArtifactError(
                f"{folder} holds a study of another {field.name} ({_short(getattr(study, field.name))}, not "
                f"{_short(wanted[field.name])}); give the same options to go on with it, or another --out"
            )
    return study


def load(folder: Path) -> Study:
    """Raises `ArtifactError` if there is none."""
    file = folder / FILE
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return Study(**{**content, "prompts": tuple(content["prompts"])})
    except OSError:
        raise ArtifactError(
            f"{folder} holds no study ({FILE}); `triptych bootstrap --out {folder}` begins one"
        ) from None
    except (ValueError, TypeError, KeyError) as error:
        raise ArtifactError(f"{file} cannot be read ({error!r}); restore it, or begin in another folder") from error


def different(prompts: Sequence[str]) -> tuple[str, ...]:
    """Each prompt once, but for case and spaces."""
    first: dict[str, str] = {}
    for prompt in prompts:
        if prompt.strip():
            first.setdefault(normal_group(prompt), prompt)
    return tuple(first.values())


def _short(value: Any) -> str:
    if isinstance(value, tuple):
        return f"{len(value)} of them, from {str(value[0])[:40]!r}"
    return ", ".join(value) if isinstance(value, Mapping) else str(value)
