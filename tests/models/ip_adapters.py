"""Tiny random IP-Adapters, as files in the published layout, and the encoder that they look with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

SEEN = 8  # numbers of the encoder's embedding
WORDS = 4  # into which it is turned


def write(folder: Path, network: Any, family: str, width: int | None = None) -> Path:
    """A style `look` for the UNet of a tiny pipeline: weights, encoder and card in a folder; the card's path.

    width: of what the network reads, if not its own
    """
    folder.mkdir(exist_ok=True)
    torch.manual_seed(5)
    read = width or network.config.cross_attention_dim
    state = {
        "image_proj.proj.weight": torch.randn(WORDS * read, SEEN),
        "image_proj.proj.bias": torch.randn(WORDS * read),
        "image_proj.norm.weight": torch.ones(read),
        "image_proj.norm.bias": torch.zeros(read),
    }
    layers = [m for m in network.modules() if getattr(m, "is_cross_attention", False)]
    names = [name for name in network.attn_processors if not name.endswith("attn1.processor")]
    assert len(names) == len(layers)
    for place, name in enumerate(names):
        rows = network.get_submodule(name.removesuffix(".processor")).to_k.weight.shape[0]
        for part in ("to_k_ip", "to_v_ip"):
            state[f"ip_adapter.{2 * place + 1}.{part}.weight"] = torch.randn(rows, read)
    save_file(state, folder / "look.safetensors")
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPVisionConfig(**sizes, image_size=32, patch_size=16, projection_dim=SEEN)
    CLIPVisionModelWithProjection(config).save_pretrained(folder / "encoder", safe_serialization=True)
    card = f"id: look\nfamily: {family}\nkind: ip_adapter\nsource: {{file: look.safetensors, encoder: encoder}}\n"
    (folder / "look.yaml").write_text(card)
    return folder / "look.yaml"
