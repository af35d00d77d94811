"""`a (red:1.3) circle`: parts of a prompt that count more or less than the rest."""

from __future__ import annotations

import re

from router.errors import StepError

MOST = 3.0
WEIGHTED = re.compile(r"(?<!\\)\(([^():]+):\s*(\d*\.?\d+)\s*\)")


def parts(prompt: str, weighted: bool = True) -> list[tuple[str, float]]:
    """The prompt as (text, weight), in its order; a single part of weight 1 if nothing is weighted.

    Only `(words:number)` is a weight; other brackets are letters, and so is `\\(`. Raises `StepError` for weights above
    `MOST`.
    """
    if not weighted:
        return [(prompt, 1.0)]
    found, at = [], 0
    for match in WEIGHTED.finditer(prompt):
        if (weight := float(match[2])) > MOST:
            raise StepError(
                f"prompt: the weight of {match[1]!r} is {weight:g}, and weights go from 0 to {MOST:g}", "prompt"
            )
        found += [(prompt[at : match.start()], 1.0), (match[1], weight)]
        at = match.end()
    found.append((prompt[at:], 1.0))
    return [(text.replace("\\(", "("), weight) for text, weight in found if text.strip()] or [("", 1.0)]


def plain(prompt: str, weighted: bool) -> str:
    """The prompt without its weights, for counting."""
    return " ".join(text.strip() for text, _ in parts(prompt, weighted)) if weighted else prompt
