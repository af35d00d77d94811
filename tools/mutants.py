"""Would the tests notice? Mistakes are put into the modules that carry the promises, one at a time.

    python -m tools.mutants --sample 300             300 mistakes, evenly over the modules, drawn with --seed
    python -m tools.mutants --sample 300 --minutes 20        of these as many as that takes: a fair sample, too
    python -m tools.mutants router/cost              every mistake in the files of one folder
    python -m tools.mutants --only queues.py:66      the mistakes of one line
    python -m tools.mutants router/cost --tests tests/router/cost/test_costs.py     shown to one file of tests

Which mistakes there are is in `mistakes.py`; how the tests are asked, in `noticing.py`. Nothing here is changed by it.
What was tried is kept in `--results`, and not tried again while neither the source nor the tests that gave the verdict
have changed. The score is killed / tried, with its 95 % interval (Wilson). What changes nothing that can be seen is in
`equivalent.yaml`, each with its reason, and is not tried.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import itertools
import json
import math
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import yaml

from tools.mistakes import Mistake, made, mistakes

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / ".mutants"
EQUIVALENT = Path(__file__).with_name("equivalent.yaml")

FOLDERS = (
    "router/cost",
    "deployments/orchestration",
    "deployments/jobs",
    "router/learning",
    "router/learning/tables",
    "deployments/store",
    "router/verification",
    "router/planning",
    "policies/deciding",
    "deployments/api/wire",
    "deployments/api",
)
"""Whose mistakes count, with those of their subfolders, those first where money, limits, jobs and learning are."""
NOT_COUNTED = ("deployments/store/migrations",)
"""Which tests compare with the tables that they end in."""
SUITES = ("policies", "router", "golden", "store", "jobs", "deployments")
"""The folders of tests that are asked, each of all of its files that can be, at any depth."""
NOT_ASKED = {"test_serve.py", "test_serve_workers.py", "test_docs.py", "test_cli_output.py"}
"""Which need a cluster, or look at documents and terminals."""
ALWAYS = ("tests/test_values.py",)
"""Which are asked about everything that is imported anew."""


@dataclass(frozen=True)
class Mutant:
    """A mistake in a file of a folder. number: among those of the file"""

    folder: str
    file: str
    number: int
    line: int
    what: str

    @property
    def name(self) -> str:
        return f"{self.file}:{self.line}: {self.what}"


def asked() -> tuple[str, ...]:
    """The files of tests that are asked about a mistake, if they reach it."""
    files = (path for suite in SUITES for path in sorted((ROOT / "tests" / suite).rglob("test_*.py")))
    return tuple(path.relative_to(ROOT).as_posix() for path in files if path.name not in NOT_ASKED)


def found(folders: list[str]) -> list[Mutant]:
    """Everything below `folders` (all, if there are none) that is not equivalent."""
    same = {(known["file"], known["line"], known["what"]) for known in equivalent()}
    mutants = []
    for folder in FOLDERS:
        for file in _files(folder):
            if folders and not any(file.startswith(wanted.rstrip("/")) for wanted in folders):
                continue
            lines = _source(file).splitlines()
            for number, mistake in enumerate(_mistakes(file)):
                if (file, lines[mistake.line - 1].strip(), mistake.what) not in same:
                    mutants.append(Mutant(folder, file, number, mistake.line, mistake.what))
    return mutants


def equivalent() -> list[dict]:
    """The mistakes that change nothing: `file`, `line` (its text), `what` and `why`."""
    return yaml.safe_load(EQUIVALENT.read_text("utf-8")) or []


def stale() -> list[dict]:
    """Those of `equivalent` that no mistake answers to any more."""
    there = {
        (file, _source(file).splitlines()[mistake.line - 1].strip(), mistake.what)
        for folder in FOLDERS
        for file in _files(folder)
        for mistake in _mistakes(file)
    }
    return [known for known in equivalent() if (known["file"], known["line"], known["what"]) not in there]


def drawn(mutants: list[Mutant], count: int, seed: int) -> list[Mutant]:
    """So many, as evenly over the folders as can be."""
    chance, left, taken = random.Random(seed), count, []
    strata = sorted((_of(mutants, folder) for folder in FOLDERS), key=len)
    for place, stratum in enumerate(strata):
        share = min(len(stratum), left // (len(strata) - place))
        left -= share
        taken += chance.sample(stratum, share)
    chance.shuffle(taken)  # so that whoever stops early has a sample of the sample
    return taken


def wilson(killed: int, tried: int) -> tuple[float, float]:
    """The 95 % interval of a share."""
    if not tried:
        return 0.0, 1.0
    z, share = 1.959964, killed / tried
    middle = (share + z * z / (2 * tried)) / (1 + z * z / tried)
    half = z / (1 + z * z / tried) * math.sqrt(share * (1 - share) / tried + z * z / (4 * tried * tried))
    return middle - half, middle + half


def table(mutants: list[Mutant], verdicts: list[dict], population: dict[str, int]) -> list[dict]:
    """A row for each folder and one for all of them, each folder in it as heavy as its mistakes are many."""
    rows = []
    for folder in (folder for folder in FOLDERS if _of(mutants, folder)):
        of = [v["verdict"] for m, v in zip(mutants, verdicts, strict=True) if m.folder == folder]
        rows.append(_row(folder, population[folder], len(of), sum(verdict in ("killed", "timeout") for verdict in of)))
    total = _row("all", sum(r["mistakes"] for r in rows), sum(r["tried"] for r in rows), sum(r["killed"] for r in rows))
    return [*rows, {**total, "weighted": round(sum(r["mistakes"] * r["score"] for r in rows) / total["mistakes"], 3)}]


def _row(folder: str, mistakes_: int, tried: int, killed: int) -> dict:
    low, high = wilson(killed, tried)
    return {
        "folder": folder, "mistakes": mistakes_, "tried": tried, "killed": killed,
        "score": round(killed / tried, 3), "low": round(low, 3), "high": round(high, 3),
    }  # fmt: skip


def _of(mutants: list[Mutant], folder: str) -> list[Mutant]:
    return [mutant for mutant in mutants if mutant.folder == folder]


def _files(folder: str) -> list[str]:
    others = (*NOT_COUNTED, *(other for other in FOLDERS if other.startswith(f"{folder}/")))
    files = (path.relative_to(ROOT).as_posix() for path in sorted((ROOT / folder).rglob("*.py")))
    return [file for file in files if not any(file.startswith(f"{other}/") for other in others)]


@cache
def _source(file: str) -> str:
    return (ROOT / file).read_text("utf-8")


@cache
def _mistakes(file: str) -> list[Mistake]:
    return list(mistakes(_source(file)))


@cache
def _tree(mutant: Mutant) -> ast.Module:
    return made(_source(mutant.file), _mistakes(mutant.file)[mutant.number])


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


class Results:
    """What was tried, in a file: a verdict stands for as long as the tests that gave it are the same."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, dict] = json.loads(path.read_text()) if path.is_file() else {}

    def of(self, mutant: Mutant, tests: list[str]) -> dict | None:
        """What is known of a mutant that `tests` reach, if it still holds."""
        known = self._known.get(self._key(mutant))
        return known if known is not None and known["asked"] == _asked(known["by"], tests) else None

    def add(self, mutant: Mutant, tests: list[str], verdict: str, by: str, seconds: float) -> dict:
        """Keeps a verdict of `tests`. by: the one that noticed, or "" """
        of = {"verdict": verdict, "by": by, "s": round(seconds, 2), "asked": _asked(by, tests)}
        noted = self._known[self._key(mutant)] = {**asdict(mutant), **of}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(self._known, indent=1))
        new.replace(self._path)
        return noted

    def _key(self, mutant: Mutant) -> str:
        return _digest(mutant.file, ast.unparse(_tree(mutant)))


def _asked(by: str, tests: list[str]) -> str:
    """Of the test that noticed, or of all that did not."""
    files = sorted({test.split("::")[0] for test in ([by] if "::" in by else tests)})
    return _digest(*files, *map(_source, files))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", nargs="*", help="default: all")
    parser.add_argument("--sample", type=int, metavar="N", help="so many, evenly over the folders")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, metavar="N", help="stop after so long, with what was tried")
    parser.add_argument("--seconds", type=float, default=9.0, metavar="N", help="of tests that a mistake is shown to")
    parser.add_argument("--tests", nargs="+", metavar="FILE", help="ask these alone: what others notice is unnoticed")
    parser.add_argument("--only", metavar="FILE:LINE", help="as the survivors are named")
    parser.add_argument("--list", action="store_true", help="count, run nothing")
    parser.add_argument("--results", type=Path, default=KEPT / "results.json", help="what was tried")
    parser.add_argument("--report", type=Path, metavar="FILE", help="a JSON file that gets the table as --name")
    parser.add_argument("--name", default="now")
    args = parser.parse_args()
    if gone := stale():
        print(f"{EQUIVALENT.name}: no such mistake any more: {gone}", file=sys.stderr)
    mutants = found(args.folders)
    population = {folder: len(_of(mutants, folder)) for folder in FOLDERS}
    if args.list:
        print(json.dumps({**population, "all": len(mutants)}, indent=1))
        return
    if args.only:
        mutants = [mutant for mutant in mutants if args.only in mutant.name]
    if args.sample:
        mutants = drawn(mutants, args.sample, args.seed)
    until_s = math.inf if args.minutes is None else time.monotonic() + 60 * args.minutes
    found_out = tried(mutants, Results(args.results), args.seconds, args.tests)
    verdicts = list(itertools.takewhile(lambda _: time.monotonic() < until_s, found_out))
    mutants = mutants[: len(verdicts)]
    survivors = [m.name for m, v in zip(mutants, verdicts, strict=True) if v["verdict"] in ("survived", "unreached")]
    rows = table(mutants, verdicts, population)
    for row in rows:
        share = (
            f"{row['killed']:4} of {row['tried']:4} killed, {row['score']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
        )
        print(f"{row['folder']:26} {row['mistakes']:5} mistakes, {share}")
    print(f"as heavy as their mistakes are many: {rows[-1]['weighted']:.3f}", *survivors, sep="\n")
    if args.report:
        written = json.loads(args.report.read_text()) if args.report.is_file() else {}
        how = {"seed": args.seed, "sample": args.sample, "files": len(args.tests or asked())}
        written[args.name] = {**how, "table": rows, "survivors": survivors}
        args.report.write_text(json.dumps(written, indent=1) + "\n")


def tried(mutants: list[Mutant], results: Results, most_s: float, files: list[str] | None = None) -> Iterator[dict]:
    """What is known of each, which is tried if nothing is, after a control of each folder: no mistake, no verdict.

    most_s: of tests that one is shown to;   files: of tests; default: all
    """
    from tools.noticing import Noticing, Question

    def question(mutant: Mutant) -> Question:
        return Question(mutant.file, _tree(mutant), _mistakes(mutant.file)[mutant.number].lines, ALWAYS)

    sources = [file for folder in FOLDERS for file in _files(folder)]
    bench = Noticing(ROOT, sources, [*(files or asked()), *ALWAYS], KEPT / "reach", most_s)
    try:
        controlled: set[str] = set()
        for mutant in mutants:
            tests = bench.tests(question(mutant))
            known = results.of(mutant, tests)
            if known is None and mutant.folder not in controlled:
                controlled.add(mutant.folder)
                source = _source(mutant.file)
                control = Question(mutant.file, ast.parse(source), (1, len(source.splitlines())), ALWAYS)
                verdict, by, _ = bench.answer(control)
                if verdict in ("killed", "timeout"):
                    raise SystemExit(f"{mutant.file} is said to be wrong as it is: {verdict} {by}")
            if known is None:
                verdict, by, seconds = bench.answer(question(mutant))
                known = results.add(mutant, tests, verdict, by, seconds)
                print(f"{verdict:9} {seconds:5.1f} s  {mutant.name}  {by.split('::')[-1]}", file=sys.stderr, flush=True)
            yield known
    finally:
        bench.close()


if __name__ == "__main__":
    main()
