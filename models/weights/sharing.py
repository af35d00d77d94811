"""Networks that several pipelines of one process have in common are loaded once.

SDXL, its turbo and its refiner bring the same text encoders and VAE; a guest is a model that the process may hold
anyway. What comes from files of the same content, by the same configuration, for the same device and dtype, is one
module.
"""

from __future__ import annotations

import functools
import hashlib
import weakref
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from models.families import FAMILIES
from models.weights.needs.networks import config_folder
from models.weights.revisions import NO_WEIGHTS, components, read_json
from router.types import ModelCard

NOT_CONTENT = ("_", "transformers_version")
"""How the keys of a configuration begin that say where it comes from, not what it is."""


@dataclass(frozen=True)
class _Network:
    """What a network is made of, but for the content of its files, and those files."""

    kind: str
    config: str
    device: str
    dtype: str
    files: tuple[Path, ...]

    def same_as(self, other: _Network) -> bool:
        """Whether both would be the same module. Files are only read if all else agrees, their sizes included."""
        if (self.kind, self.config, self.device, self.dtype) != (other.kind, other.config, other.device, other.dtype):
            return False
        if self.files == other.files:
            return True
        if [file.stat().st_size for file in self.files] != [file.stat().st_size for file in other.files]:
            return False
        return [content(file) for file in self.files] == [content(file) for file in other.files]


class SharedNetworks:
    """The networks of the pipelines of one process, which must run one at a time: they are changed while they run.

    It keeps none alive: what no pipeline uses any more is gone.
    """

    def __init__(self) -> None:
        self._known: list[_Network] = []
        self._loaded: dict[int, weakref.ref[Any]] = {}

    def numbers(self, card: ModelCard, device: str, dtype: Any) -> dict[str, int]:
        """A number for each network of a card's pipeline, by the pipeline's name for it; equal ones have the same."""
        return {name: self._number(network) for name, network in _networks(card, device, dtype).items()}

    def at_hand(self, card: ModelCard, device: str, dtype: Any) -> dict[str, Any]:
        """The components of a card's pipeline that are loaded already, by the pipeline's name for them."""
        found = {}
        for name, number in self.numbers(card, device, dtype).items():
            module = self._loaded[number]() if number in self._loaded else None
            if module is not None:
                found[name] = module
        return found

    def add(self, card: ModelCard, pipe: Any, device: str, dtype: Any, but: Collection[str] = ()) -> None:
        """Remember the networks of a loaded pipeline, except the components `but`, which were at hand."""
        for name, number in self.numbers(card, device, dtype).items():
            module = getattr(pipe, name, None)
            if module is not None and name not in but:
                self._loaded[number] = weakref.ref(module)

    def _number(self, network: _Network) -> int:
        for number, known in enumerate(self._known):
            if known.same_as(network):
                return number
        self._known.append(network)
        return len(self._known) - 1


def _networks(card: ModelCard, device: str, dtype: Any) -> dict[str, _Network]:
    """The networks of a pipeline that is a folder here; none of a single file, whose parts are not told apart."""
    folder = None if card.source.get("file") else config_folder(card)
    if folder is None or card.tuning.get("offload"):  # what moves to and fro does so for one pipeline
        return {}
    found = {}
    for name, (library, kind) in components(replace(card, components={}), folder).items():
        place = _place(card, folder, name)
        if name.startswith(NO_WEIGHTS) or place is None:
            continue
        config_file, files = place
        config = read_json(config_file, card)
        said = sorted((key, repr(value)) for key, value in config.items() if not key.startswith(NOT_CONTENT))
        variant = card.source.get("variant")
        tuned = card.tuned if name in (FAMILIES[card.family].denoiser, "vae") else ""
        kept = [str(card.components.get(name, {}).get(key, "")) for key in ("dtype", "quantize")]
        precision = str(dtype).removeprefix("torch.")
        about = repr((said, variant, tuned, *kept)) if any(kept) else repr((said, variant, tuned))
        found[name] = _Network(f"{library}.{kind}", about, device, precision, files)
    return found


def _place(card: ModelCard, folder: Path, name: str) -> tuple[Path, tuple[Path, ...]] | None:
    """Where the configuration and the weights of a component are; None if it has none, or they are not here."""
    spec, inner = card.components.get(name, {}), str(card.components.get(name, {}).get("subfolder") or "")
    if spec.get("file"):
        file, config = Path(str(spec["file"])), folder / name / "config.json"
        return (config, (file,)) if file.is_file() and config.is_file() else None
    here: Path | None = folder / name
    if spec.get("local"):
        here = Path(str(spec["local"])) / inner
    elif spec.get("hub"):
        here = _cached(str(spec["hub"]), inner, spec.get("revision"))
    files = tuple(sorted(here.glob("*.safetensors"))) if here is not None else ()
    return (here / "config.json", files) if here is not None and files else None


def _cached(hub: str, inner: str, revision: object) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    name = f"{inner}/config.json" if inner else "config.json"
    found = try_to_load_from_cache(hub, name, revision=str(revision) if revision else None)
    return Path(found).parent if isinstance(found, str) else None


def content(file: Path) -> str:
    """What names the content of a file: the hub's cache calls its files by it, others are read, once."""
    target = file.resolve()
    if target.parent.name == "blobs" and len(target.name) == 64:
        return target.name
    stat = target.stat()
    return _sha256(str(target), stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=1024)
def _sha256(path: str, size: int, changed_ns: int) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
