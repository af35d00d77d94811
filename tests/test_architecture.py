"""The shape of the code base: who may import whom, what is exported, what must never appear."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("router", "policies", "models", "deployments")

# package -> modules of ours that it may import
ALLOWED = {
    "router": {"router"},
    "policies": {"policies", "router.types", "router.errors"},
    "models": {"models", "router.types", "router.errors"},
    "deployments": {"deployments", "models", "policies", "router"},
}
# package -> third-party roots that it may not import, at any depth
FORBIDDEN = {
    "router": {"ray", "fastapi", "starlette", "diffusers", "torch"},
    "policies": {"ray", "fastapi", "starlette", "diffusers", "torch", "onnxruntime", "sklearn"},
    "models": {"ray", "fastapi", "starlette"},
    "deployments": set(),
}
# Within a package, the folders (and modules beside them) are floors: each imports only from those below it.
FLOORS = {
    "router": (
        "bench", "routing", "route", "requests", "bootstrap", "verification", "learning", "quality", "planning",
        "prompts", "registry", "cost", "errors", "types",
    ),
    "policies": ("store", "checking", "deciding", "language"),
    "models": (
        "sweep", "engine", "fitting", "download", "fusion", "judging", "scoring", "embedded", "styles", "catalogue",
        "schema", "components", "remote", "handover", "profiling", "exporting", "weights", "onnx", "tuning",
        "schedulers", "families", "prompts", "layouts", "call", "provenance", "given",
    ),
    "deployments": (
        "cli", "app", "cluster", "bootstrap", "offline", "in_process", "policy_versions", "assembly", "served_recipes",
        "known_names", "api",
        "page", "jobs", "operating", "orchestration", "safety", "store", "given", "workers", "observing", "settings",
        "placement", "section",
    ),
}  # fmt: skip
MOST_MODULES = 12
EXPORTS = {
    "policies": {
        "PRESETS",
        "Known",
        "PlannedRecipe",
        "Policy",
        "PolicyBook",
        "json_schema",
        "load_policy",
        "load_policy_text",
    },
    "models": {"Cancelled", "Catalogue", "Engine", "load_card", "load_catalogue", "load_engine"},
}


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Everything in a file, read once for all tests."""
    return tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


@cache
def imports(path: Path) -> tuple[tuple[int, str], ...]:
    """(line, dotted module) of every import in a file, also those inside functions."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            # `from router import types` names the module router.types
            if node.module in PACKAGES:
                yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, node.module


def sources(package: str) -> list[Path]:
    return sorted(p for p in (ROOT / package).rglob("*.py") if "__pycache__" not in p.parts)


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_one_way(package: str) -> None:
    """deployments may import models, policies and router; models and policies only router's values and errors."""
    wrong = []
    for path in sources(package):
        for line, module in imports(path):
            if module.split(".")[0] in PACKAGES and not any(
                module == allowed or module.startswith(allowed + ".") for allowed in ALLOWED[package]
            ):
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {module}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_stay_free_of_what_they_must_not_need(package: str) -> None:
    """router and policies import no Ray, FastAPI, torch or diffusers, not even inside a function."""
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in sources(package)
        for line, module in imports(path)
        if module.split(".")[0] in FORBIDDEN[package]
    ]
    assert not wrong, "\n".join(wrong)


def floor_of(path: Path, package: str) -> str:
    """The folder of a module below its package, or its own name if it lies beside them; "" for the package itself."""
    parts = path.relative_to(ROOT / package).with_suffix("").parts
    return "" if parts == ("__init__",) else parts[0]


@pytest.mark.parametrize("package", PACKAGES)
def test_folders_are_floors(package: str) -> None:
    """A folder imports only from floors below it, so that nobody who follows a request climbs back up."""
    floors = FLOORS[package]
    wrong = []
    for path in sources(package):
        own = floor_of(path, package)
        if not own:
            continue
        assert own in floors, f"{own!r} of {package} has no floor in this test"
        for line, module in imports(path):
            top, _, rest = module.partition(".")
            other = rest.split(".")[0]
            if top == package and other in floors and floors.index(other) < floors.index(own):
                wrong.append(f"{path.relative_to(ROOT)}:{line} climbs up to {module}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_circle_between_modules(package: str) -> None:
    """No module imports one that imports it, by whatever way."""
    known = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in sources(package)}
    after = {name: {m for _, m in imports(path) if m in known and m != name} for name, path in known.items()}
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " → ".join((*way, name))
        if name not in done:
            for other in after[name]:
                visit(other, (*way, name))
            done.add(name)

    for name in known:
        visit(name, ())


def test_no_folder_is_crowded() -> None:
    """No folder holds more than a dozen modules, nor do those of tests and benchmarks."""
    names = (*PACKAGES, "tests", "benchmarks")
    counts = Counter(p.parent.relative_to(ROOT) for name in names for p in sources(name) if p.stem != "__init__")
    crowded = {str(folder): count for folder, count in counts.items() if count > MOST_MODULES}
    assert not crowded, crowded


def test_deciding_never_loads_a_heavy_library() -> None:
    """Importing router, policies and what the orchestrator needs loads neither torch nor Ray."""
    code = (
        "import sys, router, policies, router.routing, router.quality.predictor, router.prompts.embedding"
        ", deployments.orchestration.orchestrator\n"
        "heavy = {'torch', 'ray', 'diffusers', 'transformers', 'sentence_transformers'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {sorted(heavy)}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_package_is_listed_and_exists() -> None:
    """pyproject lists exactly the packages that hold Python files, so that an installed Triptych is complete."""
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {".".join(p.parent.relative_to(ROOT).parts) for name in PACKAGES for p in sources(name)}
    assert listed == found


@pytest.mark.parametrize("package", PACKAGES)
def test_exported_names_are_the_documented_ones(package: str) -> None:
    """What a package exports is written down here, so that adding or losing a public name is a decision."""
    module = importlib.import_module(package)
    assert set(getattr(module, "__all__", ())) == EXPORTS.get(package, set())
    for name in EXPORTS.get(package, ()):
        assert getattr(module, name) is not None


UNSAFE_CALLS = {("pickle", "load"), ("pickle", "loads"), ("joblib", "load"), ("torch", "load"), ("yaml", "load")}


@pytest.mark.parametrize("package", [*PACKAGES, "benchmarks", "tools"])
def test_nothing_unsafe_is_loaded(package: str) -> None:
    """No pickle, joblib, torch.load, yaml.load or trust_remote_code=True anywhere."""
    wrong = []
    for path in sources(package):
        for node in nodes(path):
            if isinstance(node, ast.Call):
                func = node.func
                called = (
                    (func.value.id, func.attr)
                    if isinstance(func, ast.Attribute) and isinstance(func.value, ast.Name)
                    else None
                )
                if called in UNSAFE_CALLS:
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} {'.'.join(called)}")
                for keyword in node.keywords:
                    if keyword.arg == "trust_remote_code" and getattr(keyword.value, "value", None) is not False:
                        wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} trust_remote_code")
    assert not wrong, "\n".join(wrong)


def test_mutations_are_shown_to_tests_that_exist() -> None:
    """Whatever `make mutants` names is there: a renamed folder or file would let mistakes pass unseen."""
    from tools.mutants import ALWAYS, FOLDERS, NOT_ASKED, SUITES, asked

    assert [folder for folder in FOLDERS if not any((ROOT / folder).glob("*.py"))] == []
    assert [suite for suite in SUITES if not any(name.startswith(f"tests/{suite}/") for name in asked())] == []
    assert [name for name in ALWAYS if not (ROOT / name).is_file()] == []
    assert [name for name in NOT_ASKED if not any((ROOT / "tests").rglob(name))] == []


def test_what_is_called_equivalent_can_still_be_done() -> None:
    """Every mistake of `tools/equivalent.yaml` is one that the code allows, and says why nobody could see it."""
    from tools.mutants import equivalent, stale

    assert stale() == []
    assert all(known["why"] for known in equivalent())


@pytest.mark.parametrize("package", PACKAGES)
def test_what_is_imported_is_declared(package: str) -> None:
    """Whatever the product imports stands in pyproject.toml itself: it does not hang on others' requirements."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    declared = {canonical(one) for one in listed}
    owners = packages_distributions()
    ours = {path.name for path in ROOT.iterdir()}
    wrong = []
    for path in sources(package):
        for line, module in imports(path):
            root = module.split(".")[0]
            if root in ours or root in sys.stdlib_module_names or root not in owners:
                continue  # the last: of the few that a comment beside their import calls optional
            if not declared & {canonical(owner) for owner in owners[root]}:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {module}")
    assert not wrong, "\n".join(wrong)


def canonical(requirement: str) -> str:
    """The name of a requirement, as PyPI compares names."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement, maxsplit=1)[0]).lower()
