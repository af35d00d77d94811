"""Ten ordinary prompts through `triptych generate`, as a new user would type them: the sheet in the README.

    python -m benchmarks.first_pictures

Each prompt is one run of the command with seed 1 and nothing else. Writes results/first_pictures.png (what came out,
the prompt and the recipe below it) and first_pictures.json (with the checker's verdict).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from models.embedded.captions import parse
from models.embedded.checker import check
from models.embedded.evaluate import sheet

RESULTS = Path(__file__).resolve().parent / "results"
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


def main() -> None:
    rows, pictures = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number, prompt in enumerate(tqdm(PROMPTS, unit="picture")):
            file = Path(folder) / f"{number}.png"
            command = [sys.executable, "-m", "deployments.cli", "generate", prompt, "-o", str(file), "--seed", "1"]
            answer = subprocess.run([*command, "--json"], check=True, capture_output=True, text=True)
            report = json.loads(answer.stdout)["x_triptych"]
            pixels = np.asarray(Image.open(file).convert("RGB"))
            scene = parse(prompt)
            assert scene is not None
            mark = check(pixels, scene)
            rows.append({"prompt": prompt, "recipe": report["recipe"], "exact": mark.exact, "faults": mark.faults})
            pictures.append(pixels)
    (RESULTS / "first_pictures.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    page = sheet(np.stack(pictures), [f"{row['prompt']} ({row['recipe']})" for row in rows])
    page.quantize(160).save(RESULTS / "first_pictures.png", optimize=True)
    print(f"{sum(bool(row['exact']) for row in rows)} of {len(rows)} exact")


if __name__ == "__main__":
    main()
