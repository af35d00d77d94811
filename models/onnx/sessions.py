"""A graph in ONNX Runtime, called with torch's tensors, on the provider that was asked for and no other."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from router.errors import LoadError

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}

OUT_OF_MEMORY = ("Failed to allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""How ONNX Runtime says that memory ran out."""

TENSORRT_CACHE = "ORT_TENSORRT_CACHE_PATH"
"""Where TensorRT keeps what it built, which takes minutes; ONNX Runtime's own variable."""


def provider_of(device: str, tensorrt: bool) -> str:
    """The provider for a device, by our name. Raises `LoadError` if ONNX Runtime has none here, with the remedy."""
    import onnxruntime

    gpu = device.startswith("cuda")
    if tensorrt and not gpu:
        raise LoadError(f"TensorRT needs a CUDA device, and this is {device!r}; leave `compile: tensorrt` out")
    wanted = "tensorrt" if tensorrt else "cuda" if gpu else "cpu"
    there = onnxruntime.get_available_providers()
    if PROVIDERS[wanted] not in there:
        raise LoadError(
            f"this ONNX Runtime has no {PROVIDERS[wanted]} (only {', '.join(there)}); "
            "`pip install onnxruntime-gpu` in the place of onnxruntime, or use device: cpu"
        )
    return wanted


class Session:
    """One graph, ready to run; its weights are in the memory of its device. Raises `LoadError`.

    half: the graph computes in half precision, and TensorRT may do so
    """

    def __init__(self, file: Path, device: str, provider: str, half: bool = False) -> None:
        import onnxruntime
        import torch

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # it warns of what it computes on the CPU, shapes for instance
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # others work here, too
        try:
            self._session = onnxruntime.InferenceSession(str(file), options, providers=_options(provider, device, half))
        except Exception as error:  # its classes have no common base but this
            raise LoadError(f"{file} is no graph that runs here: {_words(error)}") from None
        if PROVIDERS[provider] not in self._session.get_providers():
            # It goes on with the CPU where a library of a provider is missing, and only logs that.
            raise LoadError(
                f"{PROVIDERS[provider]} did not start, so that {file} would run on the CPU; install the CUDA, cuDNN "
                "and TensorRT libraries of this ONNX Runtime, or use device: cpu"
            )
        self._types = {one.name: _torch_type(one.type) for one in self._session.get_inputs()}
        self.outputs = tuple(one.name for one in self._session.get_outputs())

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names, in order."""
        return tuple(self._types)

    def __call__(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """Outputs by name, float32, on the device of the inputs. Raises what torch raises when memory runs out."""
        import torch

        given = {
            name: tensors[name].detach().to("cpu", kind).contiguous().numpy() for name, kind in self._types.items()
        }
        device = next(iter(tensors.values())).device
        try:
            made = self._session.run(None, given)
        except Exception as error:
            said = _words(error)
            if any(words in said for words in OUT_OF_MEMORY):
                raise torch.OutOfMemoryError(said) from None
            if "CUDA failure" in said:
                raise RuntimeError(f"CUDA error: {said}") from None  # as torch says it: nothing works after that
            raise
        return {
            name: torch.from_numpy(array).to(device, torch.float32)
            for name, array in zip(self.outputs, made, strict=True)
        }


def _options(provider: str, device: str, half: bool) -> list[Any]:
    """Providers in the order in which ONNX Runtime offers them nodes."""
    _, _, number = device.partition(":")
    place = {"device_id": number or "0"}
    if provider == "cpu":
        return [PROVIDERS["cpu"]]
    chain: list[Any] = [(PROVIDERS["cuda"], place), PROVIDERS["cpu"]]
    if provider == "cuda":
        return chain
    cache = Path(os.environ.get(TENSORRT_CACHE) or Path.home() / ".cache" / "triptych" / "tensorrt")
    cache.mkdir(parents=True, exist_ok=True)
    said = {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(cache),
        "trt_fp16_enable": "1" if half else "0",
    }
    return [(PROVIDERS["tensorrt"], {**place, **said}), *chain]


def _torch_type(said: str) -> Any:
    """`tensor(float16)` and the like."""
    import torch

    kinds = {"float": torch.float32, "float16": torch.float16, "int64": torch.int64, "int32": torch.int32}
    name = said.removeprefix("tensor(").removesuffix(")")
    if name not in kinds:
        raise LoadError(f"a graph with an input of type {said} is none that `triptych models export` wrote")
    return kinds[name]


def _words(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
