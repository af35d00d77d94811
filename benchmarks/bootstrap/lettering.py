"""Whether the lettering judge accepts right words and refuses wrong ones, on rendered words of 256 to 1024 pixels.

    python -m benchmarks.bootstrap.lettering      # 30 pictures a size; writes lettering.json; --quick: two pictures

Words in plain fonts, on flat and on shaded backgrounds, a little turned, in colours that can be told apart. Each
picture is asked for the word that it shows, for another word, and for the same word with one letter changed. 95 %
Wilson intervals. That is the reader's limit; how models draw letters is another matter.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from benchmarks.command import is_full, parser, results
from models.embedded.outcomes import wilson
from models.judging.lettering import LetteringJudge, likeness

HERE = Path(__file__).resolve().parent
SIZES = (256, 512, 1024)
WORDS = (
    "OPEN", "HOPE", "NORTH", "Bakery", "Coffee", "Library", "Station", "Welcome", "Garden", "Market", "Street", "Quiet",
    "Harbour", "Museum", "Winter", "Orange", "Exit", "Hotel", "Books", "Florist", "Grand Opening", "Lost and Found",
    "No Parking", "Happy Birthday", "Fresh Bread", "Room 42", "Platform 9", "Since 1921", "Keep Left", "Mind the Gap",
)  # fmt: skip


def rendered(word: str, size: int, rng: random.Random) -> NDArray[np.uint8]:
    """A picture of a word, uint8 (size, size, 3)."""
    dark = rng.random() < 0.5
    back = [rng.randint(0, 90) if dark else rng.randint(165, 255) for _ in range(3)]
    ink = tuple(rng.randint(190, 255) if dark else rng.randint(0, 70) for _ in range(3))
    shade = np.linspace(0, rng.choice((0, 40)), size)[:, None, None]
    picture = Image.fromarray(
        np.broadcast_to(np.clip(np.array(back) + shade, 0, 255), (size, size, 3)).astype(np.uint8)
    )
    points = size // 4
    while (font := ImageFont.load_default(points)).getlength(word) > 0.85 * size:
        points -= 1
    layer = Image.new("L", (size, size))
    x = rng.uniform(0.05 * size, 0.95 * size - font.getlength(word))
    ImageDraw.Draw(layer).text((x, rng.uniform(0.15, 0.6) * size), word, font=font, fill=255)
    layer = layer.rotate(rng.uniform(-6, 6), resample=Image.Resampling.BICUBIC)
    picture.paste(ink, (0, 0), layer)
    return np.asarray(picture)


def misspelt(word: str, rng: random.Random) -> str:
    """The word with one letter changed to one that looks otherwise."""
    at = rng.choice([k for k, ch in enumerate(word) if ch.isalpha()])
    other = rng.choice([ch for ch in "aekmrswzhtg" if ch != word[at].lower()])
    return word[:at] + (other.upper() if word[at].isupper() else other) + word[at + 1 :]


def study(pictures: int, sizes: Sequence[int]) -> dict[str, dict[str, dict[str, float]]]:
    """Shares with their intervals by size: right words accepted, wrong and misspelt ones refused."""
    judge, found = LetteringJudge(), {}
    for size in sizes:
        counts = {"right accepted": 0, "wrong refused": 0, "misspelt refused": 0}
        for k in tqdm(range(pictures), desc=f"{size} pixels", disable=None):
            rng = random.Random(f"lettering {size} {k}")
            word = WORDS[k % len(WORDS)]
            lines = judge.lines(rendered(word, size, rng))
            other = rng.choice([one for one in WORDS if one != word])
            counts["right accepted"] += likeness(word, lines) > 0.5
            counts["wrong refused"] += likeness(other, lines) < 0.5
            counts["misspelt refused"] += likeness(misspelt(word, rng), lines) < 0.5
        found[str(size)] = {
            name: dict(zip(("share", "low", "high"), (n / pictures, *wilson(n, pictures)), strict=True))
            for name, n in counts.items()
        }
    return found


def main(argv: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    asked = made.parse_args(argv)
    with results(asked, HERE, is_full(made, asked)) as out:
        pictures, sizes = (2, SIZES[:1]) if asked.quick else (30, SIZES)
        found = study(pictures, sizes)
        (out / "lettering.json").write_text(
            json.dumps({"pictures a size": pictures, "sizes": found}, indent=1) + "\n", encoding="utf-8"
        )
    for size, shares in found.items():
        for name, one in shares.items():
            print(f"{size} pixels, {name}: {one['share']:.3f} [{one['low']:.3f}, {one['high']:.3f}]")


if __name__ == "__main__":
    main()
