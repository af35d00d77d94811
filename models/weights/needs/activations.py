"""The memory that a network needs beside its weights while it runs: its forward pass is run on the `meta` device, which
computes nothing, and the tensors that are alive at the same time are counted.
"""

from __future__ import annotations

import functools
import json
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

TEXT_BYTES = 4
"""Of a number while a prompt is read: transformers compute some of it in float32."""


@dataclass(frozen=True)
class Shape:
    """What a network is given. width, height: of the picture in pixels;   scale: pixels to a cell of the latents;
    batch: pictures;   passes: of the network in each step;   tokens: of the prompt;   bytes: of a number"""

    width: int
    height: int
    scale: int
    batch: int
    passes: int
    tokens: int
    bytes: int

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of the latents."""
        return max(1, self.height // self.scale), max(1, self.width // self.scale)


Inputs = Callable[[Any, Shape, Any], dict[str, Any]]
"""(network, what it is given, torch's `empty` on the meta device) to the arguments of its forward pass."""


def _unet(network: Any, shape: Shape, empty: Any) -> dict[str, Any]:
    config, batch = network.config, shape.batch * shape.passes
    given = {
        "sample": empty(batch, config.in_channels, *shape.cells),
        "timestep": empty(batch),
        "encoder_hidden_states": empty(batch, shape.tokens, config.cross_attention_dim),
    }
    if config.addition_embed_type == "text_time":
        numbers = 5  # of sizes; how many of its inputs are these and how many the prompt makes no difference here
        pooled = config.projection_class_embeddings_input_dim - numbers * config.addition_time_embed_dim
        given["added_cond_kwargs"] = {"text_embeds": empty(batch, pooled), "time_ids": empty(batch, numbers)}
    return given


def _sd3(network: Any, shape: Shape, empty: Any) -> dict[str, Any]:
    config, batch = network.config, shape.batch * shape.passes
    return {
        "hidden_states": empty(batch, config.in_channels, *shape.cells),
        "encoder_hidden_states": empty(batch, shape.tokens + 77, config.joint_attention_dim),
        "pooled_projections": empty(batch, config.pooled_projection_dim),
        "timestep": empty(batch),
    }


def _flux(network: Any, shape: Shape, empty: Any) -> dict[str, Any]:
    config, patches = network.config, _patches(shape)
    return {
        "hidden_states": empty(shape.batch, patches, config.in_channels),
        "encoder_hidden_states": empty(shape.batch, shape.tokens, config.joint_attention_dim),
        "pooled_projections": empty(shape.batch, config.pooled_projection_dim),
        "timestep": empty(shape.batch),
        "img_ids": empty(patches, 3),
        "txt_ids": empty(shape.tokens, 3),
        "guidance": empty(shape.batch) if config.guidance_embeds else None,
    }


def _flux2(network: Any, shape: Shape, empty: Any) -> dict[str, Any]:
    config, patches = network.config, _patches(shape)
    return {
        "hidden_states": empty(shape.batch, patches, config.in_channels),
        "encoder_hidden_states": empty(shape.batch, shape.tokens, config.joint_attention_dim),
        "timestep": empty(shape.batch),
        "img_ids": empty(shape.batch, patches, 4),
        "txt_ids": empty(shape.batch, shape.tokens, 4),
        "guidance": empty(shape.batch) if config.guidance_embeds else None,
    }


def _qwen(network: Any, shape: Shape, empty: Any) -> dict[str, Any]:
    rows, columns = shape.cells
    return {
        "hidden_states": empty(shape.batch, _patches(shape), network.config.in_channels),
        "encoder_hidden_states": empty(shape.batch, shape.tokens, network.config.joint_attention_dim),
        "timestep": empty(shape.batch),
        "img_shapes": [[(1, rows // 2, columns // 2)]] * shape.batch,
    }


def _z_image(network: Any, shape: Shape, empty: Any) -> dict[str, Any]:
    config, batch = network.config, shape.batch * shape.passes
    return {
        "x": [empty(config.in_channels, 1, *shape.cells) for _ in range(batch)],
        "t": empty(batch),
        "cap_feats": [empty(shape.tokens, config.cap_feat_dim) for _ in range(batch)],
    }


def _patches(shape: Shape) -> int:
    """Tokens of a transformer that takes two by two cells as one."""
    rows, columns = shape.cells
    return (rows // 2) * (columns // 2)


INPUTS: dict[str, Inputs] = {
    "UNet2DConditionModel": _unet,
    "SD3Transformer2DModel": _sd3,
    "FluxTransformer2DModel": _flux,
    "Flux2Transformer2DModel": _flux2,
    "QwenImageTransformer2DModel": _qwen,
    "ZImageTransformer2DModel": _z_image,
}
"""What each network takes. Those that run both passes of guidance in one call get `batch * passes` of everything."""

STACKED = tuple(INPUTS)[1:]
"""Transformers of blocks of one kind that hand on what they get and keep nothing, so a few of them need what all do."""
ALIKE = 2


def peak_bytes(run: Callable[[], Any], given: Iterable[Any]) -> int:
    """The most bytes of tensors that were made by `run` and alive at the same time; `given`: those that were there."""
    import torch
    from torch.overrides import TorchFunctionMode
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    attention = torch.nn.functional.scaled_dot_product_attention

    class Attention(TorchFunctionMode):
        """No kernel that is used writes the scores of all pairs down, so neither does this."""

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is attention:
                named = dict(zip(("query", "key", "value"), args, strict=False)) | (kwargs or {})
                query = named["query"]
                return query.new_empty((*query.shape[:-1], named["value"].shape[-1]))
            return func(*args, **(kwargs or {}))

    class Alive(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.now = self.most = 0
            self._known = {tensor.untyped_storage()._cdata for tensor in given}

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = func(*args, **(kwargs or {}))
            for tensor in tree_leaves(made):
                if isinstance(tensor, torch.Tensor):
                    self._count(tensor.untyped_storage())
            return made

        def _count(self, storage: Any) -> None:
            key, size = storage._cdata, storage.nbytes()
            if key in self._known:
                return
            self._known.add(key)
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._gone, key, size)

        def _gone(self, key: int, size: int) -> None:
            self._known.discard(key)
            self.now -= size

    with torch.no_grad(), Alive() as alive, Attention():
        made = run()
        del made
    return alive.most


@functools.lru_cache(maxsize=256)
def denoiser_bytes(class_name: str, config: str, shape: Shape) -> int:
    """What a denoiser needs for one step beside its weights. config: its configuration as JSON"""
    if class_name in STACKED:
        told = json.loads(config)
        stacks = [key for key in ("num_layers", "num_single_layers", "n_layers") if key in told]
        config = json.dumps({**told, **{key: min(int(told[key]), ALIKE) for key in stacks}})
    network, empty = _built(class_name, config, shape.bytes)
    given = INPUTS[class_name](network, shape, empty)
    return peak_bytes(lambda: network(**given, return_dict=False), (*network.parameters(), *network.buffers()))


@functools.lru_cache(maxsize=256)
def decoder_bytes(class_name: str, config: str, shape: Shape) -> int:
    """What a VAE needs to decode beside its weights."""
    vae, empty = _built(class_name, config, shape.bytes)
    channels = getattr(vae.config, "latent_channels", None) or vae.config.z_dim
    frames = () if getattr(vae.config, "latent_channels", None) else (1,)
    latents = empty(shape.batch, channels, *frames, *shape.cells)
    return peak_bytes(lambda: vae.decode(latents, return_dict=False), (*vae.parameters(), *vae.buffers()))


def encoder_bytes(config: dict[str, Any], shape: Shape) -> int:
    """What a text encoder needs beside its weights, at most: a layer's states, and the scores of its attention."""
    inner = config.get("text_config") or config
    hidden = int(inner.get("hidden_size") or inner.get("d_model") or 0)
    wide = int(inner.get("intermediate_size") or inner.get("d_ff") or 4 * hidden)
    heads = int(inner.get("num_attention_heads") or inner.get("num_heads") or 1)
    numbers = shape.tokens * (4 * hidden + 3 * wide) + 2 * heads * shape.tokens**2
    return shape.batch * shape.passes * numbers * TEXT_BYTES


def _built(class_name: str, config: str, bytes: int) -> tuple[Any, Any]:
    """A network of diffusers without numbers, and what makes tensors of its kind."""
    import diffusers
    import torch

    dtype = {4: torch.float32, 2: torch.bfloat16}[bytes]
    with torch.device("meta"):
        network = getattr(diffusers, class_name).from_config(json.loads(config)).eval()
    torch.nn.Module.to(network, dtype)  # that of diffusers warns of layers that it would keep, and keeps none
    return network, functools.partial(torch.empty, dtype=dtype, device="meta")
