"""Would the tests notice? Mistakes are put into the modules that carry the promises, one at a time.

    python -m tools.mutants --quick                  twelve mistakes a module, drawn with a seed
    python -m tools.mutants router/cost              every mistake in the files of one folder
    python -m tools.mutants --only queues.py:66      the mistakes of one line

A mistake is a flipped comparison, another operator or constant, `min` for `max`, `and` for `or`, a dropped `not`, a
dropped statement, lock or `finally`. The source is written to a copy of the packages that precedes the real ones on the
path, so nothing here changes. What was tried is kept in `--results` (JSON), and not tried again for the same source and
the same tests. The score is killed / tried; those that `EQUIVALENT` names change nothing and are not tried.
"""

from __future__ import annotations

import argparse
import ast
import copy
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("router", "policies", "models", "deployments")
RESULTS = ROOT / ".mutants.json"
QUICK = 12
TIMEOUT_S = 300

TESTS: dict[str, tuple[str, ...]] = {
    "policies/deciding": ("tests/policies/test_decide.py", "tests/policies/test_afterwards.py",
                          "tests/policies/test_terms.py", "tests/policies/test_arithmetic.py",
                          "tests/policies/test_properties.py"),
    "router/planning": ("tests/router/test_planning.py", "tests/router/test_planning_refusals.py",
                        "tests/router/test_planning_denoise.py", "tests/router/test_execution.py",
                        "tests/router/test_recipes.py", "tests/router/test_sizes.py",
                        "tests/router/test_negative_prompts.py", "tests/router/test_arranging.py"),
    "router/cost": ("tests/router/test_costs.py", "tests/router/test_batches.py", "tests/router/test_arranging.py"),
    "router/verification": ("tests/router/test_search.py", "tests/router/test_escalation.py",
                            "tests/router/test_score_reading.py", "tests/router/test_recalibrating.py",
                            "tests/deployments/test_verification.py"),
    "deployments/orchestration": ("tests/deployments/test_order.py", "tests/deployments/test_breaker.py",
                                  "tests/deployments/test_step_queues.py",
                                  "tests/deployments/test_budgets.py", "tests/deployments/test_limits.py",
                                  "tests/deployments/test_verification.py", "tests/deployments/test_paths.py",
                                  "tests/deployments/test_policy_effects.py",
                                  "tests/deployments/test_orchestrator.py"),
    "deployments/api/wire": ("tests/deployments/test_schemas.py", "tests/deployments/test_wire.py",
                             "tests/deployments/test_warnings.py"),
    "deployments/api": ("tests/deployments/test_schemas.py", "tests/deployments/test_wire.py",
                        "tests/deployments/test_warnings.py", "tests/deployments/test_http_conduct.py",
                        "tests/deployments/test_http.py"),
}  # fmt: skip
"""Which tests are asked about which folder; those that say most in the least time come first."""

EQUIVALENT: set[str] = set()
"""Mistakes that change nothing, as `file:line: what`; whoever adds one says why beside it."""


@dataclass(frozen=True)
class Mutant:
    """One mistake. what: in words;   key: of the source with it"""

    file: str
    line: int
    what: str
    key: str

    @property
    def name(self) -> str:
        return f"{self.file}:{self.line}: {self.what}"


COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
}  # fmt: skip
CALLS = {"min": "max", "max": "min", "any": "all", "all": "any"}


def mistakes(source: str) -> Iterator[tuple[int, str, ast.Module]]:
    """(line, in words, the changed module) for every mistake that can be put into a source."""
    tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    quiet = {id(child) for node in nodes for child in _unlooked(node)}
    for number, node in enumerate(nodes):
        if id(node) in quiet:
            continue
        for what, change in _changes(node):
            changed = copy.deepcopy(tree)
            twin = list(ast.walk(changed))[number]
            change(twin, changed)
            yield getattr(node, "lineno", 0), what, ast.fix_missing_locations(changed)


def _unlooked(node: ast.AST) -> Iterator[ast.AST]:
    """What a node holds that no test can be expected to notice: annotations, docstrings, messages, logging."""
    for field in ("annotation", "returns"):
        if (inner := getattr(node, field, None)) is not None:
            yield from ast.walk(inner)
    if isinstance(node, ast.JoinedStr | ast.Raise):
        yield from ast.walk(node)
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        yield from ast.walk(node)
    if isinstance(node, ast.Expr) and "logger" in ast.dump(node)[:200]:
        yield from ast.walk(node)
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
        yield from ast.walk(node)


def _changes(node: ast.AST) -> Iterator[tuple[str, object]]:
    if isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            if (other := COMPARISONS.get(type(operator))) is not None:
                yield (
                    f"{type(operator).__name__} -> {other.__name__}",
                    _put(lambda n, p=place, o=other: _nth(n.ops, p, o())),
                )
    elif isinstance(node, ast.BinOp | ast.AugAssign) and (swap := OPERATORS.get(type(node.op))) is not None:
        yield f"{type(node.op).__name__} -> {swap.__name__}", _put(lambda n: setattr(n, "op", swap()))
    elif isinstance(node, ast.BoolOp):
        other_ = ast.Or if isinstance(node.op, ast.And) else ast.And
        yield f"{type(node.op).__name__} -> {other_.__name__}", _put(lambda n: setattr(n, "op", other_()))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not):
        yield f"{type(node.op).__name__} dropped", _replaced(lambda n: n.operand)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLS:
        yield f"{node.func.id} -> {CALLS[node.func.id]}", _put(lambda n: setattr(n.func, "id", CALLS[n.func.id]))
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float, bool):
        new = (not node.value) if isinstance(node.value, bool) else node.value + 1
        yield f"{node.value!r} -> {new!r}", _put(lambda n: setattr(n, "value", new))
    elif isinstance(node, ast.IfExp):
        yield "branches swapped", _put(lambda n: n.__dict__.update(body=n.orelse, orelse=n.body))
    elif isinstance(node, ast.If):
        yield "condition negated", _put(lambda n: setattr(n, "test", ast.UnaryOp(ast.Not(), n.test)))
    elif isinstance(node, ast.Expr | ast.AugAssign | ast.Continue | ast.Break):
        yield "statement dropped", _replaced(lambda n: ast.Pass())
    if isinstance(node, ast.AugAssign):
        yield "statement dropped", _replaced(lambda n: ast.Pass())
    if isinstance(node, ast.With) and "lock" in ast.dump(node.items[0]):
        yield "lock dropped", _replaced(lambda n: ast.If(ast.Constant(True), n.body, []))
    if isinstance(node, ast.Try) and node.finalbody:
        yield "finally dropped", _put(lambda n: setattr(n, "finalbody", [ast.Pass()]))


def _nth(items: list, place: int, value: object) -> None:
    items[place] = value


def _put(edit: object) -> object:
    return lambda node, tree: edit(node)  # type: ignore[operator]


def _replaced(make: object) -> object:
    """A change that puts another node in the place of this one."""

    def change(node: ast.AST, tree: ast.AST) -> None:
        for parent in ast.walk(tree):
            for field, value in ast.iter_fields(parent):
                if value is node:
                    setattr(parent, field, make(node))  # type: ignore[operator]
                elif isinstance(value, list) and any(item is node for item in value):
                    value[[item is node for item in value].index(True)] = make(node)  # type: ignore[operator]

    return change


class Bench:
    """A copy of the packages into which one mistake at a time is put."""

    def __init__(self, folder: Path, python: str) -> None:
        self.folder, self.python = folder, python
        for package in PACKAGES:
            (folder / package).mkdir()
            _linked(ROOT / package, folder / package)
        for other in ("tests", "benchmarks", "docs", "tools", "pyproject.toml", "README.md", "CHANGELOG.md"):
            (folder / other).symlink_to(ROOT / other)

    def try_(self, file: str, source: str, tests: tuple[str, ...]) -> str:
        """ "killed", "survived" or "timeout" (which counts as killed) of a source under tests."""
        place = self.folder / file
        whole = place.resolve()
        place.unlink()
        place.write_text(source)
        try:
            return self._run(tests)
        finally:
            place.unlink()
            place.symlink_to(whole)

    def _run(self, tests: tuple[str, ...]) -> str:
        command = [
            self.python,
            "-m",
            "pytest",
            "-q",
            "-x",
            "-p",
            "no:cacheprovider",
            "-m",
            "not slow and not gpu and not ray",
        ]
        environment = {
            **os.environ,
            "PYTHONPATH": str(self.folder),
            "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        for test in tests:
            try:
                done = subprocess.run(
                    [*command, test], cwd=self.folder, env=environment, capture_output=True, timeout=TIMEOUT_S
                )
            except subprocess.TimeoutExpired:
                return "timeout"
            if done.returncode not in (0, 5):
                return "killed"
        return "survived"


def _linked(real: Path, copy_: Path) -> None:
    for path in real.iterdir():
        if path.name == "__pycache__":
            continue
        if path.is_dir() and any(path.rglob("*.py")):
            (copy_ / path.name).mkdir()
            _linked(path, copy_ / path.name)
        else:
            (copy_ / path.name).symlink_to(path)


def found(folders: list[str]) -> Iterator[tuple[str, Mutant, str]]:
    """(folder of `TESTS`, mutant, its source) of everything below `folders`."""
    for folder in TESTS:
        for path in sorted((ROOT / folder).glob("*.py")):
            file = path.relative_to(ROOT).as_posix()
            if folders and not any(file.startswith(wanted.rstrip("/")) for wanted in folders):
                continue
            seen: set[str] = set()
            for line, what, tree in mistakes(path.read_text(encoding="utf-8")):
                source = ast.unparse(tree)
                key = hashlib.sha256(source.encode()).hexdigest()[:16]
                if key not in seen and f"{file}:{line}: {what}" not in EQUIVALENT:
                    seen.add(key)
                    yield folder, Mutant(file, line, what, key), source


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", nargs="*", help="default: all")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} mistakes of each folder")
    parser.add_argument("--sample", type=int, help="that many of each folder")
    parser.add_argument("--only", help="FILE:LINE, as the survivors are named")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--list", action="store_true", help="count, run nothing")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    by_folder: dict[str, list[tuple[Mutant, str]]] = {}
    for folder, mutant, source in found(args.folders):
        if args.only is None or args.only in mutant.name:
            by_folder.setdefault(folder, []).append((mutant, source))
    sample = args.sample or (QUICK if args.quick else None)
    if sample is not None:
        drawn = random.Random(args.seed)
        by_folder = {name: drawn.sample(all_, min(sample, len(all_))) for name, all_ in by_folder.items()}
    if args.list:
        print(json.dumps({name: len(all_) for name, all_ in by_folder.items()}, indent=2))
        return
    known: dict[str, dict] = json.loads(args.results.read_text()) if args.results.is_file() else {}
    folder = Path(tempfile.mkdtemp(prefix="mutants-"))
    try:
        bench = Bench(folder, sys.executable)
        for name, mutants in by_folder.items():
            tests = TESTS[name]
            about = hashlib.sha256(b"".join((ROOT / t).read_bytes() for t in tests)).hexdigest()[:16]
            for mutant, source in mutants:
                key = f"{mutant.key}/{about}"
                if key not in known:
                    known[key] = {**asdict(mutant), "folder": name, "verdict": bench.try_(mutant.file, source, tests)}
                    args.results.write_text(json.dumps(known, indent=1))
                    print(f"{known[key]['verdict']:9} {mutant.name}", file=sys.stderr, flush=True)
            verdicts = [known[f"{mutant.key}/{about}"] for mutant, _ in mutants]
            survived = [v for v in verdicts if v["verdict"] == "survived"]
            score = {"folder": name, "tried": len(verdicts), "killed": len(verdicts) - len(survived)}
            lines = [f"{v['file']}:{v['line']}: {v['what']}" for v in survived]
            print(json.dumps({**score, "score": round(score["killed"] / max(1, len(verdicts)), 3), "survivors": lines}))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
