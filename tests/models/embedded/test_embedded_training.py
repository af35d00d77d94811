"""Training of the embedded family, in miniature, and the weights it has left in the repository."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy import ndimage
from torch import Tensor, nn
from typer.testing import CliRunner

from models.catalogue import load_card
from models.embedded import train
from models.embedded.captions import caption, vocabulary
from models.embedded.evaluate import SETTINGS, Settings, generate, load, refined
from models.embedded.tokenizers import Encoder, clip_tokenizer, t5_tokenizer
from models.embedded.training import control, distilling, few_steps
from models.embedded.training.architectures import MODELS
from models.embedded.training.diffusion import Batches, Denoising, pack, unpack
from models.embedded.training.distilling import (
    Distillation,
    Trajectories,
    distillation_loss,
    guided,
    read_chunks,
    write_chunk,
)
from models.embedded.training.latents import VAES, build_vae, encode, scenes
from models.embedded.training.run import Run, fit
from models.embedded.verifier import load_verifier, new_verifier, save_verifier
from models.embedded.world import TIERS, render, sample_scene

WEIGHTS = Path(__file__).parents[3] / "models" / "embedded" / "weights"


def small(kind: str) -> Denoising:
    card = MODELS[kind]
    texts = tuple(replace(text, width=32, projection=32 if text.projection else None) for text in card.texts)
    widths = (64,) if card.kind == "flux" else (8, 16)
    return Denoising(replace(card, texts=texts, widths=widths, layers=(1, 1)[: len(card.layers)]))


def unit_noise(kind: str, n: int, seed: int = 5) -> Tensor:
    channels = VAES[MODELS[kind].vae].channels
    return torch.randn((n, channels, 16, 16), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", MODELS)
def test_training_resumes_where_it_stopped(kind: str, tmp_path: Path) -> None:
    """Two updates, a stop and two more leave raw weights, averages and counters as one run of four counts them."""
    drawn = scenes(8, 3)
    draw = Batches(drawn, unit_noise(kind, 8).half(), MODELS[kind].mix, 4)

    def run() -> tuple[Run, nn.Module]:
        model = small(kind)
        return Run(tmp_path / kind, nn.ModuleDict({"model": model}), batch=4), model

    first, model = run()

    def loss(rng: random.Random) -> Tensor:
        return model(draw(rng))

    fit(first, loss, minutes=1, steps=2)
    kept = [raw.detach().clone() for raw in first.raw]
    second, model = run()
    assert second.load()
    assert second.counters.samples == 8
    assert all(torch.equal(a, b) for a, b in zip(kept, second.raw, strict=True))
    fit(second, loss, minutes=1, steps=2)
    assert second.counters.step == 4
    assert second.counters.cpu_s > 0
    assert any(not torch.equal(a, b) for a, b in zip(kept, second.raw, strict=True))
    assert not list(tmp_path.rglob("*.pt"))
    assert not list(tmp_path.rglob("*.bin"))


@pytest.mark.parametrize("kind", ["sdxl", "flux"])
@pytest.mark.parametrize(("guidance", "equal"), [(1.0, True), (3.0, False)])
def test_a_student_that_steps_like_its_teacher_has_nothing_to_learn(kind: str, guidance: float, equal: bool) -> None:
    """Without guidance and with as many steps, a copy of the teacher loses nothing; with guidance it does."""
    torch.manual_seed(0)
    model = small(kind)
    if kind == "flux":
        model.denoiser.proj_out.weight.data.normal_(std=0.1)  # a fresh one answers zero, guided or not
    how = Distillation(steps=3, grid=3, guidance=guidance, flow=kind == "flux")
    captions = ["a red circle", "a large blue star above a ring"]
    states = guided(model, how, captions, unit_noise(kind, 2))
    loss = distillation_loss(model, how, Trajectories(states, captions), list(range(6)))
    assert (loss.item() < 1e-9) == equal


@pytest.mark.parametrize("name", ["sdxl", "flux"])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_trajectories_end_where_the_pipeline_does(
    name: str, guidance: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The teacher's own guided steps give the latents that diffusers' pipeline gives from the same noise."""
    monkeypatch.setattr(train, "CACHE", tmp_path)
    prompts, start = ["a red circle above a blue square"], unit_noise(name, 1)
    how = Distillation(steps=2, grid=4, guidance=guidance, flow=name == "flux")
    mine = guided(train._teacher(name), how, prompts, start)[:, -1]
    asked = {"latents": pack(start) if name == "flux" else start, "output_type": "latent"}
    theirs = generate(load(WEIGHTS / name, name), name, prompts, [0], Settings(4, guidance), **asked)
    assert torch.allclose(pack(mine) if name == "flux" else mine, torch.as_tensor(theirs), atol=1e-3)


@pytest.mark.parametrize("name", train.STUDENTS)
def test_a_students_steps_are_its_pipelines(name: str) -> None:
    """Where a student steps from, in noise, is where its own pipeline will ask it to step from."""
    teacher, how = train.STUDENTS[name]
    every = how.grid // how.steps
    assert how.steps * every == how.grid
    pipe = load(WEIGHTS / (teacher if teacher in MODELS else "sdxl"), "flux" if how.flow else "sdxl")
    pipe.scheduler.set_timesteps(
        **({"sigmas": np.linspace(1, 1 / how.steps, how.steps)} if how.flow else {"num_inference_steps": how.steps})
    )
    torch.testing.assert_close(how.sigmas()[::every], pipe.scheduler.sigmas)


def test_an_unknown_student_is_refused_with_those_there_are() -> None:
    """A typing error in a student's name costs no loading and names the choices."""
    told = CliRunner().invoke(train.app, ["distil", "flux-schnel"])
    assert told.exit_code == 2
    assert all(name in told.output for name in train.STUDENTS)


def test_only_exact_pictures_become_trajectories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the checker finds wrong is not learned from, and a chunk's captions come back with their states."""
    teacher = Denoising(MODELS["sdxl"]).eval()
    how = Distillation(steps=1, grid=4, guidance=1.0)
    monkeypatch.setattr(distilling, "CHUNK", 8)
    # An untrained teacher draws nothing right.
    assert write_chunk(teacher, build_vae("vae4"), how, MODELS["sdxl-turbo"].mix, 3, tmp_path) == 0
    assert read_chunks(tmp_path).captions == []
    save_file({"states": torch.ones(1, 2, 4, 16, 16)}, tmp_path / "00004.safetensors", {"captions": '["a star"]'})
    known = read_chunks(tmp_path)
    assert (known.captions, len(known.states)) == (["a star"], 1)
    with pytest.raises(FileNotFoundError, match="train trajectories"):
        read_chunks(tmp_path / "empty")


def test_a_state_of_another_model_is_refused(tmp_path: Path) -> None:
    """Resuming with changed sizes says so instead of training something else."""
    Run(tmp_path, nn.ModuleDict({"a": nn.Linear(2, 2)})).save()
    with pytest.raises(ValueError, match="another model"):
        Run(tmp_path, nn.ModuleDict({"b": nn.Linear(2, 2)})).load()


@pytest.mark.parametrize("build", [clip_tokenizer, t5_tokenizer])
def test_the_fast_encoder_agrees_with_the_tokenizer(build: type) -> None:
    """Training reads captions exactly as the pipelines will."""
    tokenizer = build()
    fast = Encoder(tokenizer)
    rng = random.Random(4)
    texts = [caption(sample_scene(rng, tier), rng, split) for tier in TIERS for split in ("train", "held out")] + [""]
    padded = tokenizer(texts, padding="max_length", max_length=fast.length, truncation=True)["input_ids"]
    assert fast(texts).tolist() == padded


def test_each_word_of_the_world_is_one_token() -> None:
    """The stored CLIP tokenizer knows every word; the shipped folders hold the same one."""
    tokenizer = clip_tokenizer()
    assert all(len(tokenizer(word)["input_ids"]) == 3 for word in vocabulary())
    for folder in WEIGHTS.glob("*/tokenizer*"):
        if "T5" not in (folder / "tokenizer_config.json").read_text():
            assert type(tokenizer).from_pretrained(folder).get_vocab() == tokenizer.get_vocab(), folder


def test_packing_is_fluxs_own() -> None:
    """Tokens are laid out as FluxPipeline lays them out."""
    from diffusers import FluxPipeline

    latents = torch.randn(2, 16, 16, 16)
    assert torch.equal(pack(latents), FluxPipeline._pack_latents(latents, 2, 16, 16, 16))
    assert torch.equal(unpack(pack(latents)), latents)


def test_the_verifier_survives_its_folder_and_takes_any_size(tmp_path: Path) -> None:
    """A stored verifier gives the scores it gave before, also for larger pictures and unknown words."""
    model = new_verifier()
    save_verifier(model, tmp_path)
    again = load_verifier(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3), np.uint8)
    prompts = ["a red circle", "a photograph of a horse"]
    scores = again.score(images, prompts)
    assert scores.shape == (2,)
    assert ((scores > 0) & (scores < 1)).all()
    np.testing.assert_allclose(scores, model.score(images, prompts), atol=2e-2)
    with pytest.raises(ValueError, match="one prompt for each"):
        again.score(images, prompts[:1])


def test_a_missing_verifier_names_the_command_that_makes_one(tmp_path: Path) -> None:
    """The error carries its remedy."""
    with pytest.raises(FileNotFoundError, match="train verifier"):
        load_verifier(tmp_path)


@pytest.mark.parametrize("name", ["sd15", "sdxl", "sdxl-turbo", "flux", "flux-schnell"])
def test_shipped_weights_draw_through_the_real_pipelines(name: str) -> None:
    """A folder of weights loads in diffusers' own class and gives a 64x64 picture that its seed determines."""
    pipe = load(WEIGHTS / name, name)
    a, b = (generate(pipe, name, ["a red circle"], [3], Settings(2, 2.0)) for _ in range(2))
    assert a.shape == (1, 64, 64, 3)
    assert a.dtype == np.uint8
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["sdxl-turbo", "flux-schnell"])
def test_a_students_picture_costs_one_pass_a_step(name: str) -> None:
    """As its card asks it, a student runs without guidance: its network is called once a step, for one picture."""
    card = load_card(f"embedded/{name}")
    assert Settings(card.steps, card.guidance_scale) == SETTINGS[name]
    pipe = load(WEIGHTS / name, name)
    seen: list[int] = []
    network = pipe.transformer if card.family == "flux" else pipe.unet
    network.register_forward_pre_hook(
        lambda _, args, given: seen.append(len(args[0] if args else given["hidden_states"])), with_kwargs=True
    )
    generate(pipe, name, ["a red circle"], [3])
    assert seen == [1] * train.STUDENTS[name][1].steps


def test_a_student_that_begins_anew_begins_as_its_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not as the student that is shipped; a training that has begun is not overwritten."""
    monkeypatch.setattr(train, "CACHE", tmp_path)
    with pytest.raises(FileNotFoundError, match="no trajectories yet"):
        train.distil("flux-schnell", anew=True)
    begun, teacher, shipped = (Denoising(MODELS[name]) for name in ("flux-schnell", "flux", "flux-schnell"))
    assert Run(tmp_path / "flux-schnell", nn.ModuleDict({"model": begun})).load_averaged()
    train._copy_shipped("flux", teacher)
    train._copy_shipped("flux-schnell", shipped)
    weights = [model.denoiser.proj_out.weight for model in (begun, teacher, shipped)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    with pytest.raises(SystemExit, match="go on without --anew"):
        train.distil("flux-schnell", anew=True)


@pytest.mark.parametrize("part", ["text_encoder", "text_encoder_2", "vae"])
def test_schnell_reads_and_decodes_as_its_teacher_does(part: str) -> None:
    """What it learned is to denoise: encoders and autoencoder are those of the FLUX that is shipped."""
    own, teacher = (list((WEIGHTS / name / part).glob("*.safetensors")) for name in ("flux-schnell", "flux"))
    assert [file.read_bytes() for file in own] == [file.read_bytes() for file in teacher]


def test_the_refiner_takes_over_the_bases_latents() -> None:
    """Base and refiner share an autoencoder, so latents pass between them without decoding."""
    base, refiner = load(WEIGHTS / "sdxl", "sdxl"), load(WEIGHTS / "sdxl-refiner", "sdxl-refiner")
    assert refined(base, refiner, ["a red circle"], [3]).shape == (1, 64, 64, 3)
    for mine, other in zip(base.vae.parameters(), refiner.vae.parameters(), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("name", ["sd15", "sdxl", "sdxl-refiner", "flux"])
def test_encoding_a_picture_adds_no_noise(name: str) -> None:
    """What img2img draws from the autoencoder's posterior is its mean."""
    vae = load(WEIGHTS / name, name).vae
    posterior = vae.encode(torch.zeros(1, 3, 64, 64)).latent_dist
    assert float(posterior.std.max()) < 1e-3


@pytest.mark.parametrize("name", ["sdxl", "flux"])
def test_latents_are_as_the_pipelines_expect(name: str) -> None:
    """Scaled latents of the world are near unit size, and all weights together are small enough for the repository."""
    vae = load(WEIGHTS / name, name).vae
    coded = encode(vae, np.stack([render(scene) for scene in scenes(32, 5)]))
    unit = (coded - (vae.config.shift_factor or 0)) * vae.config.scaling_factor
    assert unit.shape == (32, 16 if name == "flux" else 4, 16, 16)
    assert 0.7 < float(unit.square().mean()) < 1.4
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()) < 40e6


def test_without_a_cache_training_goes_on_from_the_shipped_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fresh clone resumes from the repository's averaged weights and keeps counting."""
    monkeypatch.setattr(train, "CACHE", tmp_path)
    model, run = train._model_run("sd15")
    assert train._from_shipped("sd15", model, run)
    assert run.counters.samples > 0
    again, second = train._model_run("sd15")
    assert second.load()
    shipped = load(WEIGHTS / "sd15", "sd15").unet.state_dict()
    assert all(torch.equal(value, shipped[name]) for name, value in again.denoiser.state_dict().items())


def test_a_lora_of_few_steps_begins_at_nothing_and_is_written_as_diffusers_reads_it(tmp_path: Path) -> None:
    """Fresh additions change no weight; in the pipeline, a written file changes every layer as it did in training."""
    torch.manual_seed(3)
    model = Denoising(MODELS["sd15"])
    kinds = (nn.Linear, nn.Conv2d)
    before = {n: p.weight.detach().clone() for n, p in model.denoiser.named_modules() if isinstance(p, kinds)}
    parts = few_steps.added(model.denoiser)
    layers = dict(model.denoiser.named_modules())
    assert parts.keys() == before.keys()
    assert all(torch.equal(layers[name].weight, weight) for name, weight in before.items())
    assert [p for p in model.denoiser.parameters() if p.requires_grad] == [
        p for a in parts.values() for p in a.parameters()
    ]
    for part in parts.values():
        part.up.data.normal_()
    few_steps.write_lora(parts, tmp_path)
    pipe = load(WEIGHTS / "sd15", "sd15")
    base = {name: pipe.unet.get_parameter(f"{name}.weight").detach().clone() for name in before}
    pipe.load_lora_weights(tmp_path, weight_name=few_steps.FILE)
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    for name, weight in before.items():
        change, wanted = pipe.unet.get_parameter(f"{name}.weight") - base[name], layers[name].weight - weight
        assert torch.allclose(change, wanted, atol=0.02, rtol=0.01), name
    again = Denoising(MODELS["sd15"])
    read = few_steps.added(again.denoiser)
    few_steps.read_lora(read, tmp_path)
    assert all(torch.allclose(read[name].down, part.down, atol=1e-3) for name, part in parts.items())


def test_few_steps_are_learned_from_right_pictures_and_unrolled(tmp_path: Path) -> None:
    """Endings are of pictures that the checker accepts; a student whose steps say just them would lose nothing."""
    teacher = Denoising(MODELS["sd15"]).eval()
    train._copy_shipped("sd15", teacher)
    few = pytest.MonkeyPatch()
    for name in ("models.embedded.training.few_steps", "models.embedded.training.distilling"):
        few.setattr(f"{name}.CHUNK", 8)
    share = few_steps.write_endings(teacher, train._load_vae("vae4"), 0, tmp_path)
    few.undo()
    known = few_steps.read_endings(tmp_path)
    assert len(known.captions) == round(8 * share) == len(known.start) == len(known.end) > 0
    chosen = list(range(len(known.captions)))
    lost = float(few_steps.few_steps_loss(teacher, known, chosen))
    seen: list[int] = []

    def perfect(state: Tensor, t: Tensor, *_: object) -> Tensor:
        seen.append(int(t[0]))
        kept = teacher.alphas[t[0]]
        return (state - kept.sqrt() * known.end.float()) / (1 - kept).sqrt()

    few.setattr(teacher, "denoise", perfect)
    assert float(few_steps.few_steps_loss(teacher, known, chosen)) < 1e-6 < lost
    assert seen == [999, 499]
    few.undo()


def test_a_fresh_controlnet_says_nothing_and_learns_from_edges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its loss begins as that of the model alone, since it adds nothing yet; a step on it changes what it adds."""
    monkeypatch.setattr(control, "NOISY", (0, 1000))  # of all noise, as the model alone
    model = Denoising(MODELS["sd15"]).eval().requires_grad_(False)
    guide = control.new_control(model.denoiser)
    seen = control.fresh(train._load_vae("vae4"), control.MIX, 4, random.Random(0))
    assert seen.maps.shape == (4, 3, 64, 64) and set(seen.maps.unique().tolist()) == {0.0, 1.0}
    torch.manual_seed(5)
    loss = control.control_loss(model, guide, seen)
    torch.manual_seed(5)
    alone = model._epsilon(seen.latents, model.read(seen.captions), torch.zeros(4, dtype=torch.bool))
    assert float(loss) == pytest.approx(float(alone), rel=1e-4)
    loss.backward()
    moved = [p for p in guide.controlnet_mid_block.parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    assert moved and all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("gray", [False, True])
def test_edges_are_where_shapes_end(gray: bool) -> None:
    """Edges of a render lie within two pixels of where it goes over from background to shape, and nowhere else."""
    scene = sample_scene(random.Random(4), "two")
    picture = render(scene)
    given = picture.mean(2).astype(np.uint8) if gray else picture
    found = control.edges(given)[..., 0] > 0
    ground = np.abs(picture.astype(int) - picture[0, 0]).max(2) > 30
    band = ndimage.binary_dilation(ground, iterations=2) & ~ndimage.binary_erosion(ground, iterations=2)
    assert found.sum() > 20 and not (found & ~band).any()
