"""What was seen, written down picture by picture, so that a sweep that was ended goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.sweep.standings import Look
from router.errors import RequestError

FILE = "looks.jsonl"
PICTURES = "present"
"""The folder with the pictures of the present way, with which others are compared."""


class Journal:
    """The looks of one sweep in a folder. Raises `RequestError` if the folder holds those of another.

    about: all that must be the same for looks to be comparable
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self._folder = folder
        self._file = folder / FILE
        self.looks: dict[str, dict[int, Look]] = {}
        self.failed: dict[str, str] = {}
        if self._file.is_file():
            self._read(about)
            return
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RequestError(f"--into {folder}: it is not an empty folder, and no sweep's; name a new one", "into")
        (folder / PICTURES).mkdir(parents=True)
        self._append({"about": dict(about)})

    def _read(self, about: Mapping[str, Any]) -> None:
        text = self._file.read_text(encoding="utf-8")
        whole, _, rest = text.rpartition("\n")  # what follows the last line end was being written when it ended
        if rest:
            self._file.write_text(whole + "\n", encoding="utf-8")
        first, *rows = [json.loads(line) for line in whole.splitlines()]
        wanted = json.loads(json.dumps(dict(about)))
        if differs := [key for key in wanted if first["about"].get(key) != wanted[key]]:
            raise RequestError(
                f"--into {self._folder}: it holds a sweep with another {differs[0]}; name a new folder", "into"
            )
        for row in rows:
            if "failed" in row:
                self.failed[row["way"]] = row["failed"]
            else:
                self.looks.setdefault(row["way"], {})[row["prompt"]] = Look(**row["look"])

    def add(self, way: str, prompt: int, look: Look) -> None:
        """Write down one look."""
        self.looks.setdefault(way, {})[prompt] = look
        self._append({"way": way, "prompt": prompt, "look": asdict(look)})

    def fail(self, way: str, reason: str) -> None:
        """Write down that a way cannot be drawn here, so that it is not tried again."""
        self.failed[way] = reason
        self.looks.pop(way, None)
        self._append({"way": way, "failed": reason})

    def keep(self, prompt: int, pixels: NDArray[np.uint8]) -> None:
        """Keep the present way's picture of a prompt."""
        Image.fromarray(pixels).save(self._picture(prompt))

    def kept(self, prompt: int) -> NDArray[np.uint8]:
        """The present way's picture of a prompt."""
        with Image.open(self._picture(prompt)) as image:
            return np.asarray(image.convert("RGB"))

    def _picture(self, prompt: int) -> Path:
        return self._folder / PICTURES / f"{prompt:04}.png"

    def _append(self, row: Mapping[str, Any]) -> None:
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
