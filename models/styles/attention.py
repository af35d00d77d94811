"""Styles that change the attention of a U-Net while it draws: perturbed-attention guidance, and words that count more
or less.

Both are put on by hooks of torch, so whatever computes attention (torch, xformers) and whatever else is worn stays; and
both take pictures of a batch each by itself.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from models.prompts.chunks import tokens_of
from router.errors import StepError
from router.types import ModelCard, Style

BLOCKS = "mid"
"""Where attention is perturbed if a card does not say it: where the authors found it to be best for SD1.5 and SDXL."""


@contextmanager
def perturbed(pipe: Any, style: Style, scale: float) -> Iterator[None]:
    """While inside, every step is also guided away from a prediction without self-attention in some blocks.

    Perturbed-attention guidance (https://arxiv.org/abs/2403.17377) by diffusers' own processors: the prompt's part of
    the batch is drawn once more, each place of it attending to itself only, and `scale` times the difference is added
    to what the pipeline made of guidance. Without guidance rescale, those are the bytes of diffusers' PAG pipelines.
    """
    import torch
    from diffusers.models.attention_processor import (
        Attention,
        PAGCFGIdentitySelfAttnProcessor2_0,
        PAGIdentitySelfAttnProcessor2_0,
    )

    blocks = str(style.settings.get("blocks", BLOCKS))
    layers = [
        layer
        for name, layer in pipe.unet.named_modules()
        if isinstance(layer, Attention) and not layer.is_cross_attention and blocks in name
    ]
    if not layers:
        raise StepError(f"style {style.id!r}: no self-attention of this model is in a block called {blocks!r}", "style")
    processors = {1: PAGIdentitySelfAttnProcessor2_0(), 2: PAGCFGIdentitySelfAttnProcessor2_0()}
    before, scheduler = [layer.processor for layer in layers], pipe.scheduler
    usual, own = scheduler.step, vars(scheduler).get("step")
    away: Any = None

    def passes() -> int:
        return 2 if pipe.do_classifier_free_guidance else 1

    def once_more(network: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        for layer in layers:
            layer.set_processor(processors[passes()])
        rows = (args[0] if args else kwargs["sample"]).shape[0]
        return _extended(args, rows, passes()), _extended(kwargs, rows, passes())

    def taken_apart(network: Any, args: tuple[Any, ...], output: Any) -> Any:
        nonlocal away
        *kept, alone = output[0].chunk(passes() + 1)
        away = kept[-1] - alone
        whole = torch.cat(kept)
        return (whole,) if isinstance(output, tuple) else type(output)(sample=whole)

    @functools.wraps(usual)  # the pipeline looks at the signature
    def step(model_output: Any, *args: Any, **kwargs: Any) -> Any:
        return usual(model_output + scale * away, *args, **kwargs)

    hooks = [
        pipe.unet.register_forward_pre_hook(once_more, with_kwargs=True),
        pipe.unet.register_forward_hook(taken_apart),
    ]
    scheduler.step = step
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for layer, processor in zip(layers, before, strict=True):
            layer.set_processor(processor)
        del scheduler.step
        if own is not None:
            scheduler.step = own


def _extended(value: Any, rows: int, passes: int) -> Any:
    """Every tensor of `rows` rows with the rows of the last pass once more, also within lists and mappings."""
    import torch

    if isinstance(value, torch.Tensor):
        return torch.cat([value, value.chunk(passes)[-1]]) if value.ndim and value.shape[0] == rows else value
    if isinstance(value, Mapping):
        return {key: _extended(one, rows, passes) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([_extended(one, rows, passes) for one in value])
    return value


@contextmanager
def weighed(pipe: Any, styles: Sequence[tuple[Style, float]], card: ModelCard | None = None) -> Iterator[None]:
    """While inside, words of the prompt count more or less in a part of the denoising, as `styles` say.

    What a word adds to each place of the picture is multiplied, after the places have chosen where to look: attention
    re-weighting of https://arxiv.org/abs/2208.01626. Layout and other words stay, as far as they can. The negative
    prompt is left alone.

    card: of the pipeline's model, if its prompts may be read in chunks or with weights
    """
    import torch
    from diffusers.models.attention_processor import Attention

    if not styles:
        yield
        return
    usual, own = pipe.encode_prompt, vars(pipe).get("encode_prompt")
    signature = inspect.signature(usual)
    factors: list[Any] = []  # of each style, (pictures, tokens)
    done = 0.0  # the share of the denoising

    def encode_prompt(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
        read = tuple(usual(*args, **kwargs))
        prompt = signature.bind(*args, **kwargs).arguments.get("prompt")
        if prompt is None:
            raise StepError("words cannot be weighed in a prompt that is given as embeddings", "style")
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        shape = len(prompts), read[0].shape[1]
        factors[:] = [_factors(pipe, style, weight, prompts, shape, card).to(read[0]) for style, weight in styles]
        return read

    def stepping(network: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal done
        done = done_at(pipe, args[1] if len(args) > 1 else kwargs["timestep"])

    def counted(layer: Any, args: tuple[Any, ...], value: Any) -> Any:
        now = [
            factor
            for (style, _), factor in zip(styles, factors, strict=True)
            if float(style.settings.get("from", 0.0)) <= done < float(style.settings.get("to", 1.0))  # type: ignore[arg-type]
        ]
        if not now:
            return value
        each = torch.stack(now).prod(0)
        repeats = value.shape[0] // len(each)
        rows = [torch.ones_like(each)] * int(pipe.do_classifier_free_guidance)
        rows += [each] * (repeats - len(rows))
        return value * torch.cat(rows).unsqueeze(-1).to(value)

    hooks = [pipe.unet.register_forward_pre_hook(stepping, with_kwargs=True)]
    hooks += [
        layer.to_v.register_forward_hook(counted)
        for layer in pipe.unet.modules()
        if isinstance(layer, Attention) and layer.is_cross_attention
    ]
    pipe.encode_prompt = encode_prompt
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        del pipe.encode_prompt
        if own is not None:
            pipe.encode_prompt = own


def _factors(
    pipe: Any, style: Style, weight: float, prompts: Sequence[str], shape: tuple[int, int], card: ModelCard | None
) -> Any:
    """What each token of each prompt counts: float32 of `shape` (prompts, tokens), 1 for those of other words."""
    import torch

    made = torch.ones(shape)
    for row, prompt in enumerate(prompts):
        for word, factor in style.settings["words"].items():  # type: ignore[union-attr]
            for place in places(pipe, prompt, word, card):
                if place < shape[1]:  # others were cut
                    made[row, place] = 1 + (float(factor) - 1) * style.weight * weight
    return made


def done_at(pipe: Any, timestep: Any) -> float:
    """The share of the denoising before a timestep, by noise: 0 at the beginning."""
    first = timestep.flatten()[0] if getattr(timestep, "ndim", 0) else timestep
    return 1 - float(first) / pipe.scheduler.config.num_train_timesteps


def places(pipe: Any, prompt: str, word: str, card: ModelCard | None = None) -> list[int]:
    """Where the tokens of a word, or of several that follow each other, are among those that the network reads of a
    prompt; none if it does not say it. card: as of `weighed`"""
    said, limit = _said(pipe, prompt, card)
    sought, _ = _said(pipe, word, None)
    room = limit - 2  # of each chunk, without its beginning and end
    found: list[int] = []
    for start in range(len(said) - len(sought) + 1):
        if sought and said[start : start + len(sought)] == sought:
            found += [place // room * limit + 1 + place % room for place in range(start, start + len(sought))]
    return found


BEGIN, END, PAD = -1, -2, -3
"""In the place of tokens that are no words."""


def tokens_read(pipe: Any, prompt: str, length: int, card: ModelCard | None = None) -> list[int]:
    """What the network reads of a prompt in `length` tokens, chunk by chunk. card: as of `weighed`"""
    said, limit = _said(pipe, prompt, card)
    room, read = limit - 2, []
    for start in range(0, length // limit * room, room):
        part = said[start : start + room]
        read += [BEGIN, *part, END, *[PAD] * (room - len(part))]
    return read


def _said(pipe: Any, text: str, card: ModelCard | None) -> tuple[list[int], int]:
    """The tokens of a text, and how many an encoder reads at once, with beginning and end."""
    tokenizer = next(part for name in ("tokenizer", "tokenizer_2") if (part := getattr(pipe, name, None)) is not None)
    weighted = card is not None and card.prompt_weights
    return [token for token, _ in tokens_of(weighted, pipe, tokenizer, text)], int(tokenizer.model_max_length)
