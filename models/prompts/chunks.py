"""Prompts longer than CLIP reads, chunk by chunk, one behind the other; and parts of them that count more or less.

A chunk is as long as the encoder's own limit, with its beginning and end, as common interfaces of Stable Diffusion do
it. A weight moves the embeddings of its words away from those of an empty prompt, or towards them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from models.prompts.weights import parts
from router.types import ModelCard

Tokens = list[tuple[int, float]]
"""(token, its weight), without beginning and end."""


def reads(card: ModelCard) -> bool:
    """Whether a card wants its prompts read so."""
    return card.prompt_chunks > 1 or card.prompt_weights


def needs(card: ModelCard, pipe: Any, texts: Sequence[str]) -> bool:
    """Whether one of these prompts says a weight or is longer than its encoders read; the others are read as ever."""
    tokenizers = [tokenizer for _, tokenizer in _encoders(pipe)]
    for text in texts:
        if parts(text, card.prompt_weights) not in ([(text, 1.0)], [("", 1.0)]):
            return True
        if any(len(tokens_of(card.prompt_weights, pipe, one, text)) > one.model_max_length - 2 for one in tokenizers):
            return card.prompt_chunks > 1
    return False


def encoded(
    card: ModelCard, pipe: Any, prompt: str, negative: str | None, guided: bool, device: Any, clip_skip: int | None
) -> tuple[Any, ...]:
    """What `encode_prompt` of Stable Diffusion and SDXL returns for one prompt: its embeddings, shape
    (1, chunks × limit, width), those of the negative prompt (None without guidance), and for SDXL both pooled."""
    import torch

    zeros = negative is None and getattr(pipe.config, "force_zeros_for_empty_prompt", False)
    texts = [prompt, *([negative or ""] if guided and not zeros else [])]
    tokens = {
        id(tokenizer): [tokens_of(card.prompt_weights, pipe, tokenizer, text) for text in texts]
        for _, tokenizer in _encoders(pipe)
    }
    count = max(
        math.ceil(len(one) / (tokenizer.model_max_length - 2))
        for _, tokenizer in _encoders(pipe)
        for one in tokens[id(tokenizer)]
    )
    count = min(max(1, count), card.prompt_chunks)
    states: list[list[Any]] = [[] for _ in texts]
    pooled: list[Any] = [None for _ in texts]
    for encoder, tokenizer in _encoders(pipe):
        for number in range(len(texts)):
            made, last = _read(pipe, encoder, tokenizer, tokens[id(tokenizer)][number], count, device, clip_skip)
            states[number].append(made)
            pooled[number] = last  # of the last encoder, which is the larger one
    embeddings: list[Any] = [torch.cat(one, dim=-1) for one in states]
    if guided and zeros:
        embeddings.append(torch.zeros_like(embeddings[0]))
        pooled.append(torch.zeros_like(pooled[0]))
    embeddings, pooled = [*embeddings, None][:2], [*pooled, None][:2]
    return (*embeddings, *pooled) if _is_xl(pipe) else tuple(embeddings)


def _is_xl(pipe: Any) -> bool:
    return hasattr(pipe, "text_encoder_2")


def _encoders(pipe: Any) -> list[tuple[Any, Any]]:
    """The text encoders of a pipeline with their tokenizers, the refiner's one included."""
    names = (("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2"))
    pairs = [(getattr(pipe, encoder, None), getattr(pipe, tokenizer, None)) for encoder, tokenizer in names]
    return [(encoder, tokenizer) for encoder, tokenizer in pairs if encoder is not None]


def tokens_of(weighted: bool, pipe: Any, tokenizer: Any, text: str) -> Tokens:
    """A text as a tokenizer reads it, however long. weighted: `(word:1.3)` in it is a weight"""
    found: Tokens = []
    for words, weight in parts(text, weighted):
        if hasattr(pipe, "maybe_convert_prompt"):  # words that textual inversions made of several tokens
            words = pipe.maybe_convert_prompt(words, tokenizer)
        ids = tokenizer(words, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
        found += [(int(one), weight) for one in ids]
    return found


def _read(
    pipe: Any, encoder: Any, tokenizer: Any, tokens: Tokens, count: int, device: Any, clip_skip: int | None
) -> tuple[Any, Any]:
    """The embeddings of `count` chunks, shape (1, count × limit, width), and what is pooled of the first."""
    import torch

    room = tokenizer.model_max_length - 2
    rows, weights = [], []
    for number in range(count):
        part = tokens[number * room : (number + 1) * room]
        pad = room - len(part)
        ends = [tokenizer.eos_token_id, *([tokenizer.pad_token_id] * pad)]
        rows.append([tokenizer.bos_token_id, *(token for token, _ in part), *ends])
        weights.append([1.0, *(weight for _, weight in part), *([1.0] * (pad + 1))])
    made, pooled = _states(pipe, encoder, torch.tensor(rows, device=device), clip_skip)
    if any(weight != 1.0 for row in weights for weight in row):
        empty = [tokenizer.bos_token_id, tokenizer.eos_token_id, *([tokenizer.pad_token_id] * room)]
        nothing, _ = _states(pipe, encoder, torch.tensor([empty], device=device), clip_skip)
        factor = torch.tensor(weights, device=device, dtype=made.dtype).unsqueeze(-1)
        made = torch.where(factor == 1, made, nothing + factor * (made - nothing))
    return made.reshape(1, -1, made.shape[-1]), None if pooled is None else pooled[:1]


def _states(pipe: Any, encoder: Any, ids: Any, clip_skip: int | None) -> tuple[Any, Any]:
    """What the pipeline takes of an encoder: for SDXL the layer before the last, and what is pooled."""
    out = encoder(ids, output_hidden_states=True)
    if _is_xl(pipe):
        return out.hidden_states[-2 if clip_skip is None else -(clip_skip + 2)], out[0]
    if clip_skip is None:
        return out[0], None
    inner = getattr(encoder, "text_model", encoder)
    return inner.final_layer_norm(out.hidden_states[-(clip_skip + 1)]), None
