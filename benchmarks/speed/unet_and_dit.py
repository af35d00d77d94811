"""How a U-Net and a diffusion transformer spend their work: parameters, tokens and FLOPs against the picture's size.

    python -m benchmarks.speed.unet_and_dit

Full-size networks are built on the `meta` device from their published shapes, and torch counts the FLOPs of one
call, so neither weights nor memory are needed. The two tiny ones that come with Triptych are counted and timed, in
processor seconds of one thread.

Written to benchmarks/results/unet_and_dit/: unet_and_dit.json, unet_and_dit.svg.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.command import is_full, parser, results

RESULTS = Path(__file__).resolve().parents[1] / "results" / "unet_and_dit"
SIDES = (256, 512, 768, 1024, 1536, 2048)
TINY_SIDES = (32, 64, 96, 128, 192, 256)
REPEATS = 15

SDXL = {
    "sample_size": 128, "in_channels": 4, "out_channels": 4, "layers_per_block": 2, "use_linear_projection": True,
    "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640, 1280), "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20), "cross_attention_dim": 2048, "projection_class_embeddings_input_dim": 2816,
}  # fmt: skip
"""https://arxiv.org/abs/2307.01952"""
SD15 = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
"""https://arxiv.org/abs/2112.10752; the rest is what diffusers assumes."""
FLUX: dict[str, Any] = {}
"""FLUX.1-schnell, which is what diffusers assumes. https://github.com/black-forest-labs/flux"""

KINDS = {"convolution": "convolutions", "mm": "linear layers", "addmm": "linear layers"}
"""By the name of torch's operator; what is not here is attention."""
COLOURS = {"linear layers": "#0b6e4f", "convolutions": "#e1a100", "attention": "#c0392b"}


def unet_inputs(network: Any, side: int, cell: int, device: str, text: int = 77) -> dict[str, Any]:
    """One call for a picture of `side` pixels; cell: pixels of one latent."""
    import torch

    config = network.config
    cells = side // cell
    made: dict[str, Any] = {
        "sample": torch.zeros(1, config.in_channels, cells, cells, device=device),
        "timestep": torch.tensor([500.0], device=device),
        "encoder_hidden_states": torch.zeros(1, text, config.cross_attention_dim, device=device),
    }
    if config.addition_embed_type == "text_time":
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        numbers = torch.zeros(1, 6, device=device)
        made["added_cond_kwargs"] = {"text_embeds": torch.zeros(1, pooled, device=device), "time_ids": numbers}
    return made


def dit_inputs(network: Any, side: int, cell: int, device: str, text: int = 512) -> dict[str, Any]:
    """As `unet_inputs`; a token is two by two latents."""
    import torch

    config = network.config
    tokens = (side // cell // 2) ** 2
    places = len(config.axes_dims_rope)
    return {
        "hidden_states": torch.zeros(1, tokens, config.in_channels, device=device),
        "encoder_hidden_states": torch.zeros(1, text, config.joint_attention_dim, device=device),
        "pooled_projections": torch.zeros(1, config.pooled_projection_dim, device=device),
        "timestep": torch.tensor([0.5], device=device),
        "img_ids": torch.zeros(tokens, places, device=device),
        "txt_ids": torch.zeros(text, places, device=device),
    }


def counted(network: Any, inputs: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, float]]:
    """FLOPs of one call by kind of operator, and by part of the network."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False, depth=3)
    with torch.no_grad(), counter:
        network(**inputs)
    found = counter.get_flop_counts()
    kinds: dict[str, float] = defaultdict(float)
    for operator, flops in found["Global"].items():
        name = str(operator).split(".")[1]
        kinds[KINDS.get(name, "attention")] += flops
    parts: dict[str, float] = {}
    root = type(network).__name__
    for path, counts in found.items():
        words = path.split(".")
        if words[0] == root and 1 < len(words) <= 3 and (len(words) == 3 or words[1] == "mid_block"):
            parts[".".join(words[1:])] = float(sum(counts.values()))
    return dict(kinds), parts


def attention_tokens(network: Any, side: int, cell: int, text: int) -> list[int]:
    """The lengths of the sequences among which attention is computed: of a U-Net at each of its levels."""
    if hasattr(network, "down_blocks"):
        cells = side // cell
        levels = [
            (cells // 2**level) ** 2
            for level, kind in enumerate(network.config.down_block_types)
            if kind.startswith("CrossAttn")
        ]
        middle = (cells // 2 ** (len(network.config.down_block_types) - 1)) ** 2
        return sorted({*levels, middle}, reverse=True)
    return [(side // cell // 2) ** 2 + text]


def full_size() -> dict[str, tuple[Any, int, int]]:
    """Networks without weights, with pixels a latent and tokens of text."""
    import torch
    from diffusers import FluxTransformer2DModel, UNet2DConditionModel

    with torch.device("meta"):
        return {
            "SD1.5": (UNet2DConditionModel(**SD15), 8, 77),  # type: ignore[arg-type]
            "SDXL": (UNet2DConditionModel(**SDXL), 8, 77),  # type: ignore[arg-type]
            "FLUX.1": (FluxTransformer2DModel(**FLUX), 8, 512),
        }


def tiny() -> dict[str, tuple[Any, int, int]]:
    """The two that come with Triptych."""
    from models import load_card
    from models.weights.loading import load_pipeline

    sdxl, flux = (load_pipeline(load_card(f"embedded/{name}")) for name in ("sdxl", "flux"))
    return {"tiny SDXL": (sdxl.unet, 4, 32), "tiny FLUX": (flux.transformer, 4, 24)}


def measure(name: str, network: Any, cell: int, text: int, sides: Sequence[int], repeats: int) -> dict[str, Any]:
    """A row for each size. repeats: of the timed call; 0 where there are no weights"""
    inputs = unet_inputs if hasattr(network, "down_blocks") else dit_inputs
    empty = on_meta(network)
    rows = []
    for side in sides:
        kinds, parts = counted(empty, inputs(empty, side, cell, "meta", text))
        row: dict[str, Any] = {
            "side": side,
            "tokens": attention_tokens(network, side, cell, text),
            "gflops": round(sum(kinds.values()) / 1e9, 4),
            "by_kind": {kind: round(flops / sum(kinds.values()), 4) for kind, flops in sorted(kinds.items())},
            "by_part": {part: round(flops / sum(kinds.values()), 4) for part, flops in parts.items()},
        }
        if repeats:
            row["cpu_s"] = round(timed(network, inputs(network, side, cell, "cpu", text), repeats), 5)
        rows.append(row)
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    return {"name": name, "class": type(network).__name__, "parameters_m": round(millions, 2), "sizes": rows}


def on_meta(network: Any) -> Any:
    """The network without its weights: torch counts attention there, but not that of its kernels for CPUs."""
    import torch

    with torch.device("meta"):
        return type(network).from_config(network.config)


def timed(network: Any, inputs: Mapping[str, Any], repeats: int) -> float:
    """The median of processor seconds of one thread."""
    import torch

    took = []
    with torch.no_grad():
        network(**inputs)
        for _ in range(repeats):
            begun = time.thread_time()
            network(**inputs)
            took.append(time.thread_time() - begun)
    return float(np.median(took))


def plot(found: Sequence[Mapping[str, Any]], file: Path) -> None:
    """GFLOPs against the side, the kinds of work at each size, seconds of the tiny ones."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "triptych"
    large = [one for one in found if "cpu_s" not in one["sizes"][0]]
    small = [one for one in found if "cpu_s" in one["sizes"][0]]
    figure = Figure(figsize=(12, 4.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1.5, 1))
    for one in large:
        left.plot([row["side"] for row in one["sizes"]], [row["gflops"] / 1e3 for row in one["sizes"]], "o-",
                  label=f"{one['name']}, {one['parameters_m'] / 1e3:.2f} G parameters", markersize=4)  # fmt: skip
    left.set_xscale("log", base=2)
    left.set_yscale("log")
    ticks = sorted({row["side"] for one in large for row in one["sizes"]})
    left.set_xticks(ticks, [str(tick) for tick in ticks], fontsize=8, rotation=45)
    left.minorticks_off()
    left.set_xlabel("side of the picture, pixels")
    left.set_ylabel("TFLOPs of one call")
    left.set_ylim(top=left.get_ylim()[1] * 8)  # room for the legend
    left.legend(fontsize=9)
    left.set_title("work", fontsize=11)
    place, marks = 0.0, []
    for one in large:
        for row in one["sizes"]:
            bottom = 0.0
            for kind, colour in COLOURS.items():
                share = row["by_kind"].get(kind, 0.0)
                middle.bar(place, share, 0.9, bottom, color=colour, label=kind if not marks else None)
                bottom += share
            marks.append((place, str(row["side"])))
            place += 1
        middle.text(place - len(one["sizes"]) / 2 - 0.5, 1.02, one["name"], ha="center", fontsize=8)
        place += 0.8
    middle.set_xticks([mark for mark, _ in marks], [label for _, label in marks], fontsize=9, rotation=90)
    middle.set_ylim(0, 1.1)
    middle.set_ylabel("share of the FLOPs")
    middle.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3, frameon=False)
    middle.set_title("what the work is", fontsize=11)
    for one in small:
        right.plot([row["side"] for row in one["sizes"]], [row["cpu_s"] for row in one["sizes"]], "o-",
                   label=f"{one['name']}, {one['parameters_m']:.1f} M parameters", markersize=4)  # fmt: skip
    right.set_xscale("log", base=2)
    right.set_yscale("log")
    ticks = sorted({row["side"] for one in small for row in one["sizes"]})
    right.set_xticks(ticks, [str(tick) for tick in ticks], fontsize=9)
    right.minorticks_off()
    right.set_xlabel("side of the picture, pixels")
    right.set_ylabel("processor seconds of one call")
    right.legend(fontsize=9)
    right.set_title("time, on one thread", fontsize=11)
    figure.savefig(file, metadata={"Date": None})


def main(argv: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    chosen = made.parse_args(argv)
    import torch

    torch.set_num_threads(1)
    networks = {} if chosen.quick else full_size()
    found = [measure(name, *network, SIDES, 0) for name, network in networks.items()]
    found += [
        measure(name, *network, TINY_SIDES[:2] if chosen.quick else TINY_SIDES, 1 if chosen.quick else REPEATS)
        for name, network in tiny().items()
    ]
    with results(chosen, RESULTS, is_full(made, chosen)) as out:
        (out / "unet_and_dit.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        if not chosen.quick:
            plot(found, out / "unet_and_dit.svg")
    for one in found:
        print(f"{one['name']}: {one['class']}, {one['parameters_m']:g} M parameters")
        for row in one["sizes"]:
            kinds = ", ".join(f"{kind} {share:.0%}" for kind, share in row["by_kind"].items())
            print(f"  {row['side']:5} px  {row['gflops']:12.3f} GFLOPs  tokens {row['tokens']}  {kinds}"
                  + (f"  {row['cpu_s']:.4f} s" if "cpu_s" in row else ""))  # fmt: skip


if __name__ == "__main__":
    main()
