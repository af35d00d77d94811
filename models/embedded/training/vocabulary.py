"""What the captions of the embedded world say, for its cards (key `vocabulary`).

python -m models.embedded.training.vocabulary
"""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

from models.embedded.captions import COUNT_WORDS, SIZE_WORDS, caption, vocabulary
from models.embedded.world import BACKGROUNDS, COLOURS, PAIRS, TIERS, sample_scene

FILE = Path(__file__).resolve().parents[2] / "cards" / "embedded" / "vocabulary.txt"
CAPTIONS = 20_000  # a tier; the rarest pair of words is in some dozens of them

HEAD = """# What the captions say that the embedded family was trained and measured on: words, and numbers, sizes and
# colours with the word after them. Written by `python -m models.embedded.training.vocabulary`.
"""

_ATTRIBUTES = {
    *COUNT_WORDS.values(),
    *COLOURS,
    *BACKGROUNDS,
    *(word for words in SIZE_WORDS.values() for word in words),
}


def captions_say(each: int = CAPTIONS, seed: int = 0) -> list[str]:
    """Words and pairs of words of `each` captions a tier, sorted; the colour-shape pairs that were held out count."""
    rng = random.Random(seed)
    found = set(vocabulary()) - {","}
    for tier in TIERS:
        for k in range(each):
            text = caption(sample_scene(rng, tier, PAIRS), rng, "held out" if k % 8 == 0 else "train")
            for phrase in text.split(","):
                found |= {f"{one} {after}" for one, after in pairwise(phrase.split()) if one in _ATTRIBUTES}
    return sorted(found)


if __name__ == "__main__":
    FILE.write_text(HEAD + "\n".join(captions_say()) + "\n", encoding="utf-8")
