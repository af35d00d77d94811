"""What the captions of the embedded world say, for its cards.

python -m models.embedded.training.vocabulary
"""

from __future__ import annotations

import random
from pathlib import Path

from models.embedded.captions import caption, vocabulary
from models.embedded.world import PAIRS, TIERS, sample_scene
from router.prompts.familiarity import sayings

FILE = Path(__file__).resolve().parents[2] / "cards" / "embedded" / "vocabulary.txt"
CAPTIONS = 20_000  # a tier; a pair of words is in a thousandth of one tier's captions or more

HEAD = """# What the captions say that the embedded family was trained and measured on: words, and numbers, sizes and colours
# with the word after them. Written by `python -m models.embedded.training.vocabulary`.
"""


def captions_say(each: int = CAPTIONS, seed: int = 0) -> list[str]:
    """Words and pairs of words of `each` captions a tier, sorted; the colour-shape pairs that were held out count."""
    rng = random.Random(seed)
    found = set(vocabulary()) - {","}
    for tier in TIERS:
        for k in range(each):
            split = "held out" if k % 8 == 0 else "train"
            found |= sayings(caption(sample_scene(rng, tier, PAIRS), rng, split))
    return sorted(found)


if __name__ == "__main__":
    FILE.write_text(HEAD + "\n".join(captions_say()) + "\n", encoding="utf-8")
