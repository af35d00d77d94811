"""The small pictures of the page's style picker: one prompt and seed, as it is and with each style at weight 1.

    python -m benchmarks.styles.samples [--quick]

`plain.png` and one file for each style that the embedded SD1.5 can wear, 64 x 64 pixels, beside the page's sources;
`make page` takes them into the build.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

from benchmarks.command import is_full, parser, results
from models import load_card, load_engine
from models.styles.cards import load_styles
from router.planning.styles import wearable
from router.types import Picture, Scalar, Step, spelled, wearing

HOME = Path(__file__).resolve().parents[2] / "web/src/styles/samples"
PROMPT, SEED = "a red circle above a blue square", 3
COLOURS = 64  # of a file: these pictures are flat


def main(argv: Sequence[str] | None = None) -> None:
    """Draw and write."""
    made = parser(__doc__)
    asked = made.parse_args(argv)
    card = replace(load_card("embedded/sd15"), styles=load_styles())
    names = [name for name, style in card.styles.items() if wearable(style, card)]
    engine = load_engine(card, threads=1)
    with results(asked, HOME, is_full(made, asked)) as out:
        for name in ("plain", *names[: 1 if asked.quick else None]):
            worn = spelled(wearing({} if name == "plain" else {name: 1.0}))
            settings: dict[str, Scalar] = {"prompt": PROMPT, "seed": SEED, "style": worn or None}
            if name in card.styles and card.styles[name].settings.get("scheduler") == "lcm":
                settings |= {"steps": 1, "guidance_scale": 1.0}  # as such a style is meant to be worn
            value = engine.run(Step("made", "generate", card.id, (), "image", settings)).value
            assert isinstance(value, Picture)
            Image.fromarray(value.pixels).quantize(COLOURS).save(out / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
