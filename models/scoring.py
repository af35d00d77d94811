"""How well pictures fit a prompt, in 0..1, higher is better."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.handoff import resize
from models.loading import load_error, place, quieten, resolve_dtype
from models.weights import check_weights
from router.errors import LoadError, did_you_mean
from router.types import ModelCard


class Scorer(Protocol):
    """Scores pictures, uint8 (height, width, 3) of any sizes, against one prompt."""

    def score(self, pictures: Sequence[NDArray[np.uint8]], prompt: str) -> tuple[float, ...]: ...

    def truncated_tokens(self, prompt: str) -> int: ...


class VerifierScorer:
    """The embedded family's own verifier."""

    def __init__(self, card: ModelCard, device: str, dtype: str | None) -> None:
        from models.embedded.verifier import WORDS, load_verifier

        path = Path(str(card.source.get("local") or ""))
        check_weights(card, path)
        try:
            self._verifier = load_verifier(path)
        except Exception as error:
            raise load_error(card, error) from error
        self._size = card.native_size
        self._words = WORDS

    def score(self, pictures: Sequence[NDArray[np.uint8]], prompt: str) -> tuple[float, ...]:
        batch = np.stack([resize(picture, *self._size) for picture in pictures])
        return _unit(self._verifier.score(batch, [prompt] * len(pictures)))

    def truncated_tokens(self, prompt: str) -> int:
        return max(0, len(re.findall(r"[a-z0-9]+|,", prompt.lower())) - self._words)


class ClipScorer:
    """CLIPScore: 2.5 times the cosine of picture and prompt, cut to 0..1. https://arxiv.org/abs/2104.08718"""

    def __init__(self, card: ModelCard, device: str, dtype: str | None) -> None:
        from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

        quieten()
        wanted = resolve_dtype(card, device, dtype)
        where = str(card.source.get("local") or card.source.get("hub"))
        if card.source.get("local"):
            check_weights(card, Path(where))
        options: dict[str, Any] = {"revision": card.source["revision"]} if card.source.get("revision") else {}
        try:
            model = CLIPModel.from_pretrained(where, use_safetensors=True, dtype=wanted, **options)
            self._tokenizer = AutoTokenizer.from_pretrained(where, **options)
            self._processor = CLIPImageProcessor.from_pretrained(where, **options)
        except Exception as error:
            raise load_error(card, error) from error
        self._model = place(card, model, device, wanted).eval()
        self._limit = model.config.text_config.max_position_embeddings

    def score(self, pictures: Sequence[NDArray[np.uint8]], prompt: str) -> tuple[float, ...]:
        import torch

        words = self._tokenizer([prompt], truncation=True, max_length=self._limit, return_tensors="pt")
        pixels = self._processor(images=list(pictures), return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            made = self._model(
                input_ids=words["input_ids"].to(self._model.device),
                attention_mask=words["attention_mask"].to(self._model.device),
                pixel_values=pixels.to(self._model.device, self._model.dtype),
            )
            cosine = torch.nn.functional.cosine_similarity(made.image_embeds.float(), made.text_embeds.float())
        return _unit(2.5 * cosine.cpu().numpy())

    def truncated_tokens(self, prompt: str) -> int:
        return max(0, len(self._tokenizer(prompt)["input_ids"]) - self._limit)


SCORERS: dict[str, type[VerifierScorer] | type[ClipScorer]] = {"verifier": VerifierScorer, "clip": ClipScorer}


def load_scorer(card: ModelCard, device: str = "cpu", dtype: str | None = None) -> Scorer:
    """The scorer of a card's family; `LoadError` with the remedy if it cannot be loaded."""
    if card.family not in SCORERS:
        raise LoadError(f"model {card.id!r}: family {card.family!r} is no scorer{did_you_mean(card.family, SCORERS)}")
    return SCORERS[card.family](card, device, dtype)


def _unit(scores: Any) -> tuple[float, ...]:
    return tuple(float(score) for score in np.clip(np.asarray(scores, dtype=np.float64), 0.0, 1.0))
