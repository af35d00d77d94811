"""The files behind a card: is the folder complete, is it only data, and which revision is it."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from models.families import FAMILIES
from models.weights.files import check_file, check_tokenizer, pickled
from router.errors import LoadError
from router.types import ModelCard, Scalar

LIBRARIES = ("diffusers", "transformers", "stable_diffusion")
"""The libraries that a pipeline's components may come from; anything else would be code from the checkpoint."""

NO_WEIGHTS = ("scheduler", "tokenizer", "feature_extractor", "image_processor", "processor")
"""Components that are configuration only, by the beginning of their name."""


DIFFUSERS_PARTS = ("unet", "transformer", "vae")


def read_json(path: Path, card: ModelCard) -> dict[str, Any]:
    """A JSON object from a checkpoint's folder; `LoadError` names the file and what is wrong with it."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LoadError(f"model {card.id!r}: {path} is missing; {remedy(card)}") from None
    except (OSError, ValueError) as error:
        raise LoadError(f"model {card.id!r}: {path} cannot be read: {error}; {remedy(card)}") from None
    if not isinstance(data, dict):
        raise LoadError(f"model {card.id!r}: {path} is not a JSON object; {remedy(card)}")
    return data


def check_folder(card: ModelCard, folder: Path) -> None:
    """Refuse a pipeline folder that lacks a file or asks for code of its own, before anything is loaded."""
    if not folder.is_dir():
        raise LoadError(f"model {card.id!r}: there is no folder {folder}; {remedy(card)}")
    check_family(card, folder)
    for name, (library, class_name) in components(card, folder).items():
        if library not in LIBRARIES:
            raise LoadError(f"model {card.id!r}: component {name} wants code from {library!r} ({class_name}); refused")
        if not (folder / name).is_dir():
            raise LoadError(f"model {card.id!r}: {folder / name} is missing; {remedy(card)}")
        if name.startswith("tokenizer"):
            check_tokenizer(card, folder / name, remedy(card))
        elif not name.startswith(NO_WEIGHTS):
            check_weights(card, folder / name)


def check_family(card: ModelCard, folder: Path) -> None:
    """Refuse a folder that says it holds a pipeline of another of our families."""
    said = read_json(folder / "model_index.json", card).get("_class_name")
    others = {row.pipeline: name for name, row in FAMILIES.items()}
    others |= {row.img2img: name for name, row in FAMILIES.items() if row.img2img}
    others |= {row.inpaint: name for name, row in FAMILIES.items() if row.inpaint}
    if others.get(str(said), card.family) != card.family:
        raise LoadError(
            f"model {card.id!r}: {folder} holds a {said}, which is of family {others[str(said)]!r}, and the card is of "
            f"family {card.family!r}; {remedy(card)}"
        )


def components(card: ModelCard, folder: Path) -> dict[str, tuple[str, str]]:
    """Library and class of each component that the folder's model_index.json lists and that is loaded from there."""
    index = read_json(folder / "model_index.json", card)
    found = {}
    for name, entry in index.items():
        if name.startswith("_") or name in ("safety_checker", "image_encoder") or not isinstance(entry, list):
            continue
        if len(entry) == 2 and entry[0] is not None and not elsewhere(card, name):
            found[name] = (str(entry[0]), str(entry[1]))
    return found


def elsewhere(card: ModelCard, name: str) -> bool:
    """Whether a component of a card comes from a source of its own."""
    return any(card.components.get(name, {}).get(place) for place in ("hub", "local", "file"))


def check_weights(card: ModelCard, folder: Path) -> None:
    """Refuse a model's folder without config.json or without (all of) its safetensors, whole ones."""
    read_json(folder / "config.json", card)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        stem = "diffusion_pytorch_model" if folder.name in DIFFUSERS_PARTS else "model"
        found = ", ".join(pickled(folder))
        instead = f"; there is {found}, which is a pickle and may run code, and is not read" if found else ""
        raise LoadError(f"model {card.id!r}: {folder / f'{stem}.safetensors'} is missing{instead}; {remedy(card)}")
    for file in files:
        check_file(card, file, remedy(card))
    for index in folder.glob("*.safetensors.index*.json"):
        for shard in sorted(set(read_json(index, card).get("weight_map", {}).values())):
            if Path(str(shard)).name != shard:
                raise LoadError(f"model {card.id!r}: {index} names {str(shard)!r}, outside of its folder; refused")
            if not (folder / str(shard)).is_file():
                raise LoadError(f"model {card.id!r}: {folder / str(shard)} is missing; {remedy(card)}")


def remedy(card: ModelCard) -> str:
    """What to do when the weights of a card are not there."""
    hub = card.source.get("hub")
    if hub:
        revision = f" --revision {card.source['revision']}" if card.source.get("revision") else ""
        gated = (
            f"it is gated: accept its licence at https://huggingface.co/{hub} and set HF_TOKEN, then "
            if card.gated
            else ""
        )
        return (
            f"{gated}fetch it with `hf download {hub}{revision}` (`triptych models download` takes only what is read), "
            "or override the card's source with `local: <folder>`"
        )
    if card.source.get("onnx"):
        written = card.card_path or "the card"
        return f"check the folder named by 'source' in {written}, or write it with `triptych models export`"
    place = "file" if card.source.get("file") else "folder"
    return f"check the {place} named by 'source' in {card.card_path or 'the card'}, or download the model again"


def revision(card: ModelCard) -> str:
    """The revision that is really loaded: a hub commit, or `sha256:` and twelve digits of the local weight files; after
    a `+` each component that is not of the same source, or in fewer bits; and the tuning that makes other pictures of
    the same weights."""
    return "+".join((_weights(card), *_of_parts(card), *((card.changes,) if card.changes else ())))


def _of_parts(card: ModelCard) -> list[str]:
    said = [f"prompt_chunks={card.prompt_chunks}"] if card.prompt_chunks > 1 else []
    said += ["prompt_weights"] if card.prompt_weights else []
    for name, spec in sorted(card.components.items()):
        words = [_part_weights(spec)] if elsewhere(card, name) else []
        words += [str(spec[key]) for key in ("dtype", "quantize") if spec.get(key)]
        said.append(f"{name}={','.join(words)}")
    return said


def _part_weights(spec: Mapping[str, Scalar]) -> str:
    if spec.get("revision"):
        return str(spec["revision"])
    if place := spec.get("local") or spec.get("file"):
        return digest(Path(str(place)) / str(spec.get("subfolder") or ""))
    folder = f"{spec['subfolder']}/" if spec.get("subfolder") else ""
    return _hub_commit(str(spec["hub"]), None, (f"{folder}config.json",)) or f"{spec['hub']}@unpinned"


def _weights(card: ModelCard) -> str:
    local = card.source.get("local") or card.source.get("file") or card.source.get("onnx")
    if local:
        return str(card.source.get("revision") or digest(Path(str(local))))
    return _hub_commit(str(card.source["hub"]), card.source.get("revision")) or card.revision


def _hub_commit(hub: str, asked: object, names: Sequence[str] = ("model_index.json", "config.json")) -> str | None:
    from huggingface_hub import try_to_load_from_cache

    for name in names:
        found = try_to_load_from_cache(hub, name, revision=str(asked) if asked else None)
        if isinstance(found, str):
            parts = Path(found).parts
            return parts[parts.index("snapshots") + 1] if "snapshots" in parts else None
    return None


def digest(path: Path) -> str:
    """`sha256:` and twelve hex digits over names and contents of the files with weights at `path` (file or folder):
    safetensors, or the graphs of an exported folder."""
    files = tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in _weight_files(path))
    return _digest(str(path), files)


def _weight_files(path: Path) -> Iterator[Path]:
    yield from [path] if path.is_file() else sorted([*path.rglob("*.safetensors"), *path.rglob("model.onnx*")])


@functools.lru_cache(maxsize=64)
def _digest(root: str, files: tuple[tuple[str, int, int], ...]) -> str:
    total = hashlib.sha256()
    for name, _, _ in files:
        with open(name, "rb") as handle:
            content = hashlib.file_digest(handle, "sha256")
        total.update(Path(name).relative_to(root).as_posix().encode() + b"\0" + content.digest())
    return f"sha256:{total.hexdigest()[:12]}"
