"""The sheet of docs/restyling-sd15.md: one prompt and seed, as it is and with each change.

    python -m benchmarks.styles.restyling [--quick]

`restyling.png`: a column for each style at weight 1 beside the picture without, a row for each of three prompts, in two
blocks. Two styles are drawn with the settings that their cards advise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from benchmarks.command import is_full, parser, results
from models import load_card, load_engine
from models.styles.cards import load_styles
from router.types import Picture, Scalar, Step, spelled, wearing

HOME = Path(__file__).resolve().parent
ORDER = ("euler", "rescaled", "freeu", "pag", "shapely", "recoloured", "early", "gray", "dusk", "outlined", "lcm")
ADVISED: dict[str, dict[str, Scalar]] = {
    "outlined": {"guidance_scale": 1.5},
    "lcm": {"steps": 1, "guidance_scale": 1.0},
}
PROMPTS = ("a red circle above a blue square", "a large green star", "a yellow triangle and a purple ring")
A_BLOCK = 6
SCALE, GAP, LINE, BETWEEN = 2, 6, 18, 14
SIDE = 64 * SCALE


def drawn(engine: Any, prompt: str, style: str) -> Image.Image:
    """One picture in a style, or in none, enlarged, with a frame."""
    settings: dict[str, Scalar] = {"prompt": prompt, "seed": 3, **ADVISED.get(style, {})}
    settings["style"] = spelled(wearing({style: 1.0} if style else {})) or None
    value = engine.run(Step("made", "generate", "sd15", (), "image", settings)).value
    assert isinstance(value, Picture)
    shown = Image.new("RGB", (SIDE + 2, SIDE + 2), "#d8d4cc")
    shown.paste(Image.fromarray(value.pixels).resize((SIDE, SIDE), Image.Resampling.NEAREST), (1, 1))
    return shown


def block(engine: Any, names: Sequence[str], prompts: Sequence[str]) -> Image.Image:
    """A row for each prompt, a column for each style after the picture without."""
    width, height = SIDE + 2 + GAP, SIDE + 2 + LINE + GAP
    page = Image.new("RGB", (GAP + width * (len(names) + 1), LINE + GAP + height * len(prompts)), "white")
    pen = ImageDraw.Draw(page)
    for column, name in enumerate(("", *names)):
        left = GAP + column * width
        pen.text((left, 2), name or "before", fill="black", font_size=13)
        for row, prompt in enumerate(prompts):
            page.paste(drawn(engine, prompt, name), (left, LINE + GAP + row * height))
    for row, prompt in enumerate(prompts):
        pen.text((GAP, LINE + GAP + row * height + SIDE + 4), prompt, fill="#555555", font_size=12)
    return page


def main(argv: Sequence[str] | None = None) -> None:
    """Draw and write."""
    made = parser(__doc__)
    asked = made.parse_args(argv)
    names, prompts = (ORDER[:1], PROMPTS[:1]) if asked.quick else (ORDER, PROMPTS)
    engine = load_engine(replace(load_card("embedded/sd15"), styles=load_styles()), threads=1)
    blocks = [block(engine, names[k : k + A_BLOCK], prompts) for k in range(0, len(names), A_BLOCK)]
    page = Image.new("RGB", (blocks[0].width, sum(one.height + BETWEEN for one in blocks) - BETWEEN), "white")
    top = 0
    for one in blocks:
        page.paste(one, (0, top))
        top += one.height + BETWEEN
    with results(asked, HOME, is_full(made, asked)) as out:
        page.quantize(128).save(out / "restyling.png", optimize=True)


if __name__ == "__main__":
    main()
