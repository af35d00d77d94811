"""The table of what each key of `tuning` does to a loaded pipeline, by diffusers' own methods."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from models.families import FAMILIES
from models.tuning.attention import set_kernel
from models.tuning.caches import enable
from models.tuning.settings import Tuning
from models.tuning.tiles import tile
from router.errors import LoadError
from router.types import ModelCard

KEPT_WHOLE = ("norm", r"\bwo$")
"""Of text encoders in 8 bits: norms, and what T5 casts its states to the dtype of before it is called."""

COMPILERS = ("g++", "clang++", "c++")

EXPORTED_TAKES = ("vae_tiling", "vae_slicing", "shapes")
"""Keys that an exported model follows: what cuts a picture up around its graphs."""

EXPORTED_INSTEAD = {
    "quantize": "export it with `--precision int8` or fp16, and leave quantize out",
    "compile": "it is compiled when it is loaded; leave compile out, or use tensorrt on a GPU",
    "cache": "ask for fewer steps, and leave cache out",
}


@dataclass(frozen=True)
class Loaded:
    """A pipeline that is to be tuned.

    fresh: its components that were loaded for it; others belong to models that tuned them already, or to its host
    """

    pipe: Any
    card: ModelCard
    device: str
    dtype: str
    fresh: Collection[str]

    @property
    def denoiser(self) -> Any | None:
        """The network that predicts, unless it is tuned already."""
        name = FAMILIES[self.card.family].denoiser
        return getattr(self.pipe, name) if name in self.fresh else None

    @property
    def vae(self) -> Any | None:
        return self.pipe.vae if "vae" in self.fresh else None

    @property
    def gpu(self) -> bool:
        return self.device.startswith("cuda")


def tuning_of(card: ModelCard) -> Tuning:
    """How a model runs here."""
    return Tuning.model_validate(dict(card.tuning))


def check(card: ModelCard, device: str) -> None:
    """Raise `LoadError` for what this machine cannot do, before a weight is read."""
    tuning = tuning_of(card)
    for key in tuning.said():
        if reason := _lacks(key, tuning, card, device):
            raise _refused(card, key, reason)
    for name, spec in card.components.items():
        if (kind := spec.get("quantize")) and (reason := _lacks_bits(str(kind), card, device)):
            raise LoadError(f"model {card.id!r}: components.{name}.quantize: {reason}")
        if tuning.quantize and name == FAMILIES[card.family].denoiser and (kind or _is_gguf(spec)):
            raise _refused(card, "quantize", f"the card says of its {name} how many bits it has; leave it out here")


def quantized(card: ModelCard) -> dict[str, str]:
    """The components of a card in fewer bits, and which: as the card says, and its denoiser as its tuning says."""
    said = {name: str(spec["quantize"]) for name, spec in card.components.items() if spec.get("quantize")}
    tuning = tuning_of(card).quantize
    return said | ({FAMILIES[card.family].denoiser: tuning} if tuning else {})


def options(card: ModelCard, dtype: Any, given: Collection[str] = ()) -> dict[str, Any]:
    """What `from_pretrained` has to know of it: weights of 4 bits are made while they are read. given: components that
    are loaded already"""
    names = [name for name, kind in quantized(card).items() if kind == "nf4" and name not in given]
    if not names:
        return {}
    from diffusers import PipelineQuantizationConfig

    mapping = {name: four_bits("transformers" if name.startswith("text_") else "diffusers", dtype) for name in names}
    return {"quantization_config": PipelineQuantizationConfig(quant_mapping=mapping)}


def four_bits(library: str, dtype: Any) -> Any:
    """How weights of 4 bits are read by a library."""
    kind = importlib.import_module(library).BitsAndBytesConfig
    return kind(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def tune(pipe: Any, card: ModelCard, device: str, dtype: Any, have: Collection[str] = ()) -> None:
    """Apply a card's tuning to its pipeline, in the order of `TUNINGS`. Raises `LoadError`.

    have: components that were there before, which are tuned already or not to be
    """
    tuning = tuning_of(card)
    fresh = [name for name in pipe.components if name not in have]
    loaded = Loaded(pipe, card, device, str(dtype).removeprefix("torch."), fresh)
    said = tuning.said()
    for key, apply in TUNINGS.items():
        if key in said or (key == "quantize" and quantized(card)):
            try:
                apply(loaded, getattr(tuning, key))
            except LoadError as error:
                raise _refused(card, key, error.message) from None


def _refused(card: ModelCard, key: str, reason: str) -> LoadError:
    return LoadError(f"model {card.id!r}: tuning.{key}: {reason}")


def _lacks(key: str, tuning: Tuning, card: ModelCard, device: str) -> str:
    """What is missing for a key on this machine, with the remedy; empty if nothing is."""
    gpu = device.startswith("cuda")
    exported, by_tensorrt = bool(card.source.get("onnx")), key == "compile" and tuning.compile == "tensorrt"
    if exported and key not in EXPORTED_TAKES and not by_tensorrt:
        return f"the network is a graph, and ONNX Runtime runs it as it is; {EXPORTED_INSTEAD.get(key, 'leave it out')}"
    if by_tensorrt and not exported:
        return (
            "TensorRT runs graphs; `triptych models export` writes them, `source: {onnx: folder}` names them in a card"
        )
    if by_tensorrt:
        return ""
    if key == "offload" and not gpu:
        return f"layers wait in the memory of the CPU for a GPU, and this is {device!r}; leave it out"
    if key == "compile":
        return _no_compiler(gpu)
    if key == "quantize" and tuning.quantize is not None:
        return _lacks_bits(tuning.quantize, card, device)
    if key == "cache" and tuning.cache is not None and tuning.cache.faster is not None and card.guidance == "real":
        return (
            "faster counts one pass a step, and this model runs two with guidance; use first_block or taylorseer, or "
            "say `guidance: input` in the card of a model that was distilled for it"
        )
    return ""


def _lacks_bits(kind: str, card: ModelCard, device: str) -> str:
    gpu = device.startswith("cuda")
    if kind == "int8" and gpu and not _installed("torchao"):
        return "int8 on a GPU needs torchao, which is not installed; `pip install torchao`, or use fp8"
    if kind == "nf4" and not gpu:
        return f"nf4 needs a CUDA device, and this is {device!r}; use int8 or fp8"
    if kind == "nf4" and not _installed("bitsandbytes"):
        return "nf4 needs bitsandbytes, which is not installed; `pip install bitsandbytes`, or use fp8"
    if kind == "nf4" and card.source.get("file"):
        return "a single file is not read in 4 bits; use a folder or the hub, or fp8"
    return ""


def _is_gguf(spec: Mapping[str, object]) -> bool:
    return str(spec.get("file") or "").endswith(".gguf")


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _no_compiler(gpu: bool) -> str:
    if gpu and not _installed("triton"):
        return "on a GPU torch.compile needs triton, which is not installed; `pip install triton`, or leave it out"
    named = os.environ.get("CXX")
    if not any(shutil.which(name) for name in ((named,) if named else COMPILERS)):
        return (
            f"torch.compile needs a C++ compiler, and there is no {named or ' or '.join(COMPILERS)} here; install g++ "
            "(Debian: `apt-get install g++`), name one in $CXX, or leave compile out"
        )
    return ""


# ------------------------------------------------------------------------------------------- what each key does


def _attention(loaded: Loaded, kernel: str) -> None:
    if (network := loaded.denoiser) is not None:
        set_kernel(network, kernel, loaded.device, loaded.dtype)


def _quantize(loaded: Loaded, kind: str | None) -> None:
    """Of all components that are to be in fewer bits, those that are not yet."""
    for name, wanted in quantized(loaded.card).items():
        if name in loaded.fresh and wanted != "nf4":  # those are made while they are read, see `options`
            _fewer_bits(getattr(loaded.pipe, name), wanted, loaded.gpu)


def _fewer_bits(network: Any, kind: str, gpu: bool) -> None:
    import torch

    if kind == "fp8":
        from diffusers.hooks import apply_layerwise_casting

        compute = network.dtype
        if hasattr(network, "enable_layerwise_casting"):
            network.enable_layerwise_casting(torch.float8_e4m3fn, compute_dtype=compute)
        else:  # of transformers, whose pipelines take the dtype of embeddings for that of all
            apply_layerwise_casting(
                network,
                torch.float8_e4m3fn,
                compute,
                skip_modules_pattern=KEPT_WHOLE,
                skip_modules_classes=(torch.nn.Embedding,),
            )
    elif gpu:
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

        quantize_(network, Int8DynamicActivationInt8WeightConfig())
    else:
        if network.dtype != torch.float32:
            raise LoadError(
                f"int8 on a CPU replaces float32, not {str(network.dtype).removeprefix('torch.')}; leave dtype out"
            )
        from torch.ao.quantization import quantize_dynamic

        with warnings.catch_warnings():  # it moves to torchao in some later version of torch
            warnings.simplefilter("ignore")
            quantize_dynamic(network, {torch.nn.Linear}, dtype=torch.qint8, inplace=True)


def _channels_last(loaded: Loaded, wanted: bool) -> None:
    import torch

    formats = {4: torch.channels_last, 5: torch.channels_last_3d}  # five in VAEs for films
    for network in (loaded.denoiser, loaded.vae):
        for weight in () if network is None else network.parameters():
            if weight.dim() in formats:
                weight.data = weight.data.to(memory_format=formats[weight.dim()])


def _vae_tiling(loaded: Loaded, side: bool | int) -> None:
    if (vae := loaded.vae) is not None:
        tile(vae, None if side is True else int(side), loaded.card.vae_scale)


def _vae_slicing(loaded: Loaded, wanted: bool) -> None:
    if (vae := loaded.vae) is not None:
        vae.enable_slicing()


def _cache(loaded: Loaded, cache: Any) -> None:
    if (network := loaded.denoiser) is not None:
        enable(network, cache, loaded.pipe)


def _offload(loaded: Loaded, kind: str) -> None:
    import torch

    if kind == "model":
        loaded.pipe.enable_model_cpu_offload(device=loaded.device)
    else:
        device = torch.device(loaded.device)
        loaded.pipe.enable_group_offload(device, torch.device("cpu"), offload_type="leaf_level", use_stream=True)


def _compile(loaded: Loaded, kind: str) -> None:
    network = loaded.denoiser
    if network is None or kind == "tensorrt":  # its graphs were given to that when they were loaded
        return
    if kind == "full":
        network.compile()
        return
    try:
        network.compile_repeated_blocks()
    except ValueError:
        raise LoadError(f"{type(network).__name__} names no repeated blocks; use full") from None


TUNINGS: dict[str, Callable[[Loaded, Any], None]] = {
    "attention": _attention,
    "quantize": _quantize,
    "channels_last": _channels_last,
    "vae_tiling": _vae_tiling,
    "vae_slicing": _vae_slicing,
    "cache": _cache,
    "offload": _offload,
    "compile": _compile,
}
"""By key of `Tuning`, in the order in which they are applied: what is compiled last has all of the others in it."""
