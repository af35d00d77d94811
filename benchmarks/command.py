"""The command line that all benchmarks share: a help that runs nothing, `--quick`, and results that stay as committed.

What is committed is overwritten by a full run only, one whose options are those of the committed run. Every other run
writes where `--out` says, or into a temporary folder that it names; `--quick` keeps nothing unless `--out` is given.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def parser(about: str) -> argparse.ArgumentParser:
    """A parser with `--quick` and `--out`; about: the docstring of the benchmark, which names its module."""
    named = re.search(r"python -m (benchmarks[\w.]+)", about)
    made = argparse.ArgumentParser(
        prog=named and named.group(), description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument(
        "--quick",
        action="store_true",
        help="seconds: only shows that it runs; its figures mean nothing and are not kept",
    )
    made.add_argument(
        "--out", type=Path, metavar="FOLDER",
        help="where results go (default: beside the script for a full run, else a temporary folder)",
    )  # fmt: skip
    return made


def is_full(made: argparse.ArgumentParser, chosen: argparse.Namespace, but: Collection[str] = ()) -> bool:
    """Whether every option has its default, as in the committed run. Positional arguments and `but` do not count."""
    options = [action for action in made._actions if action.option_strings and action.dest not in ("help", "out", *but)]
    return all(getattr(chosen, action.dest) == action.default for action in options)


@contextmanager
def results(chosen: argparse.Namespace, home: Path, full: bool) -> Iterator[Path]:
    """The folder that a run may write to: that of `--out`; `home` for a full run; otherwise a temporary one, which is
    named at the end, or removed after `--quick`."""
    if chosen.out is not None:
        chosen.out.mkdir(parents=True, exist_ok=True)
        yield chosen.out
    elif chosen.quick:
        with tempfile.TemporaryDirectory(prefix="triptych-quick-") as folder:
            yield Path(folder)
    elif full:
        home.mkdir(parents=True, exist_ok=True)
        yield home
    else:
        folder = Path(tempfile.mkdtemp(prefix="triptych-benchmark-"))
        try:
            yield folder
        finally:
            with suppress(OSError):  # empty, since the run ended before it wrote anything
                folder.rmdir()
        print(f"This was no full run, so the committed results stay as they are; its own are in {folder}")
