"""The shape of the code base: who may import whom, what is exported, what must never appear."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
import tomllib
from collections.abc import Iterator
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
EXPORTS = {
    "router": {
        "CostModel",
        "MiniLMEmbedder",
        "QualityPredictor",
        "Queues",
        "Router",
        "execute",
        "load_artifact",
        "make_plan",
    },
    "policies": {
        "PRESETS",
        "Arranged",
        "Known",
        "Policy",
        "PolicyBook",
        "json_schema",
        "load_policy",
        "load_policy_text",
    },
    "models": {"Cancelled", "Catalog", "Engine", "load_card", "load_catalogue"},
}


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted module) of every import in a file, also those inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
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


def test_deciding_never_loads_a_heavy_library() -> None:
    """Importing router, policies and what the orchestrator needs loads neither torch nor Ray."""
    code = (
        "import sys, router, policies, router.routing, router.predictors, router.embedding, deployments.orchestrator\n"
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


@pytest.mark.parametrize("package", [*PACKAGES, "benchmarks"])
def test_nothing_unsafe_is_loaded(package: str) -> None:
    """No pickle, joblib, torch.load, yaml.load or trust_remote_code=True anywhere."""
    wrong = []
    for path in sources(package):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
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
