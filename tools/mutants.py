"""Would the tests notice? Mistakes are put into the modules that carry the promises, one at a time.

    python -m tools.mutants --sample 300             300 mistakes, evenly over the modules, drawn with --seed
    python -m tools.mutants router/cost              every mistake in the files of one folder
    python -m tools.mutants --only queues.py:66      the mistakes of one line

Which mistakes there are is in `mistakes.py`; how the tests are asked, in `noticing.py`. Nothing here is changed by it.
What was tried is kept in `--results`, and not tried again while neither the source nor the tests that gave the verdict
have changed. The score is killed / tried, with its 95 % interval (Wilson). What changes nothing that can be seen is in
`equivalent.yaml`, each with its reason, and is not tried.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import math
import random
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import yaml

from tools.mistakes import Mistake, made, mistakes

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / ".mutants"
EQUIVALENT = Path(__file__).with_name("equivalent.yaml")

TESTS: dict[str, tuple[str, ...]] = {
    "policies/deciding": ("tests/policies/test_decide.py", "tests/policies/test_afterwards.py",
                          "tests/policies/test_terms.py", "tests/policies/test_arithmetic.py",
                          "tests/policies/test_boundaries.py", "tests/policies/test_properties.py"),
    "router/planning": ("tests/router/test_planning.py", "tests/router/test_planning_refusals.py",
                        "tests/router/test_planning_denoise.py", "tests/router/test_execution.py",
                        "tests/router/test_recipes.py", "tests/router/test_sizes.py",
                         "tests/router/test_negative_prompts.py", "tests/router/test_arranging.py",
                         "tests/router/test_plans.py"),
    "router/cost": ("tests/router/test_costs.py", "tests/router/test_batches.py", "tests/router/test_arranging.py"),
    "router/verification": ("tests/router/test_search.py", "tests/router/test_escalation.py",
                             "tests/router/test_score_reading.py", "tests/router/test_recalibrating.py",
                             "tests/router/test_figures.py", "tests/deployments/test_verification.py"),
    "router/learning": ("tests/router/test_off_policy.py", "tests/store/test_decision_log.py",
                         "tests/router/test_evaluation.py", "tests/router/test_training.py",
                         "tests/router/test_adding.py", "tests/router/test_votes.py",
                         "tests/router/test_contrasts.py", "tests/router/test_tables.py",
                         "tests/router/test_figures.py", "tests/router/test_real_ratings.py",
                         "tests/deployments/test_feedback_api.py",
                         "tests/deployments/test_cli_tables.py", "tests/deployments/test_retraining.py"),
    "deployments/orchestration": ("tests/deployments/test_order.py", "tests/deployments/test_breaker.py",
                                  "tests/deployments/test_step_queues.py",
                                  "tests/deployments/test_budgets.py", "tests/deployments/test_limits.py",
                                  "tests/deployments/test_verification.py", "tests/deployments/test_paths.py",
                                  "tests/deployments/test_policy_effects.py",
                                  "tests/deployments/test_orchestrator.py", "tests/deployments/test_answers.py",
                                  "tests/deployments/test_app.py", "tests/deployments/test_wire.py"),
    "deployments/api/wire": ("tests/deployments/test_schemas.py", "tests/deployments/test_wire.py",
                             "tests/deployments/test_warnings.py", "tests/deployments/test_answers.py"),
    "deployments/api": ("tests/deployments/test_schemas.py", "tests/deployments/test_wire.py",
                        "tests/deployments/test_warnings.py", "tests/deployments/test_http_conduct.py",
                        "tests/deployments/test_answers.py", "tests/deployments/test_openapi.py",
                        "tests/deployments/test_feedback_api.py", "tests/deployments/test_policy_api.py",
                        "tests/deployments/test_http.py"),
}  # fmt: skip
"""Which tests are asked about which folder."""
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


def found(folders: list[str]) -> list[Mutant]:
    """Everything below `folders` (all, if there are none) that is not equivalent."""
    same = {(known["file"], known["line"], known["what"]) for known in equivalent()}
    mutants = []
    for folder in TESTS:
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
        for folder in TESTS
        for file in _files(folder)
        for mistake in _mistakes(file)
    }
    return [known for known in equivalent() if (known["file"], known["line"], known["what"]) not in there]


def drawn(mutants: list[Mutant], count: int, seed: int) -> list[Mutant]:
    """So many, as evenly over the folders as can be."""
    chance, left, taken = random.Random(seed), count, []
    strata = sorted((_of(mutants, folder) for folder in TESTS), key=len)
    for place, stratum in enumerate(strata):
        share = min(len(stratum), left // (len(strata) - place))
        left -= share
        taken += chance.sample(stratum, share)
    return sorted(taken, key=mutants.index)


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
    for folder in dict.fromkeys(mutant.folder for mutant in mutants):
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
    return [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / folder).glob("*.py"))]


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
    """What was tried, in a file: verdicts stand for as long as the tests that gave them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, dict] = json.loads(path.read_text()) if path.is_file() else {}

    def of(self, mutant: Mutant) -> dict | None:
        """What is known of a mutant, if it still holds."""
        known = self._known.get(self._key(mutant))
        return known if known is not None and known["asked"] == self._asked(mutant, known["by"]) else None

    def add(self, mutant: Mutant, verdict: str, by: str, seconds: float) -> dict:
        """Keeps a verdict. by: the test that noticed, or "" """
        noted = {
            **asdict(mutant),
            "verdict": verdict,
            "by": by,
            "s": round(seconds, 2),
            "asked": self._asked(mutant, by),
        }
        self._known[self._key(mutant)] = noted
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(self._known, indent=1))
        new.replace(self._path)
        return noted

    def _key(self, mutant: Mutant) -> str:
        return _digest(mutant.file, ast.unparse(_tree(mutant)))

    def _asked(self, mutant: Mutant, by: str) -> str:
        file = by.split("::")[0]
        tests = (*TESTS[mutant.folder], *ALWAYS)
        return _digest(*map(_source, [file] if file in tests else tests))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", nargs="*", help="default: all")
    parser.add_argument("--sample", type=int, metavar="N", help="so many, evenly over the folders")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", metavar="FILE:LINE", help="as the survivors are named")
    parser.add_argument("--list", action="store_true", help="count, run nothing")
    parser.add_argument("--results", type=Path, default=KEPT / "results.json", help="what was tried")
    parser.add_argument("--report", type=Path, metavar="FILE", help="a JSON file that gets the table as --name")
    parser.add_argument("--name", default="now")
    args = parser.parse_args()
    if gone := stale():
        print(f"{EQUIVALENT.name}: no such mistake any more: {gone}", file=sys.stderr)
    mutants = found(args.folders)
    population = {folder: len(_of(mutants, folder)) for folder in TESTS}
    if args.list:
        print(json.dumps({**population, "all": len(mutants)}, indent=1))
        return
    if args.only:
        mutants = [mutant for mutant in mutants if args.only in mutant.name]
    if args.sample:
        mutants = drawn(mutants, args.sample, args.seed)
    results = Results(args.results)
    for mutant, verdict, by, seconds in tried([mutant for mutant in mutants if results.of(mutant) is None]):
        results.add(mutant, verdict, by, seconds)
        print(f"{verdict:9} {seconds:5.1f} s  {mutant.name}  {by.split('::')[-1]}", file=sys.stderr, flush=True)
    verdicts = [known for mutant in mutants if (known := results.of(mutant)) is not None]
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
        written[args.name] = {"seed": args.seed, "sample": args.sample, "table": rows, "survivors": survivors}
        args.report.write_text(json.dumps(written, indent=1) + "\n")


def tried(mutants: list[Mutant]) -> Iterator[tuple[Mutant, str, str, float]]:
    """(mutant, verdict, the test that noticed, seconds) of each, after a control of each folder: no mistake, no
    verdict."""
    from tools.noticing import Noticing, Question

    if not mutants:
        return
    folders = list(dict.fromkeys(mutant.folder for mutant in mutants))
    asked = [*dict.fromkeys(test for folder in folders for test in TESTS[folder]), *ALWAYS]
    bench = Noticing(ROOT, [file for folder in TESTS for file in _files(folder)], asked, KEPT / "reach")
    controls = [next(mutant for mutant in mutants if mutant.folder == folder) for folder in folders]

    def questions() -> Iterator[Question]:
        for mutant in controls:
            lines = 1, len(_source(mutant.file).splitlines())
            yield Question(mutant.file, ast.parse(_source(mutant.file)), lines, TESTS[mutant.folder], ALWAYS)
        for mutant in mutants:
            lines = _mistakes(mutant.file)[mutant.number].lines
            yield Question(mutant.file, _tree(mutant), lines, TESTS[mutant.folder], ALWAYS)

    try:
        answers = bench.answers(questions())
        for mutant in controls:
            verdict, by, _ = next(answers)
            if verdict in ("killed", "timeout"):
                raise SystemExit(f"{mutant.file} is said to be wrong as it is: {verdict} {by}")
        for mutant in mutants:
            yield mutant, *next(answers)
    finally:
        bench.close()


if __name__ == "__main__":
    main()
