"""A model card to a diffusers pipeline of its family (models/families.py).

Only safetensors are read, only classes of diffusers and transformers are built, and no code comes from a checkpoint.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

from models.families import FAMILIES
from models.onnx.folder import check_exported, networks_in
from models.tuning.applying import check, tune, tuning_of
from models.tuning.applying import options as tuning_options
from models.weights.files import check_file
from models.weights.needs.memory import check_fits
from models.weights.needs.networks import build_empty, countable
from models.weights.parts import check_parts, load_parts, part_dtype
from models.weights.precision import keep_precision
from models.weights.revisions import check_folder, remedy
from models.weights.sharing import SharedNetworks
from router.errors import LoadError, did_you_mean
from router.types import ModelCard

Made = TypeVar("Made")


def load_pipeline(
    card: ModelCard,
    device: str = "cpu",
    dtype: str | None = None,
    networks: SharedNetworks | None = None,
    **given: Any,
) -> Any:
    """The pipeline of a card on a device: from noise for a base model, img2img for a refiner.

    networks: those of this process, which are not loaded again; what is loaded here is added to them
    given: components that are to be used whatever the card's folder holds, such as `vae`.

    Raises `LoadError` with what is missing and how to get it.
    """
    quieten()
    wanted, known = resolve_dtype(card, device, dtype), pipeline_class(card)
    if card.source.get("onnx"):
        _of_card(card, lambda folder: check_exported(folder, dtype))
    # What the folder is comes before its configuration is believed, and whether it fits before a weight is read or
    # downloaded. Of a checkpoint that is neither here nor known there is only the card's guess: no reason to refuse it.
    if card.source.get("local"):
        check_folder(card, Path(str(card.source["local"])))
    elif card.source.get("file"):
        check_file(card, Path(str(card.source["file"])), remedy(card))
    check_parts(card)
    at_hand = given if networks is None else networks.at_hand(card, device, wanted) | given
    check(card, device)
    if countable(card):
        check_place(card, device, wanted, at_hand)
    graphs = _graphs(card, device, at_hand) if card.source.get("onnx") else {}
    parts = load_parts(card, wanted, device, at_hand, lambda: known.load_config(str(card.source.get("hub"))))
    made = _from_source(card, known, wanted, {**at_hand, **parts, **graphs}, device)
    keep_precision(card, made, wanted, device)
    check_call(card, made)
    made.set_progress_bar_config(disable=True)
    tune(made, card, device, wanted, at_hand)  # before it is placed, so that fewer bits are all that is ever there
    placed = made if card.tuning.get("offload") else place(card, made, device, wanted, at_hand)
    if networks is not None:
        networks.add(card, placed, device, wanted, but=tuple(at_hand))
    return placed


def pipeline_class(card: ModelCard) -> Any:
    """The class that a card's checkpoint is loaded with."""
    import diffusers

    if card.family not in FAMILIES:
        raise LoadError(
            f"model {card.id!r}: family {card.family!r} has no pipeline{did_you_mean(card.family, FAMILIES)}"
        )
    row = FAMILIES[card.family]
    return getattr(diffusers, row.img2img if card.role == "refiner" else row.pipeline)


def img2img(card: ModelCard, pipe: Any) -> Any | None:
    """The img2img sibling of a pipeline, sharing every component; None if the family has none."""
    return sibling(card, pipe, FAMILIES[card.family].img2img)


def inpaint(card: ModelCard, pipe: Any) -> Any | None:
    """The inpainting sibling of a pipeline, sharing every component; None if the family has none, or for a refiner."""
    return None if card.role == "refiner" else sibling(card, pipe, FAMILIES[card.family].inpaint)


def sibling(card: ModelCard, pipe: Any, name: str, **further: Any) -> Any | None:
    """A pipeline of the class `name` that shares everything that it takes with `pipe`; itself if it is of this class,
    None for no name. further: components that `pipe` has not

    (`from_pipe` of the class would cast the networks to float32, and diffusers' automatic classes do not know all.)
    """
    import diffusers

    if not name or type(pipe).__name__ == name:
        return pipe if name else None
    cls, extra = getattr(diffusers, name), FAMILIES[card.family].extra
    wanted = set(inspect.signature(cls.__init__).parameters) - {"self"} - further.keys()
    parts = {key: part for key, part in pipe.components.items() if key in wanted}
    told = {key: pipe.config[key] for key in wanted - parts.keys() if key in pipe.config}
    own = {key: value for key, value in extra.items() if key in wanted}
    made = cls(**{**told, **own, **parts}, **further)
    made.set_progress_bar_config(disable=True)
    return made


def resolve_dtype(card: ModelCard, device: str, dtype: str | None) -> Any:
    """The torch dtype: as asked, else the card's; half precision becomes float32 on a CPU, where it is slow."""
    import torch

    name = dtype or ("float32" if device == "cpu" else card.dtype)
    if name not in ("float32", "float16", "bfloat16"):
        raise LoadError(
            f"model {card.id!r}: unknown dtype {name!r}{did_you_mean(name, ('float32', 'float16', 'bfloat16'))}"
        )
    return getattr(torch, name)


def quieten() -> None:
    """Turn off what diffusers and transformers write to the terminal while loading."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()  # before diffusers, whose import makes it warn of torchvision
    import diffusers

    diffusers.utils.logging.disable_progress_bar()


def check_call(card: ModelCard, pipe: Any) -> None:
    """Refuse a card whose `settings` the pipeline's call does not know."""
    known = set(inspect.signature(type(pipe).__call__).parameters) - {"self", "prompt", "generator", "output_type"}
    for key in card.settings:
        if key not in known:
            raise LoadError(
                f"{card.card_path or card.id}: settings: no {key!r} in {type(pipe).__name__}{did_you_mean(key, known)}"
            )


def place(card: ModelCard, part: Any, device: str, dtype: Any, have: Collection[str] = ()) -> Any:
    """Move a pipeline or module to a device; `LoadError` if it is not there or too small. See `check_place`, which says
    so before anything is loaded. have: components that are there already, beside those that are seen to be"""
    import torch

    check_place(card, device, dtype, {*have, *_there(part, device)})
    try:
        return part.to(device)
    except torch.OutOfMemoryError:
        raise LoadError(
            f"model {card.id!r}: does not fit on {device}; use a smaller dtype or model, or give it a whole GPU"
        ) from None


def _there(part: Any, device: str) -> list[str]:
    """The networks of a pipeline that are on an accelerator already, as those are that are read in 4 bits: the memory
    that is free is without them."""
    import torch

    networks = {
        name: network
        for name, network in getattr(part, "components", {}).items()
        if device != "cpu" and isinstance(network, torch.nn.Module)
    }
    kind = torch.device(device).type
    return [name for name, network in networks.items() if all(p.device.type == kind for p in network.parameters())]


def check_place(card: ModelCard, device: str, dtype: Any, have: Collection[str] = ()) -> None:
    """Raise `LoadError` if a device is not there, or has too little free memory for a card."""
    import torch

    if device.startswith("cuda") and not torch.cuda.is_available():
        raise LoadError(
            f"model {card.id!r}: there is no device {device!r}: torch sees no GPU; use 'cpu' or give the worker one"
        )
    check_fits(card, device, str(dtype).removeprefix("torch."), have=have)


def _graphs(card: ModelCard, device: str, have: Collection[str]) -> dict[str, Any]:
    """The networks of an exported folder that are not there already."""
    tensorrt = tuning_of(card).compile == "tensorrt"
    return _of_card(card, lambda folder: networks_in(folder, device, tensorrt, build_empty, have))


def _of_card(card: ModelCard, look: Callable[[Path], Made]) -> Made:
    """What `look` makes of the card's exported folder; its `LoadError` says which model it is."""
    try:
        return look(Path(str(card.source["onnx"])))
    except LoadError as error:
        raise LoadError(f"model {card.id!r}: {error.message}") from None


def _from_source(card: ModelCard, cls: Any, dtype: Any, shared: dict[str, Any], device: str) -> Any:
    source = card.source
    extra = {**FAMILIES[card.family].extra, **shared}
    if source.get("file"):
        return _from_file(card, cls, dtype, shared)
    options = {key: source[key] for key in ("revision", "variant") if source.get(key)}
    if not source.get("hub"):
        options.pop("revision", None)  # there it is a name for people
    try:
        return cls.from_pretrained(
            str(source.get("local") or source.get("onnx") or source["hub"]),
            **{"dtype": _dtypes(card, dtype, device), "use_safetensors": True},
            **tuning_options(card, dtype, tuple(shared)) | options | extra,
        )
    except Exception as error:
        raise load_error(card, error) from error


def _dtypes(card: ModelCard, dtype: Any, device: str) -> Any:
    """The dtype of each component, as `from_pretrained` takes it."""
    own = {name: part_dtype(card, name, dtype, device) for name in card.components}
    return {"default": dtype, **own} if any(one != dtype for one in own.values()) else dtype


def _from_file(card: ModelCard, cls: Any, dtype: Any, shared: dict[str, Any]) -> Any:
    path = Path(str(card.source["file"]))
    options = {"config": str(card.source["config"])} if card.source.get("config") else {}
    extra = {
        key: value
        for key, value in FAMILIES[card.family].extra.items()
        if key not in ("safety_checker", "feature_extractor")
    }
    try:
        return cls.from_single_file(str(path), dtype=dtype, **options, **extra, **shared)
    except Exception as error:
        raise load_error(card, error) from error


def load_error(card: ModelCard, error: BaseException) -> LoadError:
    """Whatever a library raised while loading, as one sentence with the remedy."""
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    where = next(card.source[key] for key in ("hub", "local", "file", "onnx") if card.source.get(key))
    if "Gated" in " ".join(type(link).__name__ for link in _chain(error)):
        first = "the hub refused the download because the licence was not accepted with this token"
    return LoadError(f"model {card.id!r}: cannot load {where}: {first}; {remedy(card)}")


def _chain(error: BaseException | None) -> list[BaseException]:
    links: list[BaseException] = []
    while error is not None and error not in links:
        links.append(error)
        error = error.__cause__ or error.__context__
    return links
