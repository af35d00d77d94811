"""A trained predictor on disk: one folder that is verified before anything in it is believed.

    config.json          what the numbers mean (builtins only)
    weights.safetensors  the numbers
    card.md              for people: what it was trained on, and how good it is
    manifest.json        format, version, and sha256 and size of the other three

Nothing in it is code: no pickle, no import paths. A digest over the manifest names the whole artefact.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.errors import ArtifactError

FORMAT = "triptych-quality-predictor"
VERSION = 2
FILES = ("config.json", "weights.safetensors", "card.md")


@dataclass(frozen=True)
class Artifact:
    """The content of an artefact. digest: sha256 over its manifest (hex); path: where it was read from, if it was."""

    config: Mapping[str, Any]
    weights: Mapping[str, NDArray[Any]] = field(repr=False)
    card: str = field(repr=False)
    digest: str = ""
    path: Path | None = None


def load_artifact(path: str | Path, digest: str | None = None, form: str = FORMAT) -> Artifact:
    """Read and verify the artefact of format `form` in folder `path`; with `digest`, only this very one will do.

    Raises `ArtifactError` if it is missing, incomplete, tampered with, of another format or version.
    """
    folder = Path(path)
    manifest, found = _manifest(folder, form)
    if digest is not None and digest != found:
        raise ArtifactError(
            f"{folder} has digest {found[:12]}, expected {digest[:12]}; restore it or update the setting"
        )
    contents = {name: _verified(folder / name, manifest["files"].get(name)) for name in FILES}
    try:
        from safetensors.numpy import load as load_tensors

        config = json.loads(contents["config.json"])
        weights = load_tensors(contents["weights.safetensors"])
        card = contents["card.md"].decode("utf-8")
    except Exception as error:  # safetensors has its own exception class; JSON and UTF-8 have theirs
        raise ArtifactError(f"{folder} cannot be read ({error}); train it again or restore it") from error
    if bad := [name for name, array in weights.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]:
        raise ArtifactError(f"{folder / 'weights.safetensors'}: {bad[0]!r} holds NaN or infinity; train it again")
    return Artifact(config, weights, card, found, folder)


def save_artifact(
    path: str | Path,
    config: Mapping[str, Any],
    weights: Mapping[str, NDArray[Any]],
    card: str,
    form: str = FORMAT,
    beside: Callable[[str], Mapping[str, bytes]] = lambda digest: {},
) -> Artifact:
    """Write an artefact to folder `path` so that a reader sees the old one or the new one, never half of one.

    beside: further files of the folder, by their place in it, given the artefact's digest
    """
    from safetensors.numpy import save as save_tensors

    folder = Path(path).absolute()
    if folder.exists() and any(folder.iterdir()) and not (folder / "manifest.json").is_file():
        raise ArtifactError(f"{folder} holds other files and is not overwritten; choose an empty folder")
    contents = {
        "config.json": (json.dumps(config, indent=1, sort_keys=True, allow_nan=False) + "\n").encode(),
        "weights.safetensors": save_tensors({name: np.ascontiguousarray(array) for name, array in weights.items()}),
        "card.md": card.encode("utf-8"),
    }
    files = {name: {"sha256": _sha256(data), "bytes": len(data)} for name, data in contents.items()}
    manifest = {"format": form, "version": VERSION, "files": files}
    contents["manifest.json"] = (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode()
    contents |= beside(_sha256(contents["manifest.json"]))
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for name, data in contents.items():
            (fresh / name).parent.mkdir(exist_ok=True)
            (fresh / name).write_bytes(data)
        fresh.chmod(0o755)
        _swap_in(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return load_artifact(folder, form=form)


def _swap_in(fresh: Path, folder: Path) -> None:
    """A folder cannot be renamed over a full one: the old one steps aside for the moment."""
    aside = fresh.with_name(fresh.name + ".old")
    if folder.exists():
        os.rename(folder, aside)
    try:
        os.rename(fresh, folder)
    except OSError:
        if aside.exists():
            os.rename(aside, folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _manifest(folder: Path, due: str) -> tuple[dict[str, Any], str]:
    file = folder / "manifest.json"
    if not file.is_file():
        raise ArtifactError(f"{folder} holds no trained artefact (no manifest.json); check the path, or train one")
    data = file.read_bytes()
    try:
        manifest = json.loads(data)
        form, version, files = manifest["format"], manifest["version"], manifest["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{file} is broken ({error}); restore the folder or train it again") from error
    if form != due or version != VERSION or not isinstance(files, dict):
        raise ArtifactError(
            f"{file} is {form!r} version {version!r}; this Triptych reads {due!r} version {VERSION}; train it again"
        )
    return manifest, _sha256(data)


def _verified(file: Path, entry: Any) -> bytes:
    if not file.is_file():
        raise ArtifactError(f"{file} is missing; restore it or train the artefact again")
    data = file.read_bytes()
    if not isinstance(entry, dict) or entry.get("sha256") != _sha256(data):
        raise ArtifactError(f"{file} was changed after training (its sha256 differs); restore it or train it again")
    return data


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
