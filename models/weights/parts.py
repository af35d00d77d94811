"""Components of a card that come from sources of their own, each loaded by its class."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.families import FAMILIES
from models.tuning.applying import four_bits, quantized
from models.weights.files import check_file, check_gguf, gguf_names, header, missing
from models.weights.needs.networks import config_folder, networks_of, parameter_names
from models.weights.revisions import check_weights, remedy
from router.errors import LoadError, did_you_mean
from router.types import ModelCard, Scalar

PLACES = ("hub", "local", "file")


def own_sources(card: ModelCard) -> dict[str, Mapping[str, Scalar]]:
    """The components of a card that are not in its own source, with where they are."""
    return {name: spec for name, spec in card.components.items() if any(spec.get(place) for place in PLACES)}


def check_parts(card: ModelCard) -> None:
    """Raise `LoadError` for components that the pipeline does not have, or whose files cannot be what they have to
    be, before a weight is read."""
    import diffusers

    row = FAMILIES[card.family]
    kind = getattr(diffusers, row.img2img if card.role == "refiner" else row.pipeline)
    known = [name for name in inspect.signature(kind.__init__).parameters if name != "self"]
    for name in card.components:
        if name not in known:
            raise LoadError(
                f"model {card.id!r}: components: {kind.__name__} has no {name!r}{did_you_mean(name, known)}"
            )
    for name, spec in own_sources(card).items():
        one = as_card(card, name)
        if place := spec.get("file"):
            check_file(one, Path(str(place)), remedy(one))
            if str(place).endswith(".gguf"):
                check_gguf(one, Path(str(place)))
        elif place := spec.get("local"):
            folder = Path(str(place)) / str(spec.get("subfolder") or "")
            if not folder.is_dir():
                raise LoadError(f"model {card.id!r}: there is no folder {folder}; {remedy(one)}")
            check_weights(one, folder)


def load_parts(
    card: ModelCard, dtype: Any, device: str, have: Collection[str], fetch_index: Callable[[], Mapping[str, Any]]
) -> dict[str, Any]:
    """The components of a card that have sources of their own, but those that are there already, by name.

    fetch_index: what the pipeline's model_index.json says, asked only if nothing else tells a component's class
    """
    made = {}
    for name, spec in own_sources(card).items():
        if name not in have:
            made[name] = _load(card, name, spec, part_dtype(card, name, dtype, device), fetch_index)
    return made


def part_dtype(card: ModelCard, name: str, dtype: Any, device: str) -> Any:
    """The torch dtype of a component: its own on a GPU, that of the rest on a CPU."""
    import torch

    said = card.components.get(name, {}).get("dtype")
    return dtype if said is None or device == "cpu" else getattr(torch, str(said))


def as_card(card: ModelCard, name: str) -> ModelCard:
    """A component as a card of its own, for messages and revisions."""
    source = {k: v for k, v in card.components[name].items() if k in ("hub", "local", "file", "revision", "variant")}
    return replace(card, id=f"{card.id}: {name}", source=source, gated=False, components={}, tuning={}, changes="")


def _load(
    card: ModelCard,
    name: str,
    spec: Mapping[str, Scalar],
    dtype: Any,
    fetch_index: Callable[[], Mapping[str, Any]],
) -> Any:
    library, class_name = _class_of(card, name, fetch_index)
    cls = getattr(importlib.import_module(library), class_name)
    four = {"quantization_config": four_bits(library, dtype)} if quantized(card).get(name) == "nf4" else {}
    place, one = str(spec.get("file") or ""), as_card(card, name)
    try:
        if not place:
            options = {key: spec[key] for key in ("subfolder", "revision", "variant") if spec.get(key)}
            if spec.get("local"):
                options.pop("revision", None)  # there it is a name for people
            made = cls.from_pretrained(
                str(spec.get("local") or spec["hub"]), dtype=dtype, use_safetensors=True, **options, **four
            )
        elif library == "diffusers":
            check_names(card, name, Path(place), class_name)
            made = _from_single_file(card, name, cls, place, dtype, four)
        elif place.endswith(".gguf"):
            raise LoadError(f"model {one.id!r}: only denoisers are read from .gguf; take safetensors, and `quantize`")
        else:
            made = _text_encoder(card, name, cls, place, dtype)
    except LoadError:
        raise
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        where = spec.get("hub") or spec.get("local") or place
        another = f" (is it a {class_name}?)" if place else ""
        raise LoadError(f"model {one.id!r}: cannot load {where}{another}: {first}; {remedy(one)}") from error
    if lost := missing(made):
        raise _of_another(one, str(spec.get("hub") or spec.get("local") or place), class_name, lost)
    return made


def check_names(card: ModelCard, name: str, place: Path, class_name: str) -> None:
    """Raise `LoadError` for a single file with weights of a component by the names that diffusers gives them, but not
    all of these. One with other names is in those of the original code, which diffusers translates."""
    if name not in networks_of(card):
        return
    one = as_card(card, name)
    there = set(gguf_names(place) if place.suffix == ".gguf" else header(one, place, remedy(one)))
    expected = parameter_names(*networks_of(card)[name])
    if (lost := [weight for weight in expected if weight not in there]) and len(lost) < len(expected):
        raise _of_another(one, str(place), class_name, lost)


def _of_another(one: ModelCard, where: str, class_name: str, lost: Sequence[str]) -> LoadError:
    return LoadError(
        f"model {one.id!r}: {where} is of another model: it lacks {len(lost)} weights of {class_name}, such as "
        f"{lost[0]}; {remedy(one)}"
    )


def _class_of(card: ModelCard, name: str, fetch_index: Callable[[], Mapping[str, Any]]) -> tuple[str, str]:
    """Library and class of a component, as the pipeline's own checkpoint says."""
    networks = networks_of(card)
    entry = networks[name][:2] if name in networks else fetch_index().get(name)
    if not entry or entry[0] not in ("diffusers", "transformers"):
        raise LoadError(f"model {card.id!r}: components: its checkpoint has no network {name!r}")
    return str(entry[0]), str(entry[1])


def _from_single_file(card: ModelCard, name: str, cls: Any, place: str, dtype: Any, four: Mapping[str, Any]) -> Any:
    from diffusers import GGUFQuantizationConfig

    options = dict(four)
    if place.endswith(".gguf"):
        options["quantization_config"] = GGUFQuantizationConfig(compute_dtype=dtype)
    if (config := _config_place(card)) is not None:
        options |= {"config": config, "subfolder": name}
    return cls.from_single_file(place, dtype=dtype, **options)


def _text_encoder(card: ModelCard, name: str, cls: Any, place: str, dtype: Any) -> Any:
    """From a file with the names that transformers gives them; those that everybody passes around have these."""
    from safetensors.torch import load_file

    if (config := _config_place(card)) is None:
        raise LoadError(
            f"model {card.id!r}: components: {name} from a file needs the configuration of its pipeline; give the "
            "card's source a 'config' folder"
        )
    settings = cls.config_class.from_pretrained(config, subfolder=name)
    made, report = cls.from_pretrained(
        None, config=settings, state_dict=load_file(place), dtype=dtype, output_loading_info=True
    )
    if lost := sorted(report["missing_keys"]):
        raise LoadError(
            f"model {card.id!r}: {name}: {place} is of another model: it lacks {len(lost)} weights of "
            f"{cls.__name__}, such as {lost[0]}; take the file of this model"
        )
    return made


def _config_place(card: ModelCard) -> str | None:
    """Where the pipeline's configurations are: a folder here, or its hub repository."""
    folder = config_folder(card)
    hub = card.source.get("hub")
    return str(folder) if folder is not None else str(hub) if hub else None
