"""What each kind of input adds to the router's predictions, on GenAI-Bench's folds (the study `ablation` of run.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.learning.evaluation import apgr, curve, pair_of, pearson
from router.learning.intervals import resampled
from router.learning.training import HeldOutScores, calibrate_columns, crossed, split_groups
from router.prompts.embedding import Embedder
from router.prompts.lexical import FEATURES, SIGNALS, lexical_features, skill_signals
from router.prompts.scaling import feature_rows
from router.prompts.skills import load_skills
from router.quality.kernel_ridge import Hyperparameters, Prompts, prompts_of
from router.quality.ratings_table import RatingsTable

Array = NDArray[np.float64]
WHOLE = "all, as `train`"


def variants(prompts: Prompts, choice: Hyperparameters) -> dict[str, tuple[Prompts, Hyperparameters]]:
    """Inputs and hyperparameters of each. Features left out are constant, so that the others weigh what they did."""
    lexical = slice(0, len(FEATURES))
    kernel_only = replace(choice, share=1.0)
    none = np.zeros_like(prompts.features)
    alone, ruled = none.copy(), prompts.features.copy()
    alone[:, lexical] = prompts.features[:, lexical]
    rules = [skill_signals(lexical_features(text)) for text in prompts.texts]
    ruled[:, len(FEATURES) :] = feature_rows(rules, SIGNALS)
    blind = replace(prompts, embeddings=np.zeros_like(prompts.embeddings))
    return {
        "embedding": (replace(prompts, features=none), kernel_only),
        "embedding, lexical": (replace(prompts, features=alone), kernel_only),
        "embedding, lexical, skills by rules": (replace(prompts, features=ruled), kernel_only),
        "embedding, lexical, skills by heads": (prompts, kernel_only),
        WHOLE: (prompts, choice),
        "all, skills by rules": (replace(prompts, features=ruled), choice),
        "all but the embedding": (blind, choice),
        "n-grams": (prompts, replace(choice, share=0.0)),
    }


def ablation(
    table: RatingsTable,
    embedder: Embedder,
    choice: Hyperparameters,
    pairs: Sequence[tuple[str, str]],
    seeds: Sequence[int],
) -> dict[str, Any]:
    """For each variant and pair: APGR by seed of the folds, their mean, and its distance from the whole with a 95 %
    interval from resampling groups (the seeds' rankings of a prompt stay together); and the Pearson correlation of the
    mean over models. The hyperparameters are those of the whole."""
    prompts = prompts_of(table.prompts, embedder.embed(table.prompts), load_skills())
    said = {
        name: [_held_out(inputs, table, own, seed) for seed in seeds]
        for name, (inputs, own) in variants(prompts, choice).items()
    }
    report: dict[str, Any] = {}
    for name, by_seed in said.items():
        mean = np.nanmean(table.scores, axis=1)
        report[name] = {
            "pearson of the mean": float(np.mean([pearson(np.nanmean(one.mean, axis=1), mean) for one in by_seed])),
            "pairs": {f"{a} -> {b}": _pair(table, by_seed, said[WHOLE], a, b) for a, b in pairs},
        }
    return report


def _held_out(prompts: Prompts, table: RatingsTable, choice: Hyperparameters, seed: int) -> HeldOutScores:
    split = split_groups(table.groups, 5, seed)
    return calibrate_columns(table, crossed(prompts, table, split, choice, seed), split)[1]


def _pair(
    table: RatingsTable, by_seed: Sequence[HeldOutScores], whole: Sequence[HeldOutScores], cheap: str, strong: str
) -> dict[str, Any]:
    own = [pair_of(table, one, cheap, strong) for one in by_seed]
    other = [pair_of(table, one, cheap, strong) for one in whole]
    gain = own[0].strong - own[0].cheap

    def mean(of: Sequence[Any], rows: NDArray[np.int64]) -> float:
        return float(np.mean([apgr(curve(pair.gain[rows], gain[rows], pair.split[rows])) for pair in of]))

    further: Callable[[NDArray[np.int64]], float] = lambda rows: mean(own, rows) - mean(other, rows)  # noqa: E731
    everything = np.arange(len(gain))
    return {
        "apgr": [apgr(curve(pair.gain, gain, pair.split)) for pair in own],
        "mean": mean(own, everything),
        "over all": further(everything),
        "over all, 95 %": resampled(np.array(own[0].groups), further),
    }
