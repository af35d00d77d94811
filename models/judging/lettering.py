"""Lettering: does a picture hold the words that its prompt puts in quotes? Read by RapidOCR, whose weights are in its
wheel; nothing is downloaded.

    pip install -c constraints.txt -e '.[ocr]' && pip install --no-deps rapidocr-onnxruntime==1.4.4

It asks for `opencv-python`, which does not go beside the headless one that Triptych has, hence `--no-deps`.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import threading
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.errors import LoadError, StepError

Pixels = NDArray[np.uint8]
VERSION = "rapidocr-onnxruntime 1.4.4"
QUOTED = re.compile(r"\"([^\"]*)\"|“([^”]*)”|„([^“”]+)[“”]|«([^»]+)»|‘([^’]+)’|(?<!\w)'([^']+)'(?!\w)")
FOUND = 0.97
"""The score of lettering that is read as asked. Of lettering that is not: half the square of how alike the two are."""


class LetteringJudge:
    """A `Judge` of prompts with words in quotes; of others it cannot say. Its scores only order."""

    name = "ocr"
    probability = False

    def __init__(self, read: Callable[[Pixels], Sequence[str]] | None = None) -> None:
        """read: the lines of a picture, from top to bottom; by default RapidOCR's, loaded at the first picture.

        Raises `LoadError` if that is not installed.
        """
        if read is None and importlib.util.find_spec("rapidocr_onnxruntime") is None:
            raise LoadError(
                "reading lettering needs RapidOCR; run: pip install -c constraints.txt -e '.[ocr]' && "
                "pip install --no-deps rapidocr-onnxruntime==1.4.4"
            )
        self._read = read
        self._lock = threading.Lock()

    def score(self, picture: Pixels, prompt: str) -> float:
        """Of all quoted words of the prompt the one that fits least. Raises `StepError` if there is none."""
        wanted = quoted(prompt)
        if not wanted:
            raise StepError("the prompt has no words in quotes")
        lines = self.lines(picture)
        return min(likeness(text, lines) for text in wanted)

    def lines(self, picture: Pixels) -> list[str]:
        """What is written in a picture, uint8 (height, width, 3)."""
        with self._lock:
            if self._read is None:
                self._read = _reader()
            return list(self._read(picture))


def quoted(prompt: str) -> list[str]:
    """What a prompt puts in quotes and can be read: "a sign that says 'OPEN'" asks for OPEN."""
    found = ["".join(groups) for groups in QUOTED.findall(prompt)]
    return [text for text in found if plain(text)]


def plain(text: str) -> str:
    """Letters and digits only, small: how a text is compared."""
    return "".join(ch for ch in text.casefold() if ch.isalnum())


def likeness(wanted: str, lines: Sequence[str]) -> float:
    """`FOUND` if the wanted text is a line, a word, or several in a row, of what was read; else below one half, the
    lower the less alike."""
    aim = plain(wanted)
    words = [plain(word) for line in lines for word in line.split()]
    pieces = {"".join(words[i:j]) for i in range(len(words)) for j in range(i + 1, min(len(words), i + 12) + 1)}
    pieces |= {plain(line) for line in lines}
    if aim in pieces:
        return FOUND
    best = max((SequenceMatcher(None, aim, piece, autojunk=False).ratio() for piece in pieces), default=0.0)
    return 0.5 * best**2


def _reader() -> Callable[[Pixels], Sequence[str]]:
    engine: Any = importlib.import_module("rapidocr_onnxruntime").RapidOCR()

    def read(picture: Pixels) -> list[str]:
        found, _ = engine(np.ascontiguousarray(picture[..., ::-1]))  # it takes blue first
        return [str(text) for _, text, _ in found or ()]

    return read
