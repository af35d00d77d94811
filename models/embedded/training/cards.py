"""Model cards: the README.md of each folder of weights, written from what was measured."""

import json
from pathlib import Path
from typing import Any

from models.embedded.training.architectures import MODELS
from models.embedded.training.control import MIX as CONTROL_MIX
from models.embedded.training.export import PIPELINES
from models.embedded.training.few_steps import MIX, RANK
from models.embedded.world import TIERS

TITLES = {
    "sd15": "SD1.5-tiny",
    "sd15-lcm": "LCM-LoRA-tiny",
    "sd15-control-edges": "ControlNet-tiny for edges",
    "sdxl": "SDXL-tiny",
    "sdxl-turbo": "SDXL-turbo-tiny",
    "sdxl-refiner": "SDXL-refiner-tiny",
    "flux": "FLUX-tiny",
    "flux-schnell": "FLUX-schnell-tiny",
    "verifier": "Verifier",
}
COMMANDS = {
    "sd15": "sd15",
    "sd15-lcm": "lcm",
    "sd15-control-edges": "control",
    "sdxl": "sdxl",
    "sdxl-turbo": "distil sdxl-turbo",
    "sdxl-refiner": "refiner",
    "flux": "flux",
    "flux-schnell": "distil flux-schnell",
    "verifier": "verifier",
}


def read_measured(folder: Path) -> dict[str, Any]:
    """What is known of a folder of weights so far: training counters, marks, times. Empty when nothing is."""
    path = folder / "measured.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def add_measured(folder: Path, found: dict[str, Any]) -> None:
    """Add to a folder's measured.json, replacing entries of the same name, and write the card anew."""
    folder.mkdir(parents=True, exist_ok=True)
    known = read_measured(folder) | found
    (folder / "measured.json").write_text(json.dumps(known, indent=1) + "\n")
    (folder / "README.md").write_text(card(folder.name, known, _size_mb(folder)))


def _size_mb(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors")) / 1e6


def card(name: str, known: dict[str, Any], size_mb: float) -> str:
    """The card's text; what has not been measured is said to be missing."""
    training = known.get("training", {})
    samples, cpu_s = training.get("samples", 0), training.get("cpu_s", 0.0)
    lines = [
        f"# {TITLES[name]}",
        "",
        _purpose(name),
        "",
        f"- Data: rendered scenes of `models.embedded.world` with captions phrased anew each time{_mix(name)}; "
        "three colour-shape pairs and five frames of phrasing are held out.",
        f"- Seed: data 11, weights {23 if name == 'verifier' else 17}. Samples seen: {samples:,}. "
        f"Training: {cpu_s:,.0f} CPU-seconds of one thread.",
        f"- Size: {size_mb:.1f} MB, fp16 safetensors (averaged weights).",
    ]
    if "distilled" in known:
        lines.append(f"- Distilled from {TITLES[MODELS[name].kind]}: {known['distilled']}")
    if "parameters" in known:
        parts = ", ".join(f"{part} {count:,}" for part, count in known["parameters"].items())
        lines.append(f"- Parameters: {parts}.")
    lines += [f"- Resume: `python -m models.embedded.train {COMMANDS[name]} --minutes 60`", ""]
    if name == "sd15-control-edges":
        lines += ["How well it places shapes: `python -m benchmarks.styles.control`, beside its `control.json`.", ""]
    elif name == "verifier":
        lines += _accuracy(known.get("accuracy"))
    else:
        lines += _marks(known)
        lines += ["", "![samples](sheet.png)", ""]
    return "\n".join(lines)


def _purpose(name: str) -> str:
    if name == "verifier":
        return "Judges from pixels and words whether a picture shows its prompt, for prompts of the embedded world."
    if name == "sd15-lcm":
        return (
            "A LoRA with which SD1.5-tiny draws in few steps without guidance, by diffusers' `LCMScheduler`: the style "
            f"`lcm`. It changes every layer of the UNet, at a rank of up to {RANK}, which for layers of 32 to 128 "
            "channels is most of what can be changed. It was distilled from those pictures of its model, six guided "
            "steps each, that the checker finds right, and not by LCM's consistency between noise levels."
        )
    if name == "sd15-control-edges":
        return (
            "A ControlNet (`diffusers.ControlNetModel`) for SD1.5-tiny: shapes stand where a map, white on black and "
            "64x64, has their edges. Load it with `dtype=torch.float32`; maps as of `models.embedded.training.control`."
        )
    return (
        f"A tiny model for `diffusers.{PIPELINES[name].__name__}`, 64x64 pixels, that draws flat coloured shapes and "
        "nothing else. Load it with `dtype=torch.float32`."
    )


def _mix(name: str) -> str:
    if name == "sd15-control-edges":
        return " (" + ", ".join(f"{t} {share:.0%}" for t, share in zip(TIERS, CONTROL_MIX, strict=True)) + ")"
    if name == "sd15-lcm":
        return " (" + ", ".join(f"{t} {share:.0%}" for t, share in zip(TIERS, MIX, strict=True)) + " were asked for)"
    if name not in MODELS:
        return ""
    low, high = MODELS[name].noise_range
    part = "" if (low, high) == (0, 1000) else f"; timesteps {low}-{high} of 1000 only"
    return " (" + ", ".join(f"{t} {share:.0%}" for t, share in zip(TIERS, MODELS[name].mix, strict=True)) + f"){part}"


def _marks(known: dict[str, Any]) -> list[str]:
    if "tiers" not in known:
        return ["Not measured yet: `python -m models.embedded.train evaluate` does."]
    chosen = known["settings"]
    asked = f"{chosen['steps']} steps, guidance {chosen['guidance']}"
    if chosen.get("takes_over") is not None:
        asked += f", after the base from {chosen['takes_over']} of the way on"
    lines = [
        f"Measured on held-out phrasings, one seed a prompt, with {asked}: "
        f"{known['cpu_s_per_picture']:.2f} CPU-seconds a picture at batch 1.",
        "",
        "| tier | exact | 95 % interval (Wilson) | partial | pictures |",
        "| --- | --- | --- | --- | --- |",
    ]
    rows = dict(known["tiers"])
    if known.get("new_pairs"):
        rows["one, held-out pairs"] = known["new_pairs"]
    for tier, mark in rows.items():
        interval = f"{mark['low']:.2f} - {mark['high']:.2f}"
        lines.append(f"| {tier} | {mark['exact']:.2f} | {interval} | {mark['partial']:.2f} | {mark['n']} |")
    if "reconstruction" in known:
        kept = ", ".join(f"{tier} {share:.3f}" for tier, share in known["reconstruction"].items())
        lines += ["", f"Its autoencoder alone: share of 400 true renders a tier that are exact after it: {kept}."]
    return lines


def _accuracy(found: dict[str, dict[str, float]] | None) -> list[str]:
    if not found:
        return ["Not measured yet.", ""]
    lines = [
        "Agreement with the exact checker, prompts in held-out phrasings. Rendered and damaged pictures are held "
        "against right and nearly right prompts, a model's pictures against the prompt they were drawn for.",
        "",
        "| pictures | n | right | accuracy | balanced | area under ROC |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, one in found.items():
        figures = " | ".join(f"{one[key]:.3f}" for key in ("accuracy", "balanced", "auc"))
        lines.append(f"| {name} | {one['n']} | {one['right']:.0%} | {figures} |")
    return [*lines, ""]
