"""Whether tests notice a mistake, in milliseconds: one process collects them, and forks once for each mistake.

Before the first, the tests run once in forks that note their seconds and the lines that they reach; of a mistake only
those tests are asked that reach it, until one fails. In the fork, the functions of the module get the code that they
would have with the mistake. What is not inside a function (a default, a table, a decorator), or ran while modules were
imported, is tried in a fork that was made before anything of ours was imported, and imports the module with the
mistake.
"""

from __future__ import annotations

import ast
import functools
import gc
import hashlib
import importlib
import importlib.machinery
import importlib.util
import itertools
import json
import math
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
import types
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

PATIENCE_S = 15.0
"""For how long a mistake may hold up a test beyond five times what it takes; then it counts as noticed."""
START_S = 120.0
"""For how long it may hold up the import of everything."""
MOST_S = 9.0
"""Tests beyond this sum of seconds are not asked about a mistake; two thirds are for those of its own package."""
NEAR = 8
"""So many lines further on tests count as near a mistake."""
FIRST = ("numpy", "torch", "diffusers", "transformers", "ray.serve", "fastapi", "httpx", "sklearn.linear_model",
         "onnxruntime", "tokenizers", "PIL.Image", "cv2", "typer", "pydantic", "yaml", "hypothesis", "scipy.stats",
         "scipy.optimize", "sqlalchemy", "alembic.command", "httpcore", "openai", "fsspec", "rich.console")  # fmt: skip
"""What every fork needs and none changes."""
OPTIONS = ("-x", "-o", "addopts=--strict-markers", "-p", "no:cacheprovider", "-p", "no:terminal",
           "-m", "not slow and not gpu and not ray and not shipped_weights")  # fmt: skip

Lines = frozenset[tuple[str, int]]


@dataclass(frozen=True)
class Question:
    """A mistake as the tree of its file (relative to the root), and the lines that must run for it to be noticed.

    always: the files of tests that are asked whatever they reach, if the module is imported anew
    """

    file: str
    tree: ast.Module
    lines: tuple[int, int]
    always: tuple[str, ...] = ()


@dataclass
class Reach:
    """What each test (by node id) takes in seconds, and the (file, line) that it reaches; failed: with no mistake."""

    seconds: dict[str, float] = field(default_factory=dict)
    lines: dict[str, Lines] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    def told(self) -> dict[str, Any]:
        """As JSON has it."""
        lines = {test: sorted(reached) for test, reached in self.lines.items()}
        return {"seconds": self.seconds, "lines": lines, "failed": self.failed}

    @classmethod
    def of(cls, told: dict[str, Any]) -> Reach:
        """What `told` made."""
        lines = {test: frozenset((file, line) for file, line in reached) for test, reached in told["lines"].items()}
        return cls(told["seconds"], lines, told["failed"])

    def add(self, other: Reach) -> None:
        """Takes what is known of further tests."""
        self.seconds |= other.seconds
        self.lines |= other.lines
        self.failed += other.failed

    def tests(self, question: Question, anywhere: Collection[str], most_s: float) -> list[str]:
        """Those that reach the lines of a question, or any line of some files, those of its own package first."""
        wanted = {(question.file, line) for line in range(question.lines[0], question.lines[1] + 1)}
        found = [
            test
            for test, lines in self.lines.items()
            if (anywhere and test.split("::")[0] in question.always)
            or (any(file in anywhere for file, _ in lines) if anywhere else not lines.isdisjoint(wanted))
        ]
        at_home = set(question.file.split("/"))  # tests/router is at home in router/, tests/jobs in deployments/jobs
        home = [test for test in found if test.split("/")[1] in at_home]
        away = [test for test in found if test not in set(home)]
        # What is changed in the head of a function, or above a few lines of a table, is used near by.
        near = {(question.file, line) for line in range(question.lines[0], question.lines[1] + NEAR)}
        return self._in_turn(home, most_s * 2 / 3, near) + self._in_turn(away, most_s / 3, near)

    def _in_turn(self, tests: list[str], most_s: float, near: set[tuple[str, int]]) -> list[str]:
        """Half of so many seconds for what is quick and reaches little else, for that says most about what it reaches;
        the other half for the first of each file that is left, then the second of each, and so on."""
        specific = sorted(
            tests, key=lambda test: (near.isdisjoint(self.lines[test]), self.seconds[test] * len(self.lines[test]))
        )
        total, asked = 0.0, []
        for test in specific:
            if total + self.seconds[test] <= most_s / 2:
                total += self.seconds[test]
                asked.append(test)
        files: dict[str, list[str]] = {}
        for test in (test for test in specific if test not in set(asked)):
            files.setdefault(test.split("::")[0], []).append(test)
        for test in (test for one in itertools.zip_longest(*files.values()) for test in one if test is not None):
            if total + self.seconds[test] <= most_s:
                total += self.seconds[test]
                asked.append(test)
        return asked


class Noticing:
    """Answers questions about mistakes in `files` with the tests' files of `asked`, both relative to `root`.

    cache: a folder in which the reach of a test file is kept, for as long as nothing changes that it imports
    most_s: tests beyond this sum of seconds are not asked about a mistake
    """

    def __init__(self, root: Path, files: list[str], asked: list[str], cache: Path, most_s: float = MOST_S) -> None:
        self.root, self.files, self.asked, self.cache, self.most_s = root, files, asked, cache, most_s
        self.folder = Path(tempfile.mkdtemp(prefix="mutants-"))
        for name in FIRST:
            importlib.import_module(name)
        os.chdir(root)
        hypothesis = sys.modules["hypothesis"]
        quick = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
        hypothesis.settings.register_profile("mutants", database=None, derandomize=True, deadline=None, phases=quick)
        hypothesis.settings.load_profile("mutants")
        gc.collect()
        gc.freeze()

        (asked, self._there), (self._back, answers) = Pipe(duplex=False), Pipe(duplex=False)
        self._server = os.fork()
        if self._server == 0:
            with _left():
                _serve(self, asked, answers)
        if (told := self._back.recv()) is None:
            self.close()
            raise SystemExit("The tests cannot be collected; see `make test-fast`.")
        self._sound: dict[str, bool] = {}
        self.reach: Reach = told[0]
        self._on_import: Lines = told[1]
        for test in self.reach.failed:
            print(f"not asked, for it fails without a mistake: {test}", file=sys.stderr)

    def tests(self, question: Question) -> list[str]:
        """Those that are asked, by node id, the fastest first."""
        anywhere = {question.file, *self._using(question.file)} if self._afresh(question) else ()
        return self.reach.tests(question, anywhere, self.most_s)

    def answer(self, question: Question) -> tuple[str, str, float]:
        """("killed", "survived", "timeout" or "unreached", the test that failed, seconds)

        A test notices a mistake if it fails twice with it and passes without: on a busy machine some fail by chance.
        """
        began = time.monotonic()
        tests = self.tests(question)
        verdict, by = self._told(question, tests)
        while "::" in by and not (self._passes(question, by) and self._told(question, [by])[1]):
            tests = [test for test in tests if test != by]
            verdict, by = self._told(question, tests)
        return verdict, by, time.monotonic() - began

    def _told(self, question: Question, tests: list[str]) -> tuple[str, str]:
        """Of some tests, the verdict and the first that fails."""
        verdict, by = "fresh" if tests else "unreached", ""
        if tests and not self._afresh(question):
            self._there.send((question, tests))
            verdict, by = self._back.recv() or ("fresh", "")
        if verdict == "fresh":
            verdict, by = _asked(self, self.reach.seconds, partial(_imported, self, question, tests))
        return verdict, by

    def _passes(self, question: Question, test: str) -> bool:
        """Whether a test passes without a mistake; it is asked once."""
        if test not in self._sound:
            source = (self.root / question.file).read_text("utf-8")
            self._there.send((Question(question.file, ast.parse(source), question.lines), [test]))
            self._sound[test] = (self._back.recv() or ("", "fresh")) == ("survived", "")
        return self._sound[test]

    def _using(self, file: str) -> list[str]:
        """Who imports a file: its tables and defaults are used there, perhaps without a line of it being run."""
        return [one for one in self.files if file in _imports(self.root, one)]

    def _afresh(self, question: Question) -> bool:
        """Whether the module must be imported with the mistake."""
        path = self.root / question.file
        was, becomes = _compiled(ast.parse(path.read_text("utf-8")), path), _compiled(question.tree, path)
        run = {(question.file, line) for line in range(question.lines[0], question.lines[1] + 1)}
        return _shell(was) != _shell(becomes) or not self._on_import.isdisjoint(run)

    def close(self) -> None:
        """Ends the forks and removes what they wrote."""
        os.kill(self._server, signal.SIGKILL)
        os.waitpid(self._server, 0)
        shutil.rmtree(self.folder, ignore_errors=True)


class _left:
    """Ends a fork without any of its parent's clean-up, whatever happens."""

    def __enter__(self) -> None:
        os.setpgid(0, 0)

    def __exit__(self, *error: Any) -> None:
        os._exit(0 if error[0] is None else 70)


Begins = Callable[[str], None]
"""Is told of each test before it runs."""


def _asked(bench: Noticing, seconds: Mapping[str, float], ask: Callable[[Begins], str]) -> tuple[str, str]:
    """(verdict, test that failed) of `ask`, which runs in a fork and returns the test, "" for none, or "fresh".

    seconds: what each test takes
    """
    told, tell = Pipe(duplex=False)
    if (child := os.fork()) == 0:
        with _left():
            place = Path(tempfile.mkdtemp(dir=bench.folder))
            os.environ["XDG_STATE_HOME"] = str(place / "state")
            os.environ["PYTEST_DEBUG_TEMPROOT"] = str(place)
            _silent()
            tell.send(("", ask(lambda test: tell.send((test, "")))))
    tell.close()
    by, held_up, patience_s = None, "", START_S
    while by is None and _heard(told, patience_s * _busy()):
        try:
            held_up, said = told.recv()
            by = said if not held_up else None
        except EOFError:
            by = "(the process died)"
        patience_s = PATIENCE_S + 5 * seconds.get(held_up, 0.0)
    told.close()
    _end(child)
    for leftover in bench.folder.iterdir():
        if leftover.name.startswith("tmp"):
            shutil.rmtree(leftover, ignore_errors=True)
    if by is None:
        return "timeout", held_up
    return ("fresh", "") if by == "fresh" else ("killed", by) if by else ("survived", "")


def _heard(told: Connection, within_s: float) -> bool:
    """Whether something comes within so many seconds. One in which everything was halted counts as one, however long
    that was: no mistake held it up."""
    return any(told.poll(1.0) for _ in range(math.ceil(within_s)))


def _busy() -> float:
    """How many times as long everything takes as on a machine with nothing else to do."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def _silent() -> None:
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)


def _end(child: int) -> None:
    try:
        os.killpg(child, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


# In the fork that has imported and collected everything.


def _serve(bench: Noticing, questions: Connection, answers: Connection) -> None:
    tracer = _Tracer(bench.root, bench.files)
    loop = _Loop(bench, tracer, questions, answers)
    with tracer:
        code = pytest.main([*OPTIONS, *bench.asked], plugins=[loop])
    print(f"pytest ended with {code}", file=sys.stderr)
    answers.send(None)


class _Tracer:
    """Notes into `lines` which lines of some files are run."""

    def __init__(self, root: Path, files: list[str]) -> None:
        self.lines: set[tuple[str, int]] = set()
        self._names = {str(root / file): file for file in files}

    def __enter__(self) -> None:
        threading.settrace(self._called)
        sys.settrace(self._called)

    def __exit__(self, *error: Any) -> None:
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]

    def _called(self, frame: types.FrameType, event: str, arg: Any) -> Any:
        file = self._names.get(frame.f_code.co_filename)
        if file is None:
            return None

        def ran(frame: types.FrameType, event: str, arg: Any) -> Any:
            if event == "line":
                self.lines.add((file, frame.f_lineno))
            return ran

        return ran


class _Loop:
    """In the place of pytest's own loop over what it collected."""

    def __init__(self, bench: Noticing, tracer: _Tracer, questions: Connection, answers: Connection) -> None:
        self.bench, self.tracer, self.questions, self.answers = bench, tracer, questions, answers
        self.shared: dict[Any, set[tuple[str, int]]] = {}

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Answers questions for ever."""
        self.tracer.__exit__()
        if session.testsfailed:
            return True
        imported, self.tracer.lines = frozenset(self.tracer.lines), set()
        ours = [
            thing for thing in gc.get_objects() if isinstance(thing, types.FunctionType | functools._lru_cache_wrapper)
        ]
        items = {item.nodeid: item for item in session.items}
        _prepared(self.bench)
        gc.collect()
        gc.freeze()
        reach = Reach()
        for file in dict.fromkeys(item.nodeid.split("::")[0] for item in session.items):
            reach.add(self._reach(file, [item for item in session.items if item.nodeid.split("::")[0] == file]))
        self.answers.send((reach, imported))
        while True:
            question, tests = self.questions.recv()
            chosen = [items[test] for test in tests]
            ask = partial(_changed, self.bench, question, chosen, ours)
            self.answers.send(_asked(self.bench, reach.seconds, ask))

    def _reach(self, file: str, items: list[pytest.Item]) -> Reach:
        """What the tests of one file reach: kept, or found by running them in a fork."""
        kept = self.bench.cache / f"{Path(file).stem}-{_digest(self.bench, file)}.json"
        if kept.is_file():
            return Reach.of(json.loads(kept.read_text("utf-8")))
        print(f"what is reached by {file}", file=sys.__stderr__, flush=True)
        if (child := os.fork()) == 0:
            with _left():
                os.environ["XDG_STATE_HOME"] = str(self.bench.folder / f"state-{kept.stem}")
                found = self._run_traced(items)
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.with_suffix(".new").write_text(json.dumps(found.told()), "utf-8")
                kept.with_suffix(".new").replace(kept)
        os.waitpid(child, 0)
        if not kept.is_file():
            return Reach(failed=[file])
        return Reach.of(json.loads(kept.read_text("utf-8")))

    def _run_traced(self, items: list[pytest.Item]) -> Reach:
        found = Reach()
        items[0].config.pluginmanager.register(_Fixtures(self))
        for item, following in zip(items, [*items[1:], None], strict=True):
            self.tracer.lines = set()
            began = time.process_time()
            with self.tracer:
                reports = runtestprotocol(item, log=False, nextitem=following)
            if any(report.failed for report in reports):
                found.failed.append(item.nodeid)
                continue
            lines = set(self.tracer.lines)
            for definitions in item._fixtureinfo.name2fixturedefs.values():  # type: ignore[attr-defined]
                for definition in definitions:
                    lines |= self.shared.get(definition, set())
            found.seconds[item.nodeid] = round(time.process_time() - began, 4)
            found.lines[item.nodeid] = frozenset(lines)
        return found


class _Fixtures:
    """Notes what shared fixtures reach, for every test that has them."""

    def __init__(self, loop: _Loop) -> None:
        self._loop = loop

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Iterator[None]:
        tracer = self._loop.tracer
        outer, tracer.lines = tracer.lines, set()
        try:
            return (yield)
        finally:
            if fixturedef.scope != "function":
                self._loop.shared[fixturedef] = set(tracer.lines)
            tracer.lines |= outer


def _prepared(bench: Noticing) -> None:
    """Makes once what takes long and no mistake changes: the tiny models, and the artefact of the tests on serving."""
    weights, artifact = bench.folder / "weights", bench.folder / "artifact"
    if (child := os.fork()) == 0:
        with _left():
            _silent()
            from tests.deployments.support.evidence import train_tiny
            from tests.models import tiny

            tiny.save_all(weights)
            train_tiny(artifact)
    os.waitpid(child, 0)
    from tests.deployments.support import evidence
    from tests.models import tiny

    def copied(source: Path) -> Callable[[Path], Path]:
        return lambda path: Path(shutil.copytree(source, path, dirs_exist_ok=True))

    tiny.save_all, evidence.train_tiny = copied(weights), copied(artifact)  # type: ignore[assignment]


def _changed(bench: Noticing, question: Question, items: list[pytest.Item], functions: list, begins: Begins) -> str:
    """The test that fails when functions have their code with the mistake."""
    path = bench.root / question.file
    was, becomes = _compiled(ast.parse(path.read_text("utf-8")), path), _compiled(question.tree, path)
    twins, changed = dict(_twins(was, becomes)), 0
    for function in functions:
        if isinstance(function, functools._lru_cache_wrapper):
            if getattr(function, "__module__", "") == _module(question.file):
                function.cache_clear()
        elif (twin := twins.get(function.__code__)) is not None:
            try:
                function.__code__ = twin
            except ValueError:  # it closes over other names
                return "fresh"
            changed += 1
    if not changed and was != becomes:
        return "fresh"
    for item, following in zip(items, [*items[1:], items[0]], strict=True):
        begins(item.nodeid)
        if any(report.failed for report in runtestprotocol(item, log=False, nextitem=following)):
            return item.nodeid
    return ""


def _twins(was: types.CodeType, becomes: types.CodeType) -> Iterator[tuple[types.CodeType, types.CodeType]]:
    """(the code of a function as it was, as it becomes) where these differ."""
    before, after = (
        [const for const in code.co_consts if isinstance(const, types.CodeType)] for code in (was, becomes)
    )
    if was != becomes:
        yield was, becomes
    if len(before) == len(after):
        for one, other in zip(before, after, strict=True):
            yield from _twins(one, other)


# In a fork that has imported nothing of ours.


def _imported(bench: Noticing, question: Question, tests: list[str], begins: Begins) -> str:
    """The test that fails when the module is imported with the mistake."""
    sys.meta_path.insert(0, _Finder(bench.root, question))
    chosen = _Chosen(tests, begins)
    code = pytest.main([*OPTIONS, *dict.fromkeys(test.split("::")[0] for test in tests)], plugins=[chosen])
    return "" if code == 0 else chosen.failed


class _Finder:
    """Finds one module with its mistake."""

    def __init__(self, root: Path, question: Question) -> None:
        self._path, self._question = root / question.file, question

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != _module(self._question.file):
            return None
        loader = _Loader(name, str(self._path))
        loader.tree = self._question.tree
        return importlib.util.spec_from_file_location(name, self._path, loader=loader)


class _Loader(importlib.machinery.SourceFileLoader):
    tree: ast.Module

    def get_code(self, fullname: str) -> types.CodeType:
        return _compiled(self.tree, Path(self.path))


class _Chosen:
    """Leaves some tests, in a given order, and notes which failed."""

    def __init__(self, tests: list[str], begins: Begins) -> None:
        self._begins = begins
        self._order = {test: place for place, test in enumerate(tests)}
        self.failed = "(on import)"

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted((i for i in items if i.nodeid in self._order), key=lambda i: self._order[i.nodeid])

    def pytest_runtest_logstart(self, nodeid: str, location: Any) -> None:
        self._begins(nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed = report.nodeid


# About code.


def _compiled(tree: ast.Module, path: Path) -> types.CodeType:
    return compile(tree, str(path), "exec", dont_inherit=True)


def _shell(code: types.CodeType) -> tuple:
    """What of a module's code runs on import: all but the insides of its functions."""
    consts = []
    for const in code.co_consts:
        if not isinstance(const, types.CodeType):
            consts.append((type(const), const))
        elif const.co_flags & 1 and (const.co_name == "<lambda>" or const.co_name[0] != "<"):
            consts.append((types.CodeType, const.co_qualname))
        else:  # a class or a comprehension
            consts.append((types.CodeType, _shell(const)))
    return code.co_code, code.co_names, code.co_flags, tuple(consts)


def _module(file: str) -> str:
    return file.removesuffix(".py").replace("/", ".")


def _digest(bench: Noticing, test: str) -> str:
    """Of all sources on which the reach of a test file depends: what it imports, and what that imports, and so on."""
    folders = [path.as_posix() for path in Path(test).parents if path.parts]
    found, new = set[str](), {test, *(f"{folder}/conftest.py" for folder in folders)}
    while new:
        found |= new
        new = {name for file in new for name in _imports(bench.root, file)} - found
    digest = hashlib.sha256(repr(sorted(bench.files)).encode())
    for name in sorted(found):
        digest.update((bench.root / name).read_bytes() if (bench.root / name).is_file() else b"")
    return digest.hexdigest()[:16]


@functools.cache
def _imports(root: Path, file: str) -> frozenset[str]:
    """The files of ours that a file imports, also in a function, or names as modules in a text, as commands do."""
    if not (root / file).is_file():
        return frozenset()
    names = set[str]()
    for node in ast.walk(ast.parse((root / file).read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.add(node.value.partition(":")[0])
    places = {name.replace(".", "/") for name in names if re.fullmatch(r"[a-z_]\w*(\.\w+)+", name)}
    packages = {str(parent) for place in places for parent in Path(place).parents if parent.parts}
    files = {f"{place}.py" for place in places} | {f"{place}/__init__.py" for place in places | packages}
    return frozenset(file for file in files if (root / file).is_file())
