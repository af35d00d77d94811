"""The sheet of docs/restyling-sd15.md: one prompt and seed, as it is and with each change.

    python -m benchmarks.styles.restyling [--quick]

`restyling.png`: a column for each style at weight 1 beside the picture without; a row for each of three prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image, ImageDraw

from benchmarks.command import is_full, parser, results
from models import load_card, load_engine
from models.styles.cards import load_styles
from router.types import Picture, Step, spelled, wearing

HOME = Path(__file__).resolve().parent
ORDER = ("euler", "rescaled", "freeu", "pag", "shapely", "early", "gray", "dusk", "outlined")
PROMPTS = ("a red circle above a blue square", "a large green star", "a yellow triangle and a purple ring")
SCALE, GAP, LINE = 2, 6, 14


def main(argv: Sequence[str] | None = None) -> None:
    """Draw and write."""
    made = parser(__doc__)
    asked = made.parse_args(argv)
    names, prompts = (ORDER[:1], PROMPTS[:1]) if asked.quick else (ORDER, PROMPTS)
    engine = load_engine(replace(load_card("embedded/sd15"), styles=load_styles()), threads=1)
    side = 64 * SCALE + GAP
    page = Image.new("RGB", (side * (len(names) + 1) + GAP, (side + LINE) * len(prompts) + LINE + GAP), "white")
    pen = ImageDraw.Draw(page)
    for column, name in enumerate(("before", *names)):
        pen.text((GAP + column * side, 2), name, fill="black", font_size=11)
    for row, prompt in enumerate(prompts):
        top = LINE + GAP + row * (side + LINE)
        for column, name in enumerate(("", *names)):
            settings = {"prompt": prompt, "seed": 3, "style": spelled(wearing({name: 1.0} if name else {})) or None}
            value = engine.run(Step("made", "generate", "sd15", (), "image", settings)).value
            assert isinstance(value, Picture)
            shown = Image.fromarray(value.pixels).resize((64 * SCALE, 64 * SCALE), Image.Resampling.NEAREST)
            page.paste(shown, (GAP + column * side, top))
        pen.text((GAP, top + 64 * SCALE + 1), prompt, fill="black", font_size=10)
    with results(asked, HOME, is_full(made, asked)) as out:
        page.quantize(128).save(out / "restyling.png", optimize=True)


if __name__ == "__main__":
    main()
