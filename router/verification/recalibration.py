"""A scorer's calibration follows its artefact: the labelled pictures are kept, and fitted again after feedback.

Beside `judges/<scorer>.json` lies `judges/<scorer>.safetensors` with what the fit looks at. It holds no prompt: of
each, what the artefact's regression sees. Feedback adds a residual to the artefact's columns (see
router/quality/residual.py), so the new chances are the old held-out ones with that residual on top, and that by an
adapter that saw no rating of a labelled prompt: as honest as the first fit, without predicting anything anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.errors import ArtifactError
from router.quality.predictor import QualityPredictor
from router.quality.residual import Adapter
from router.types import PromptView
from router.verification.score_calibration import LabelledPicture, calibrate_scores, read_content, sealed

Array = NDArray[np.float64]
FOLDER = "judges"
SAME = 1e-3  # squared distance of two inputs that are one prompt, above what half precision blurs


@dataclass(frozen=True)
class LabelledPictures:
    """n labelled pictures of p prompts, as a calibration sees them.

    inputs (p, d): of the prompts, as in `QualityPredictor.inputs`;   prompt (n,): which of them
    recipe (n,):   number of the recipe;   column (n,): its column in the artefact, -1 if it has none
    chance (n,):   held out, before any feedback;   score (n,): 0..1;   right (n,)
    """

    inputs: Array = field(repr=False)
    prompt: NDArray[np.int64] = field(repr=False)
    recipe: NDArray[np.int64] = field(repr=False)
    column: NDArray[np.int64] = field(repr=False)
    chance: Array = field(repr=False)
    score: Array = field(repr=False)
    right: NDArray[np.bool_] = field(repr=False)

    @classmethod
    def of(
        cls,
        labelled: Sequence[LabelledPicture],
        chance: Array,
        predictor: QualityPredictor,
        views: Mapping[str, PromptView],
    ) -> LabelledPictures:
        """chance (n,): held out;   views: of every prompt, by its text."""
        prompts = {text: k for k, text in enumerate(dict.fromkeys(one.prompt for one in labelled))}
        recipes = {key: k for k, key in enumerate(dict.fromkeys(one.recipe for one in labelled))}
        columns = {key: k for k, key in enumerate(predictor.columns)}
        return cls(
            np.concatenate([predictor.inputs(views[text]) for text in prompts]),
            np.array([prompts[one.prompt] for one in labelled]),
            np.array([recipes[one.recipe] for one in labelled]),
            np.array([columns.get(one.recipe, -1) for one in labelled]),
            np.asarray(chance, np.float64),
            np.array([one.score for one in labelled]),
            np.array([one.right for one in labelled], np.bool_),
        )

    def chances(self, adapter: Adapter | None) -> Array:
        """The chances (n,) with feedback on top; of recipes without a column, what all columns share."""
        if adapter is None:
            return self.chance
        shift = adapter.shift(self.inputs)
        own = shift[self.prompt, np.maximum(self.column, 0)]
        return np.clip(self.chance + np.where(self.column >= 0, own, shift.mean(axis=1)[self.prompt]), 0.0, 1.0)

    def among(self, inputs: Array) -> NDArray[np.bool_]:
        """Which of the rows of `inputs` (m, d) are labelled prompts, (m,)."""
        square = (inputs**2).sum(axis=1)[:, None] + (self.inputs**2).sum(axis=1)[None] - 2 * inputs @ self.inputs.T
        return np.asarray((square < SAME).any(axis=1))

    def fit(self, adapter: Adapter | None) -> dict[str, Any]:
        """Score model, strength and held-out figures for the file; see `calibrate_scores`."""
        rows = zip(self.prompt, self.recipe, self.score, self.right, strict=True)
        labelled = [LabelledPicture(str(p), str(r), float(score), bool(right)) for p, r, score, right in rows]
        score_model, strength, report = calibrate_scores(labelled, self.chances(adapter))
        return {"judge": asdict(score_model), "strength": strength, "held_out": report}

    def to_bytes(self) -> bytes:
        """For the file: half precision for inputs, single for the rest."""
        from safetensors.numpy import save

        kinds = {"inputs": np.float16, "chance": np.float32, "score": np.float32, "right": np.uint8}
        arrays = {name: np.asarray(array, kinds.get(name, np.int32)) for name, array in vars(self).items()}
        return save({name: np.ascontiguousarray(array) for name, array in arrays.items()})

    @classmethod
    def from_bytes(cls, content: bytes) -> LabelledPictures:
        from safetensors.numpy import load

        arrays = load(content)
        kinds = {"inputs": np.float64, "chance": np.float64, "score": np.float64, "right": np.bool_}
        names = ("inputs", "prompt", "recipe", "column", "chance", "score", "right")
        return cls(*(np.asarray(arrays[name], kinds.get(name, np.int64)) for name in names))


def keep_pictures(file: Path, pictures: LabelledPictures) -> None:
    """Keep what the calibration in `file` was fitted on beside it, under a digest in it."""
    content = read_content(file)
    table = pictures.to_bytes()
    file.with_suffix(".safetensors").write_bytes(table)
    file.write_text(sealed({**content, "pictures": hashlib.sha256(table).hexdigest()}), encoding="utf-8")


def kept_pictures(file: Path, content: Mapping[str, Any]) -> LabelledPictures:
    """What the calibration in `file`, with this content, was fitted on. Raises `ArtifactError` if it is not there."""
    table = file.with_suffix(".safetensors")
    if "pictures" not in content or not table.is_file():
        raise ArtifactError("its labelled pictures were not kept; calibrate it again")
    data = table.read_bytes()
    if hashlib.sha256(data).hexdigest() != content["pictures"]:
        raise ArtifactError(f"{table} was changed after it was written; calibrate it again")
    return LabelledPictures.from_bytes(data)


@dataclass(frozen=True)
class Recalibrated:
    """A scorer's calibration for another artefact. content: of its file, but for the artefact's digest; None: it has
    to be calibrated by hand, `note` says why."""

    scorer: str
    note: str
    content: Mapping[str, Any] | None = None
    pictures: bytes = field(default=b"", repr=False)

    def files(self, digest: str) -> dict[str, bytes]:
        """What to put beside the artefact with this digest."""
        if self.content is None:
            return {}
        text = sealed({**self.content, "artefact": digest})
        name = f"{FOLDER}/{self.scorer}"
        return {f"{name}.json": text.encode(), f"{name}.safetensors": self.pictures}


def calibration_files(artifact: Path) -> list[Path]:
    """The calibrations in an artefact's folder."""
    return sorted((artifact / FOLDER).glob("*.json"))


def recalibrate(file: Path, digest: str, adapted: Callable[[LabelledPictures], Adapter]) -> Recalibrated:
    """The calibration in `file`, which was for the artefact `digest`, with feedback on top.

    adapted: gives the adapter for given `LabelledPictures`, fitted without the ratings of their prompts
    """
    try:
        content = read_content(file)
        if content["artefact"] != digest:
            raise ArtifactError("it was not calibrated for the artefact that was in force; calibrate it")
        pictures = kept_pictures(file, content)
        fitted = pictures.fit(adapted(pictures))
    except ArtifactError as error:
        return Recalibrated(file.stem, error.message)
    report = fitted["held_out"]
    note = (
        f"calibrated again on {report['pictures']:.0f} pictures; held out, a Brier score of {report['brier']:.4f} "
        f"(before {content['held_out']['brier']:.4f}; the chance alone {report['brier_chance']:.4f})"
    )
    return Recalibrated(file.stem, note, {**content, **fitted}, pictures.to_bytes())
