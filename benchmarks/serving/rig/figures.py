"""What the scripts of this folder share: the command line, files of results, percentiles, pictures."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.command import is_full, parser, results

RESULTS = Path(__file__).resolve().parents[2] / "results" / "serving"


def command(about: str) -> argparse.ArgumentParser:
    """The parser of all benchmarks, with `--json`."""
    made = parser(about)
    made.add_argument("--json", type=Path, metavar="FILE", help="where the raw figures go, too")
    return made


class Results:
    """Where a run keeps its figures. name: of its files;   about: the machine and the options"""

    def __init__(self, out: Path, name: str, chosen: argparse.Namespace) -> None:
        self.out, self.name, self._json = out, name, chosen.json
        given = {key: value for key, value in vars(chosen).items() if key not in ("out", "json")}
        self.about = {"machine": machine(), "options": given}

    def keep(self, figures: Mapping[str, Any]) -> None:
        """Write NAME.json, and the file that `--json` names."""
        text = json.dumps({"about": self.about, **figures}, indent=1) + "\n"
        for file in (self.out / f"{self.name}.json", self._json):
            if file is not None:
                file.write_text(text, encoding="utf-8")

    def picture(self, name: str = "") -> Path:
        """The file of a plot."""
        return self.out / f"{self.name}{name}.svg"


@contextmanager
def kept(made: argparse.ArgumentParser, chosen: argparse.Namespace, name: str) -> Iterator[Results]:
    """The results of a run: beside the committed ones for a full run, elsewhere for any other."""
    with results(chosen, RESULTS, is_full(made, chosen, ("json",))) as out:
        yield Results(out, name, chosen)


def machine() -> dict[str, Any]:
    """On what it ran."""
    return {"machine": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """How many, and the median, 95th and 99th percentile and the largest."""
    if not len(seconds):
        return {"n": 0}
    p50, p95, p99 = np.percentile(seconds, (50, 95, 99))
    found = {"p50": p50, "p95": p95, "p99": p99, "max": max(seconds)}
    return {"n": len(seconds), **{name: round(float(value), 4) for name, value in found.items()}}


def told(label: str, **values: Any) -> None:
    """A line on stdout."""
    words = (f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items())
    print(f"{label:28s} {', '.join(words)}", flush=True)


def pyplot() -> Any:
    """matplotlib, for SVG files that are the same for the same figures."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "triptych"
    from matplotlib import pyplot as found

    return found


def save(figure: Any, file: Path) -> None:
    """Write a figure, without a date."""
    figure.savefig(file, metadata={"Date": None})
    pyplot().close(figure)
