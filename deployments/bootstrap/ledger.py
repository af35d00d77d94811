"""What a bootstrap has made so far: a line for each event, appended and synced, and the pictures beside it.

A picture is written whole before the line that says so. Killed in between, the picture is found again by its name: it
is not made a second time. A line that was cut off is dropped.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from router.errors import ArtifactError

FILE, PICTURES = "ledger.jsonl", "pictures"


@dataclass(frozen=True)
class Shot:
    """One picture that is asked for. recipe: its key;   seed: of the picture"""

    prompt: str
    recipe: str
    seed: int

    @property
    def id(self) -> str:
        """The same for the same picture, in every run."""
        return hashlib.sha256(json.dumps([self.prompt, self.recipe, self.seed]).encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Entry:
    """A picture that was made, or could not be. seconds: of work, None where that was lost;   scores: by the judge's
    name;   failed: why there is no picture;   unjudged: why there is no score;   aside: in which refresh it was
    replaced by fresh ones, from 1; 0 if it counts"""

    shot: Shot
    seconds: float | None = None
    cost_usd: float = 0.0
    scores: Mapping[str, float] = field(default_factory=dict)
    failed: str = ""
    unjudged: str = ""
    aside: int = 0


class Ledger:
    """Entries by the id of their shot, in a folder. elapsed_s: of all runs together."""

    def __init__(self, folder: Path) -> None:
        """Raises `ArtifactError` if what is there is no ledger."""
        self.folder = folder
        self.entries: dict[str, Entry] = {}
        self.elapsed_s = 0.0
        self._round: int | None = None
        (folder / PICTURES).mkdir(parents=True, exist_ok=True)
        self._file = folder / FILE
        if self._file.exists():
            self._read()

    def __contains__(self, shot: Shot) -> bool:
        return shot.id in self.entries

    def __len__(self) -> int:
        """Pictures that were made."""
        return sum(not entry.failed for entry in self.entries.values())

    @property
    def current(self) -> list[Entry]:
        """Pictures that count: what was made, and was not set aside."""
        return [entry for entry in self.entries.values() if not entry.failed and not entry.aside]

    @property
    def rounds(self) -> int:
        """How many refreshes there were."""
        return max((entry.aside for entry in self.entries.values()), default=0)

    @property
    def cost_usd(self) -> float:
        """Of all pictures."""
        return sum(entry.cost_usd for entry in self.entries.values())

    def picture_file(self, shot: Shot) -> Path:
        """Where its picture is or will be."""
        return self.folder / PICTURES / f"{shot.id}.png"

    def pixels(self, shot: Shot) -> NDArray[np.uint8] | None:
        """The picture, uint8 (height, width, 3), if it is there and whole."""
        file = self.picture_file(shot)
        if not file.is_file():
            return None
        try:
            with Image.open(file) as picture:
                return np.asarray(picture.convert("RGB"))
        except OSError:
            return None

    def made(self, shot: Shot, pixels: NDArray[np.uint8], seconds: float | None, cost_usd: float) -> None:
        """Keep a picture."""
        file = self.picture_file(shot)
        if not file.is_file():
            part = file.with_suffix(".part")
            with part.open("wb") as stream:
                Image.fromarray(pixels).save(stream, "PNG")
                stream.flush()
                os.fsync(stream.fileno())
            part.replace(file)
        self._append({"made": shot.id, **_words(shot), "seconds": seconds, "cost_usd": cost_usd})

    def judged(self, shot: Shot, scores: Mapping[str, float]) -> None:
        """Keep what judges said of a picture."""
        self._append({"judged": shot.id, "scores": dict(scores)})

    def unjudged(self, shot: Shot, why: str) -> None:
        """Keep that a judge failed on a picture."""
        self._append({"unjudged": shot.id, "why": why})

    def failed(self, shot: Shot, why: str) -> None:
        """Keep that a picture could not be made."""
        self._append({"failed": shot.id, **_words(shot), "why": why})

    def set_aside(self, shot: Shot) -> None:
        """Keep that fresh pictures stand for this one from now on. All that one refresh sets aside has its number."""
        if self._round is None:
            self._round = self.rounds + 1
        self._append({"aside": shot.id, "round": self._round})

    def _append(self, event: dict[str, Any]) -> None:
        self._take(event)
        line = json.dumps({**event, "at_s": round(self.elapsed_s, 3)}, ensure_ascii=False)
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def _take(self, event: Mapping[str, Any]) -> None:
        if (id := event.get("made") or event.get("failed")) is not None:
            shot = Shot(event["prompt"], event["recipe"], event["seed"])
            failed = event["why"] if "failed" in event else ""
            self.entries[id] = Entry(shot, event.get("seconds"), event.get("cost_usd", 0.0), failed=failed)
        elif (id := event.get("judged")) is not None:
            self.entries[id] = replace(self.entries[id], scores=event["scores"], unjudged="")
        elif (id := event.get("unjudged")) is not None:
            self.entries[id] = replace(self.entries[id], unjudged=event["why"])
        elif (id := event.get("aside")) is not None:
            self.entries[id] = replace(self.entries[id], aside=int(event["round"]))

    def _read(self) -> None:
        data = self._file.read_bytes()
        whole, newline, torn = data.rpartition(b"\n")
        if torn:  # it was being written when the process died
            with self._file.open("r+b") as stream:
                stream.truncate(len(whole) + len(newline))
        for number, line in enumerate(whole.decode("utf-8").splitlines(), start=1):
            try:
                event = json.loads(line)
                self._take(event)
                self.elapsed_s = max(self.elapsed_s, float(event.get("at_s", 0.0)))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ArtifactError(
                    f"{self._file}:{number} is no line of a bootstrap ({error!r}); restore it, or begin in another "
                    "folder"
                ) from error
        # What failed is tried again by the next run.
        self.entries = {id: entry for id, entry in self.entries.items() if not entry.failed}


def _words(shot: Shot) -> dict[str, Any]:
    return {"prompt": shot.prompt, "recipe": shot.recipe, "seed": shot.seed}
