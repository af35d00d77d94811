"""How the tiny FLUX begins and learns: what its training stands on."""

from __future__ import annotations

import pytest
import torch

from models.embedded.tokenizers import t5_tokenizer
from models.embedded.training.architectures import MODELS, build_denoiser, build_t5
from models.embedded.training.run import Muon, orthogonal


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 24, 8), (2, 8, 24)])
def test_updates_are_nearly_orthogonal(shape: tuple[int, int, int]) -> None:
    """All singular values of an orthogonalised update lie near one, whether it is tall, wide or square."""
    made = orthogonal(torch.randn(shape, generator=torch.Generator().manual_seed(1)))
    values = torch.linalg.svdvals(made)
    assert made.shape == shape
    assert values.min() > 0.3
    assert values.max() < 1.4


def test_muon_steps_as_torchs_does() -> None:
    """In float32 and all at once, the steps are those of `torch.optim.Muon` up to its bfloat16."""
    generator = torch.Generator().manual_seed(2)
    start = [torch.randn(16, 8, generator=generator) for _ in range(2)]
    gradients = [[torch.randn(16, 8, generator=generator) for _ in range(2)] for _ in range(4)]
    ours = [torch.nn.Parameter(one.clone()) for one in start]
    theirs = [torch.nn.Parameter(one.clone()) for one in start]
    optimizers = [
        Muon(ours, lr=0.02, weight_decay=0.1),
        torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    ]
    for step in gradients:
        for parameters, optimizer in zip((ours, theirs), optimizers, strict=True):
            for parameter, gradient in zip(parameters, step, strict=True):
                parameter.grad = gradient.clone()
            optimizer.step()
    for one, other, before in zip(ours, theirs, start, strict=True):
        moved = (other - before).norm()
        assert (one - other).norm() < 0.05 * moved


def test_a_fresh_transformer_answers_zero_through_open_gates() -> None:
    """Before the first update the answer is zero, and yet its gradient reaches every block."""
    torch.manual_seed(0)
    denoiser = build_denoiser(MODELS["flux"])
    width = denoiser.config.joint_attention_dim
    inputs = {
        "hidden_states": torch.randn(1, 16, 64),
        "encoder_hidden_states": torch.randn(1, 5, width),
        "pooled_projections": torch.randn(1, denoiser.config.pooled_projection_dim),
        "timestep": torch.tensor([0.5]),
        "img_ids": torch.zeros(16, 3),
        "txt_ids": torch.zeros(5, 3),
    }
    answer = denoiser(**inputs).sample
    assert answer.abs().max() == 0
    with torch.no_grad():
        denoiser.proj_out.weight.normal_(std=0.1)
    denoiser(**inputs).sample.square().mean().backward()
    reached = [block.attn.to_q.weight.grad.abs().max() for block in denoiser.single_transformer_blocks]
    reached += [block.attn.to_q.weight.grad.abs().max() for block in denoiser.transformer_blocks]
    assert min(reached) > 0


def test_a_fresh_t5_tells_what_comes_before_from_what_comes_after() -> None:
    """The state of a word changes when its neighbours change sides; without the biases it would read a bag of words."""
    torch.manual_seed(0)
    tokenizer = t5_tokenizer()
    encoder = build_t5(MODELS["flux"].texts[1], tokenizer).eval()
    asked = [tokenizer(text, return_tensors="pt").input_ids for text in ("red circle blue", "blue circle red")]

    def difference() -> float:
        with torch.no_grad():
            one, other = (encoder(ids).last_hidden_state[0, 1] for ids in asked)
        return float((one - other).norm() / one.norm())

    told = difference()
    with torch.no_grad():
        encoder.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight.zero_()
    assert difference() < 1e-4
    assert told > 0.02
