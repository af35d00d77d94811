"""`python -m models.embedded.train`: reproduces the embedded family, stage by stage. See README.md beside this file."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, cast

import numpy as np
import torch
import typer
from diffusers import ControlNetModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from models.embedded.captions import caption
from models.embedded.tokenizers import store_clip_tokenizer
from models.embedded.training import cards, few_steps, latents
from models.embedded.training import control as edge_control
from models.embedded.training.architectures import MODELS, ModelCard
from models.embedded.training.diffusion import Batches, Denoising
from models.embedded.training.distilling import (
    CHUNK,
    Distillation,
    batches,
    distillation_loss,
    read_chunks,
    write_chunk,
)
from models.embedded.training.export import PIPELINES
from models.embedded.training.export import export as export_folder
from models.embedded.training.judging import DRAWN_BATCH, SeenHead, Viewed, accuracy, drawn_by, gallery, verifier_loss
from models.embedded.training.run import Counters, Run, fit
from models.embedded.verifier import new_verifier, save_verifier
from models.embedded.world import TIERS, render, sample_scene
from models.weights.revisions import digest

CACHE = Path(".cache/embedded")
WEIGHTS = Path(__file__).parent / "weights"
CACHED_SCENES = 48_000
DATA_SEED = 11
STUDENTS = {
    "sdxl-turbo-2": ("sdxl", Distillation(steps=2, grid=8, guidance=3.0)),
    "sdxl-turbo": ("sdxl-turbo-2", Distillation(steps=1, grid=2, guidance=1.0)),
    "flux-schnell": ("flux", Distillation(steps=4, grid=8, guidance=4.0, flow=True)),
}
"""What is distilled, in order: its teacher, and how. The turbo model of two steps is not shipped."""
JUDGED_MODELS = {"sd15": 0.5, "sdxl": 1.0, "sdxl-turbo": 2.0, "flux": 0.1}
"""The models whose own mistakes the verifier learns to see, and how many pictures of each beside `--drawn`."""

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)


@app.callback()
def _threads() -> None:
    """One thread a process: two models train beside each other faster than one with two threads."""
    torch.set_num_threads(1)


@app.command()
def tokenizer() -> None:
    """Train and store the tokenizer anew, after the vocabulary has grown: every model has to be trained anew then."""
    store_clip_tokenizer()


@app.command()
def vae(
    name: Annotated[str, typer.Argument(help="vae4 (SD, SDXL) or vae16 (FLUX)")],
    minutes: float = 5.0,
    batch: int = 8,
    decoder_only: Annotated[bool, typer.Option(help="keep the latents as they are, improve their decoding")] = False,
) -> None:
    """Train an autoencoder, gate it, and write the cache of latents."""
    from models.embedded import evaluate

    model = latents.build_vae(name).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    lr = 1.5e-3 if decoder_only else 4e-3
    run = Run(CACHE / name, nn.ModuleDict({"vae": model}), lr=lr, batch=batch, weight_decay=0.0)
    criterion = latents.VaeLoss(latents.VAES[name].noise)
    run.load()
    drawn = latents.batches(random.Random(f"vae {run.seed} {run.counters.step}"), batch)

    def loss(_: random.Random) -> Tensor:
        pixels = latents.to_pixels(next(drawn)).contiguous(memory_format=torch.channels_last)
        return criterion(model, pixels)[0]

    cache = CACHE / f"latents-{name}.safetensors"
    if decoder_only:
        model.load_state_dict(_load_vae(name).state_dict())
        for part in (model.encoder, model.quant_conv):
            if part is not None:
                part.requires_grad_(False)
        for raw, ema in zip(run.raw, run.ema, strict=True):
            ema.copy_(raw.detach())
        run.save()
    if minutes > 0:
        print(fit(run, loss, minutes, on_save=lambda: print(evaluate.reconstruction(model, 40))))
    run.load_averaged()
    marks = evaluate.reconstruction(model, 200)
    print("exact after reconstruction:", marks)
    if min(marks.values()) < 0.95:
        raise SystemExit(f"{name} is below its gate of 0.95: train it longer")
    if not decoder_only:
        latents.write_cache(model, latents.scenes(CACHED_SCENES, DATA_SEED), cache)


def _model_run(name: str, batch: int = 64) -> tuple[Denoising, Run]:
    """A model of the table and its run, nothing loaded yet."""
    torch.manual_seed(17)
    card = MODELS[name]
    model = Denoising(card)
    modules = nn.ModuleDict({"model": model})
    return model, Run(CACHE / name, modules, lr=card.lr, batch=batch, muon=card.muon, muon_rate=card.muon_rate)


def _load_vae(name: str) -> latents.AutoencoderKL:
    """The averaged autoencoder with the scaling that its cache was written with."""
    model = latents.build_vae(name)
    cache = CACHE / f"latents-{name}.safetensors"
    if Run(CACHE / name, nn.ModuleDict({"vae": model})).load_averaged() and cache.exists():
        latents.read_statistics(model, cache)
        latents.fix_variance(model)
        return model
    shipped = WEIGHTS / next(owner for owner, card in MODELS.items() if card.vae == name) / "vae"
    if not shipped.exists():
        raise SystemExit(f"no autoencoder yet: run `python -m models.embedded.train vae {name}` first")
    loaded = latents.AutoencoderKL.from_pretrained(shipped, dtype=torch.float32)
    model.load_state_dict(loaded.state_dict())
    # Not the loaded object: its config remembers the path it came from.
    model.register_to_config(scaling_factor=loaded.config.scaling_factor, shift_factor=loaded.config.shift_factor)
    latents.fix_variance(model)
    return model


def _cached(name: str) -> Tensor:
    """The latents of an autoencoder, written anew from its weights when the cache is gone."""
    path = CACHE / f"latents-{name}.safetensors"
    if not path.exists():
        latents.write_cache(_load_vae(name), latents.scenes(CACHED_SCENES, DATA_SEED), path, keep_statistics=True)
    return latents.read_cache(path)


def _from_shipped(name: str, model: Denoising, run: Run) -> bool:
    """Without a stored state, begin with the averaged weights of the repository; False when there are none."""
    return _begun(run, WEIGHTS / name, lambda: _copy_shipped(name, model))


def _begun(run: Run, weights: Path, read: Callable[[], object]) -> bool:
    """Without a stored state, begin with what `read` takes from a folder of the repository, if it holds weights."""
    counters = cards.read_measured(weights).get("training")
    if run.path.exists() or not counters:
        return False
    read()
    for raw, ema in zip(run.raw, run.ema, strict=True):
        ema.copy_(raw.detach())
    run.counters = Counters(**counters)
    run.save()
    return True


def _copy_shipped(name: str, model: Denoising) -> None:
    """Put the averaged weights of the repository into a model of the same sizes."""
    pipe = PIPELINES[name].from_pretrained(WEIGHTS / name, dtype=torch.float32)
    parts = {
        "unet": model.denoiser,
        "transformer": model.denoiser,
        "text_encoder": model.text,
        "text_encoder_2": model.text_2,
    }
    for part, module in parts.items():
        shipped = getattr(pipe, part, None)
        if shipped is not None and module is not None:
            module.load_state_dict(shipped.state_dict())


def _export(name: str, averaged: bool = True) -> None:
    """Write the folder of one model from its stored state, or from nothing when there is none yet."""
    model, run = _model_run(name)
    if averaged:
        run.load_averaged()
    else:
        run.load()
    export_folder(model, _load_vae(MODELS[name].vae), WEIGHTS / name)
    cards.add_measured(WEIGHTS / name, {"training": run.counters.__dict__})


def _train(name: str, minutes: float, steps: int | None, batch: int) -> None:
    model, run = _model_run(name, batch)
    resumed = _from_shipped(name, model, run)
    if name == "sdxl-refiner" and not resumed and not run.path.exists():
        # The real refiner reads prompts with the base's second encoder: begin with what that has learned.
        base, base_run = _model_run("sdxl")
        if base_run.load_averaged() and base.text_2 is not None and model.text_2 is not None:
            model.text_2.load_state_dict(base.text_2.state_dict())
    cached = _cached(MODELS[name].vae)
    draw = Batches(latents.scenes(len(cached), DATA_SEED), cached, MODELS[name].mix, batch)

    def loss(rng: random.Random) -> Tensor:
        return cast(Tensor, model(draw(rng), text_only=run.counters.step < MODELS[name].text_first))

    print(fit(run, loss, minutes, steps, on_save=lambda: print(run.counters, flush=True)))
    _export(name)


Minutes = Annotated[float, typer.Option(help="wall minutes of this invocation; the last 30 % cool down")]
Steps = Annotated[int | None, typer.Option(help="updates of this invocation, when they are fewer")]


@app.command()
def sd15(minutes: Minutes = 35, steps: Steps = None, batch: int = 64) -> None:
    """Train or resume the tiny SD1.5, then export it."""
    _train("sd15", minutes, steps, batch)


@app.command()
def sdxl(minutes: Minutes = 45, steps: Steps = None, batch: int = 64) -> None:
    """Train or resume the tiny SDXL base, then export it."""
    _train("sdxl", minutes, steps, batch)


def _student(name: str) -> str:
    if name not in STUDENTS:
        raise typer.BadParameter(f"'{name}' is none of {', '.join(STUDENTS)}")
    return name


Student = Annotated[str, typer.Argument(help=" or ".join(STUDENTS), callback=_student)]


def _card(name: str) -> ModelCard:
    """The sizes of a teacher or student."""
    return MODELS.get(name, MODELS["sdxl-turbo"])


def _teacher(name: str) -> Denoising:
    """The averaged weights of a teacher: of this run's state, or of the repository."""
    model = Denoising(_card(name)).eval()
    if not Run(CACHE / name, nn.ModuleDict({"model": model})).load_averaged():
        if name not in MODELS:
            raise SystemExit(f"{name} has no state yet: run `python -m models.embedded.train distil {name}` first")
        _copy_shipped(name, model)
    return model


@app.command()
def trajectories(
    name: Student, n: Annotated[int, typer.Option(help="trajectories to draw, exact or not")] = 10_000
) -> None:
    """Draw what a student learns from: the ways of exact pictures through the denoising of its teacher."""
    guide, how = STUDENTS[name]
    teacher, autoencoder = _teacher(guide), _load_vae(_card(name).vae)
    folder = CACHE / f"trajectories-{name}"
    with tqdm(range(-(-n // CHUNK)), desc="trajectories", unit="chunk") as chunks:
        for chunk in chunks:
            if not (folder / f"{chunk:05d}.safetensors").exists():
                right = write_chunk(teacher, autoencoder, how, _card(name).mix, chunk, folder)
                chunks.set_postfix(right=f"{right:.2f}")


@app.command()
def distil(
    name: Student,
    minutes: Minutes = 40,
    steps: Steps = None,
    batch: int = 48,
    anew: Annotated[bool, typer.Option("--anew", help="begin as the teacher, not as shipped")] = False,
) -> None:
    """Train or resume a student on the trajectories drawn so far, then export it if it is shipped."""
    teacher, how = STUDENTS[name]
    card = _card(name)
    model = Denoising(card)
    modules = nn.ModuleDict({"model": model})
    run = Run(CACHE / name, modules, lr=card.lr, batch=batch, muon=card.muon, muon_rate=card.muon_rate)
    if anew and run.path.exists():
        raise SystemExit(f"{run.path} is of a training that has begun: go on without --anew, or remove it first")
    resumed = not anew and name in MODELS and _from_shipped(name, model, run)
    if not resumed and not run.path.exists():
        model.load_state_dict(_teacher(teacher).state_dict())
        for raw, ema in zip(run.raw, run.ema, strict=True):
            ema.copy_(raw.detach())
        run.save()
    folder = CACHE / f"trajectories-{name}"
    known = read_chunks(folder)
    pairs: Iterator[list[int]] = iter(())

    def renew() -> None:
        nonlocal known, pairs
        # More may have been drawn by another process since.
        known = read_chunks(folder)
        pairs = batches(known, how, batch, random.Random(run.counters.step))
        print(run.counters, f"{len(known.captions):,} trajectories", flush=True)

    renew()
    print(fit(run, lambda _: distillation_loss(model, how, known, next(pairs)), minutes, steps, on_save=renew))
    if name in MODELS:
        _export(name)


@app.command()
def lcm(
    minutes: Minutes = 40,
    steps: Steps = None,
    batch: int = 32,
    n: Annotated[int, typer.Option(help="pictures to ask the teacher for, exact or not, before the training")] = 12_000,
) -> None:
    """Train or resume the LoRA with which SD1.5 draws in one step without guidance, then write it and its card."""
    torch.manual_seed(17)
    student = Denoising(MODELS["sd15"]).eval()
    _copy_shipped("sd15", student)
    folder, weights = CACHE / "endings-sd15-lcm", WEIGHTS / "sd15-lcm"
    lacking = [k for k in range(-(-n // CHUNK)) if not (folder / f"{k:05d}.safetensors").exists()]
    autoencoder = _load_vae("vae4") if lacking else None
    for chunk in tqdm(lacking, desc="pictures of the teacher", unit="chunk"):
        assert autoencoder is not None
        few_steps.write_endings(student, autoencoder, chunk, folder)
    known = few_steps.read_endings(folder)
    print(f"{len(known.captions):,} exact pictures to learn from", flush=True)
    additions = few_steps.added(student.denoiser)
    modules = nn.ModuleDict({name.replace(".", "/"): part for name, part in additions.items()})
    run = Run(CACHE / "sd15-lcm", modules, lr=2e-3, batch=batch, weight_decay=0.0)
    _begun(run, weights, lambda: few_steps.read_lora(additions, weights))
    draws = few_steps.batches(known, batch, random.Random(run.counters.step))

    def loss(_: random.Random) -> Tensor:
        return few_steps.few_steps_loss(student, known, next(draws))

    if minutes > 0:
        print(fit(run, loss, minutes, steps, on_save=lambda: print(run.counters, flush=True)))
    run.load_averaged()
    few_steps.write_lora(additions, weights)
    cards.add_measured(weights, {"training": run.counters.__dict__})


@app.command()
def control(minutes: Minutes = 30, steps: Steps = None, batch: int = 32) -> None:
    """Train or resume the ControlNet with which SD1.5 places shapes where a map has edges, then write it."""
    torch.manual_seed(17)
    model = Denoising(MODELS["sd15"]).eval().requires_grad_(False)
    _copy_shipped("sd15", model)
    autoencoder, weights = _load_vae("vae4"), WEIGHTS / "sd15-control-edges"
    guide = edge_control.new_control(model.denoiser)
    run = Run(CACHE / "sd15-control-edges", nn.ModuleDict({"control": guide}), lr=1e-3, batch=batch)

    def read() -> None:
        guide.load_state_dict(ControlNetModel.from_pretrained(weights, dtype=torch.float32).state_dict())

    _begun(run, weights, read)

    def loss(rng: random.Random) -> Tensor:
        seen = edge_control.fresh(autoencoder, edge_control.MIX, batch, rng)
        return edge_control.control_loss(model, guide, seen)

    if minutes > 0:
        print(fit(run, loss, minutes, steps, on_save=lambda: print(run.counters, flush=True)))
    run.load_averaged()
    guide.to(torch.float16).save_pretrained(weights)
    cards.add_measured(weights, {"training": run.counters.__dict__})


@app.command()
def refiner(minutes: Minutes = 10, steps: Steps = None, batch: int = 64) -> None:
    """Train or resume the tiny SDXL refiner, then export it."""
    _train("sdxl-refiner", minutes, steps, batch)


@app.command()
def flux(minutes: Minutes = 60, steps: Steps = None, batch: int = 32) -> None:
    """Train or resume the tiny FLUX, then export it."""
    _train("flux", minutes, steps, batch)


@app.command()
def verifier(
    minutes: Minutes = 15,
    steps: Steps = None,
    batch: int = 96,
    pictures: Annotated[int, typer.Option(help="rendered and damaged pictures to learn from")] = 12_000,
    drawn: Annotated[
        int, typer.Option(help="pictures of the exported models to learn from, of each its share")
    ] = 5_000,
) -> None:
    """Train or resume the verifier on pictures of every quality, then export it with its accuracy."""
    torch.manual_seed(23)
    judge = new_verifier()
    head = SeenHead(judge.config.width)
    modules = nn.ModuleDict({"verifier": judge, "head": head})
    run = Run(CACHE / "verifier", modules, lr=1.5e-3, batch=batch, muon=("mix.layers",))
    vaes = [_load_vae(name) for name in latents.VAES]
    run.load()
    views = gallery(pictures, run.counters.step, vaes)
    for name, share in JUDGED_MODELS.items():
        views += _drawn(name, round(drawn * share), "train")
    print(fit(run, verifier_loss(judge, head, views, batch), minutes, steps))
    run.load_averaged()
    found = {"rendered and damaged": accuracy(judge, gallery(1500, -1 & 0xFFFF, vaes), 0)}
    for name in JUDGED_MODELS:
        found[name] = accuracy(judge, _drawn(name, 320, "held out"), 0, own=True)
    print(found)
    save_verifier(judge, WEIGHTS / "verifier")
    cards.add_measured(WEIGHTS / "verifier", {"accuracy": found, "training": run.counters.__dict__})


def _drawn(name: str, n: int, split: str) -> list[Viewed]:
    """Pictures by an exported model, kept in the cache for as long as its weights are the same."""
    from models.embedded import evaluate

    n -= n % DRAWN_BATCH  # whole batches, so that a shorter list is the beginning of a longer one
    weights = digest(WEIGHTS / name).removeprefix("sha256:")
    path = CACHE / f"drawn-{name}-{split.replace(' ', '-')}-{weights}.safetensors"
    kept: list[Tensor] = list(load_file(path)["images"]) if path.exists() else []
    if len(kept) < n:
        pipe = evaluate.load(WEIGHTS / name, name)
        views = drawn_by(lambda prompts, seeds: evaluate.generate(pipe, name, prompts, seeds), n, 0, split)
        path.parent.mkdir(parents=True, exist_ok=True)
        images = np.ascontiguousarray(np.stack([one.image for one in views]))
        save_file({"images": torch.from_numpy(images)}, path)
        return views
    left = iter(kept)
    # The prompts are drawn anew from the same seed, so only the pictures need to be kept.
    return drawn_by(lambda prompts, _: np.stack([next(left).numpy() for _ in prompts]), n, 0, split)


@app.command()
def export(names: Annotated[list[str] | None, typer.Argument(help="all when none is named")] = None) -> None:
    """Write the folders of weights from the stored states."""
    for name in names or MODELS:
        _export(name)


@app.command("evaluate")
def evaluate_(
    names: Annotated[list[str] | None, typer.Argument(help="all when none is named")] = None,
    n: Annotated[int, typer.Option(help="pictures a tier")] = 100,
) -> None:
    """Measure exported models on held-out prompts and write their cards."""
    from models.embedded import evaluate

    for name in names or evaluate.SETTINGS:
        found = evaluate.measure(name, WEIGHTS, n)
        found["reconstruction"] = evaluate.reconstruction(evaluate.load(WEIGHTS / name, name).vae, 400)
        cards.add_measured(WEIGHTS / name, found)
        print(
            name, {tier: round(mark["exact"], 2) for tier, mark in found["tiers"].items()}, found["cpu_s_per_picture"]
        )


@app.command()
def sheet(names: Annotated[list[str] | None, typer.Argument(help="all when none is named")] = None) -> None:
    """Draw the sheet of samples of exported models: five held-out prompts of each tier."""
    from models.embedded import evaluate

    prompts = [prompt.text for prompt in evaluate.sample_prompts(5)]
    seeds = list(range(len(prompts)))
    for name in names or evaluate.SETTINGS:
        pipe = evaluate.load(WEIGHTS / name, name)
        if name == "sdxl-refiner":
            pictures = evaluate.refined(evaluate.load(WEIGHTS / "sdxl", "sdxl"), pipe, prompts, seeds)
        else:
            pictures = evaluate.generate(pipe, name, prompts, seeds)
        evaluate.sheet(pictures, prompts).quantize(160).save(WEIGHTS / name / "sheet.png", optimize=True)


@app.command()
def world(path: Path = CACHE / "world.png", per_tier: int = 10) -> None:
    """Draw true renders of every tier with their captions, to see what is asked of the models."""
    from models.embedded import evaluate

    rng = random.Random(0)
    drawn = [sample_scene(rng, tier) for tier in TIERS for _ in range(per_tier)]
    path.parent.mkdir(parents=True, exist_ok=True)
    page = evaluate.sheet(np.stack([render(one) for one in drawn]), [caption(one, rng) for one in drawn], per_tier)
    page.save(path)
    print(path)


@app.command("all")
def all_(minutes: Annotated[float, typer.Option(help="wall minutes for the longest training")] = 240) -> None:
    """Everything in order, one process after the other: autoencoders, models, verifier, marks and sheets."""
    for name in latents.VAES:
        vae(name, minutes / 16, 8, False)
    for name, share in (("sd15", 0.5), ("sdxl", 1.0), ("sdxl-refiner", 0.25), ("flux", 1.0)):
        _train(name, minutes * share, None, 32 if name == "flux" else 64)
    for name in STUDENTS:
        trajectories(name, 10_000)
        distil(name, minutes / 8, None, 48)
    verifier(minutes / 8, None, 96, 12_000, 2_000)
    evaluate_(None, 200)
    sheet(None)


if __name__ == "__main__":
    app()
