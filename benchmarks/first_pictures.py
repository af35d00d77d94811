"""Ten ordinary prompts through `triptych generate`, as a new user would type them: the sheet in the README.

    python -m benchmarks.first_pictures [--quick]

Each prompt is one run of the command with seed 1 and nothing else. Writes results/first_pictures.png (what came out,
the prompt and the recipe below it) and first_pictures.json (with the checker's verdict); `--quick` types one only,
in this process.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from benchmarks.command import is_full, parser, results
from models.embedded.captions import parse
from models.embedded.checker import check

RESULTS = Path(__file__).resolve().parent / "results"
SIDE, GAP, LINE, COLUMNS = 128, 14, 17, 5  # pixels, but for the last
PROMPTS = (
    "a red circle",
    "draw me a big blue star",
    "a small yellow square on a black background",
    "a purple ring at the top",
    "a green triangle and an orange circle",
    "a yellow star next to a red square",
    "a blue ring above a red triangle",
    "an orange square to the left of a purple circle",
    "three green squares",
    "a red star, a blue circle and a yellow triangle",
)


def main(argv: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    chosen = made.parse_args(argv)
    with results(chosen, RESULTS, is_full(made, chosen)) as out:
        if chosen.quick:
            measure(PROMPTS[:1], out, typed=in_this_process)
        else:
            measure(PROMPTS, out)


def in_a_shell(words: Sequence[str]) -> str:
    """What `triptych WORDS` prints, in a process of its own."""
    command = [sys.executable, "-m", "deployments.cli", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def in_this_process(words: Sequence[str]) -> str:
    """The same without a process that would import everything anew."""
    from typer.testing import CliRunner

    from deployments.cli.main import app

    return CliRunner().invoke(app, list(words), catch_exceptions=False).stdout


def measure(prompts: Sequence[str], out: Path, typed: Callable[[Sequence[str]], str] = in_a_shell) -> None:
    """A picture of each prompt, and what the checker says of it. typed: runs the command, and gives what it prints"""
    rows, pictures = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number, prompt in enumerate(tqdm(prompts, unit="picture")):
            file = Path(folder) / f"{number}.png"
            report = json.loads(typed(["generate", prompt, "-o", str(file), "--seed", "1", "--json"]))["x_triptych"]
            pixels = np.asarray(Image.open(file).convert("RGB"))
            scene = parse(prompt)
            assert scene is not None
            mark = check(pixels, scene)
            rows.append({"prompt": prompt, "recipe": report["recipe"], "exact": mark.exact, "faults": mark.faults})
            pictures.append(pixels)
    (out / "first_pictures.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    page = sheet(pictures, [row["prompt"] for row in rows], [row["recipe"] for row in rows])
    page.quantize(160).save(out / "first_pictures.png", optimize=True)
    print(f"{sum(bool(row['exact']) for row in rows)} of {len(rows)} exact")


def sheet(pictures: Sequence[NDArray[np.uint8]], prompts: Sequence[str], recipes: Sequence[str]) -> Image.Image:
    """Pictures (H, W, 3) in rows, each above its whole prompt and its recipe; a row is as high as its longest text."""
    font = ImageFont.load_default(13)
    labels = [wrapped(prompt, font, SIDE) for prompt in prompts]
    rows = [range(first, min(first + COLUMNS, len(pictures))) for first in range(0, len(pictures), COLUMNS)]
    heights = [SIDE + 6 + LINE * (max(len(labels[i]) for i in row) + 1) + GAP for row in rows]
    page = Image.new("RGB", (COLUMNS * (SIDE + GAP) + GAP, sum(heights) + GAP), (255, 255, 255))
    pen = ImageDraw.Draw(page)
    y = GAP
    for row, height in zip(rows, heights, strict=True):
        for x, i in zip(range(GAP, page.width, SIDE + GAP), row, strict=False):
            page.paste(Image.fromarray(pictures[i]).resize((SIDE, SIDE), Image.Resampling.NEAREST), (x, y))
            pen.rectangle((x - 1, y - 1, x + SIDE, y + SIDE), outline=(200, 200, 205))
            for number, line in enumerate([*labels[i], recipes[i]]):
                colour = (110, 110, 120) if number == len(labels[i]) else (20, 20, 20)
                pen.text((x, y + SIDE + 6 + LINE * number), line, fill=colour, font=font)
        y += height
    return page


def wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """The words of a text in lines of at most `width` pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


if __name__ == "__main__":
    main()
