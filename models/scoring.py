"""How well pictures fit a prompt, in 0..1, higher is better."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.handover import resize
from models.weights.loading import check_place, load_error, place, quieten, resolve_dtype
from models.weights.revisions import check_weights
from router.errors import LoadError, did_you_mean
from router.types import ModelCard


class Scorer(Protocol):
    """Scores pictures, uint8 (height, width, 3) of any sizes, against one prompt, or each against its own."""

    def score(self, pictures: Sequence[NDArray[np.uint8]], prompt: str | Sequence[str]) -> tuple[float, ...]: ...

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

    def score(self, pictures: Sequence[NDArray[np.uint8]], prompt: str | Sequence[str]) -> tuple[float, ...]:
        batch = np.stack([resize(picture, *self._size) for picture in pictures])
        return _unit(self._verifier.score(batch, _each(prompt, pictures)))

    def truncated_tokens(self, prompt: str) -> int:
        return max(0, len(re.findall(r"[a-z0-9]+|,", prompt.lower())) - self._words)


class ClipScorer:
    """CLIPScore: 2.5 times the cosine of picture and prompt, cut to 0..1. https://arxiv.org/abs/2104.08718"""

    def __init__(self, card: ModelCard, device: str, dtype: str | None) -> None:
        from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

        parts = _load(card, device, dtype, CLIPModel, AutoTokenizer, CLIPImageProcessor)
        self._model, self._tokenizer, self._processor = parts
        self._limit = self._model.config.text_config.max_position_embeddings

    def score(self, pictures: Sequence[NDArray[np.uint8]], prompt: str | Sequence[str]) -> tuple[float, ...]:
        return _unit(2.5 * self._cosines(pictures, prompt))

    def truncated_tokens(self, prompt: str) -> int:
        return max(0, len(self._tokenizer(prompt)["input_ids"]) - self._limit)

    def _cosines(self, pictures: Sequence[NDArray[np.uint8]], prompt: str | Sequence[str]) -> NDArray[np.float64]:
        """Cosines (n,) of pictures and prompts in the space that they share."""
        import torch

        asked = [prompt] if isinstance(prompt, str) else list(prompt)
        words = self._tokenizer(asked, truncation=True, max_length=self._limit, padding=True, return_tensors="pt")
        pixels = self._processor(images=list(pictures), return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            made = self._model(
                input_ids=words["input_ids"].to(self._model.device),
                attention_mask=words["attention_mask"].to(self._model.device),
                pixel_values=pixels.to(self._model.device, self._model.dtype),
            )
            cosine = torch.nn.functional.cosine_similarity(made.image_embeds.float(), made.text_embeds.float())
        return np.asarray(cosine.cpu().numpy(), np.float64)


class PickScorer(ClipScorer):
    """PickScore: which of two pictures people would pick. https://arxiv.org/abs/2305.01569

    The paper's score is the cosine times the learned scale, and a difference of one is odds of e to one. It is told as
    the probability of being picked over a picture of the middling score `PICK_MIDDLE`, which keeps these odds.
    """

    def score(self, pictures: Sequence[NDArray[np.uint8]], prompt: str | Sequence[str]) -> tuple[float, ...]:
        scale = float(self._model.logit_scale.float().exp())
        return _unit(1 / (1 + np.exp(PICK_MIDDLE - scale * self._cosines(pictures, prompt))))


class QuestionScorer:
    """VQAScore: the probability that a model for questions about pictures answers "yes", against "no", when it is asked
    whether the picture shows the prompt. https://arxiv.org/abs/2404.01291

    The question is `settings: {question: ...}` of the card, with {prompt} in it.
    """

    def __init__(self, card: ModelCard, device: str, dtype: str | None) -> None:
        from transformers import AutoTokenizer, BlipForQuestionAnswering, BlipImageProcessor

        parts = _load(card, device, dtype, BlipForQuestionAnswering, AutoTokenizer, BlipImageProcessor)
        self._model, self._tokenizer, self._processor = parts
        self._question = str(card.settings.get("question") or QUESTION)
        if "{prompt}" not in self._question:
            raise LoadError(f"model {card.id!r}: settings.question has no {{prompt}} in it: {self._question!r}")
        self._limit = min(card.max_prompt_tokens, self._model.config.text_config.max_position_embeddings)
        self._answers = [self._token(card, word) for word in ("yes", "no")]

    def score(self, pictures: Sequence[NDArray[np.uint8]], prompt: str | Sequence[str]) -> tuple[float, ...]:
        import torch

        model = self._model
        asked = self._tokenizer(
            [self._asked(one) for one in _each(prompt, pictures)],
            truncation=True,
            max_length=self._limit,
            padding=True,
            return_tensors="pt",
        )
        pixels = self._processor(images=list(pictures), return_tensors="pt")["pixel_values"]
        mask = asked["attention_mask"].to(model.device)
        with torch.inference_mode():
            seen = model.vision_model(pixel_values=pixels.to(model.device, model.dtype)).last_hidden_state
            question = model.text_encoder(
                input_ids=asked["input_ids"].to(model.device),
                attention_mask=mask,
                encoder_hidden_states=seen,
                encoder_attention_mask=torch.ones(seen.shape[:-1], dtype=torch.long, device=seen.device),
            ).last_hidden_state
            begin = torch.full((len(pictures), 1), model.decoder_start_token_id, device=model.device)
            answer = model.text_decoder(
                input_ids=begin, encoder_hidden_states=question, encoder_attention_mask=mask
            ).logits[:, -1]
            yes = answer[:, self._answers].float().softmax(-1)[:, 0]
        return _unit(yes.cpu().numpy())

    def truncated_tokens(self, prompt: str) -> int:
        return max(0, len(self._tokenizer(self._asked(prompt))["input_ids"]) - self._limit)

    def _asked(self, prompt: str) -> str:
        return self._question.replace("{prompt}", prompt)

    def _token(self, card: ModelCard, word: str) -> int:
        found = self._tokenizer(word, add_special_tokens=False)["input_ids"]
        if len(found) != 1:
            raise LoadError(f"model {card.id!r}: its tokenizer has no token for {word!r}; it cannot answer yes or no")
        return int(found[0])


QUESTION = 'Does this figure show "{prompt}"? Please answer yes or no.'
PICK_MIDDLE = 21.0  # about the mean PickScore of pictures by the models of its own training table

SCORERS: dict[str, type[VerifierScorer] | type[ClipScorer] | type[QuestionScorer]] = {
    "verifier": VerifierScorer,
    "clip": ClipScorer,
    "pickscore": PickScorer,
    "vqa": QuestionScorer,
}


def _load(card: ModelCard, device: str, dtype: str | None, model: Any, tokenizer: Any, processor: Any) -> list[Any]:
    """Model, tokenizer and image processor of a card's folder or hub repository; the latter two come from elsewhere
    where `settings: {processor: ...}` says so."""
    quieten()
    wanted = resolve_dtype(card, device, dtype)
    check_place(card, device, wanted)  # before a byte is read
    where = str(card.source.get("local") or card.source.get("hub"))
    if card.source.get("local"):
        check_weights(card, Path(where))
    options: dict[str, Any] = {"revision": card.source["revision"]} if card.source.get("revision") else {}
    elsewhere = card.settings.get("processor")
    beside = (str(elsewhere), {}) if elsewhere else (where, options)
    try:
        loaded = model.from_pretrained(where, use_safetensors=True, dtype=wanted, **options)
        parts = [part.from_pretrained(beside[0], **beside[1]) for part in (tokenizer, processor)]
    except Exception as error:
        raise load_error(card, error) from error
    return [place(card, loaded, device, wanted).eval(), *parts]


def load_scorer(card: ModelCard, device: str = "cpu", dtype: str | None = None) -> Scorer:
    """The scorer of a card's family; `LoadError` with the remedy if it cannot be loaded."""
    if card.family not in SCORERS:
        raise LoadError(f"model {card.id!r}: family {card.family!r} is no scorer{did_you_mean(card.family, SCORERS)}")
    return SCORERS[card.family](card, device, dtype)


def _each(prompt: str | Sequence[str], pictures: Sequence[NDArray[np.uint8]]) -> list[str]:
    """The prompt of each picture."""
    return [prompt] * len(pictures) if isinstance(prompt, str) else list(prompt)


def _unit(scores: Any) -> tuple[float, ...]:
    return tuple(float(score) for score in np.clip(np.asarray(scores, dtype=np.float64), 0.0, 1.0))
