"""Does prompt-to-prompt leave things where they were, when a word of the prompt is changed?

    python -m benchmarks.styles.places [--prompts 136] [--quick]

Held-out prompts, each drawn with its own seed. Then something is said otherwise: a colour, a shape, or that the
background is black; and the new prompt is drawn from the same seed, plainly and with the attention maps of the former
one (`models/styles/maps.py`): those to words until .8 of the denoising, as the shipped style has it, or all of them
until the end.

`places.json` has a row for each edit and way, with 95 % intervals over prompts
  kept    the share of pictures in which each thing that was not edited is found where it was, within 1 pixel, of its
          colour, and no thing more or less
  moved   mean pixels that those things moved; 16 for one that is gone
  exact   the share of pictures that are right for the new prompt
  gained  `kept` less that of the plain way, of the same prompts and seeds
`places.png` shows those pictures of each edit in which the maps to words held most.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from benchmarks.command import is_full, parser, results
from benchmarks.fusion.run import interval
from benchmarks.styles.drawing import draw_all
from models import load_card, load_engine
from models.embedded.checker import check, find_objects
from models.embedded.outcomes import Prompt, held_out_prompts
from models.embedded.world import COLOURS, SHAPES, TIERS, Scene, Thing
from models.styles.cards import load_styles
from router.types import Style

HOME = Path(__file__).resolve().parent
SEED, NEAR, GONE = 5153, 1.0, 16.0
WAYS: dict[str, dict[str, float]] = {
    "plain": {},
    "maps to words until .8": {"cross_attention_until": 0.8},
    "all maps until the end": {"cross_attention_until": 1.0, "self_attention_until": 1.0},
}
GROUND = ", on a black background"
EDITS = ("colour", "shape", "background")
ASKED = TIERS[:-1]
SCALE, GAP, LINE = 2, 6, 18
SHOWN = 1
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Edit:
    """A prompt that is said otherwise: what of it was, and what it is now.

    scene: of the new prompt;   edited: colour or shape of the things that may look otherwise
    """

    before: Prompt
    text: str
    scene: Scene
    edited: str | None
    seed: int


def edits(kind: str, prompts: Sequence[Prompt]) -> Iterator[Edit]:
    """One edit of each prompt that can have one: of a word that stands in it once, to one that no thing has."""
    for number, prompt in enumerate(prompts):
        rng, scene = random.Random(f"{kind} {number}"), prompt.scene
        if kind == "background":
            if scene.background is None:
                text = prompt.text + GROUND
                yield Edit(prompt, text, replace(scene, background="black"), None, SEED + number)
            continue
        said = [getattr(thing, kind) for thing in scene.things]
        once = [word for word in dict.fromkeys(said) if prompt.text.split().count(word) == 1]
        free = [word for word in (COLOURS if kind == "colour" else SHAPES) if word not in said]
        if once and free:
            was, now = rng.choice(once), rng.choice(free)
            text = " ".join(now if word == was else word for word in prompt.text.split())
            things = tuple(_said(thing, kind, now) if getattr(thing, kind) == was else thing for thing in scene.things)
            yield Edit(prompt, text, replace(scene, things=things), was, SEED + number)


def _said(thing: Thing, kind: str, now: str) -> Thing:
    return replace(thing, colour=now) if kind == "colour" else replace(thing, shape=now)


def drawn(engine: Any, texts: Sequence[str], seeds: Sequence[int], style: Style | None = None) -> list[Pixels]:
    """A picture of each, in a style or in none."""
    engine.card = replace(engine.card, styles={} if style is None else {style.id: style})
    worn = None if style is None else f"{style.id}*1"
    asked = [{"prompt": text, "seed": seed, "style": worn} for text, seed in zip(texts, seeds, strict=True)]
    return draw_all(engine, asked)


def moved(before: Pixels, after: Pixels, kind: str, edited: str | None) -> list[float]:
    """How far each thing that was not edited is from where it was, in pixels; a number of `GONE` for each that came or
    went."""
    was, now = find_objects(before)[1], find_objects(after)[1]
    found = []
    for one in was:
        if edited is None or getattr(one, kind) != edited:
            alike = [np.hypot(other.x - one.x, other.y - one.y) for other in now if other.colour == one.colour]
            found.append(float(min([*alike, GONE])))
    return found + [GONE] * abs(len(was) - len(now))


def row(
    kind: str, way: str, asked: Sequence[Edit], earlier: Sequence[Pixels], afters: Sequence[Pixels]
) -> tuple[dict[str, Any], list[float]]:
    """What became of things in one way, and `kept` of each picture."""
    far = [moved(a, b, kind, one.edited) for a, b, one in zip(earlier, afters, asked, strict=True)]
    kept = [float(all(pixels <= NEAR for pixels in each)) for each in far]
    told: dict[str, Any] = {"edit": kind, "way": way, "n": len(asked), "kept": interval(kept)}
    told["moved"] = interval([float(np.mean(each)) for each in far if each])
    told["exact"] = interval([float(check(b, one.scene).exact) for b, one in zip(afters, asked, strict=True)])
    return told, kept


def held(
    kind: str, asked: Sequence[Edit], earlier: Sequence[Pixels], plain: Sequence[Pixels], worn: Sequence[Pixels]
) -> list[int]:
    """The places of the edits in which the maps held things most, beside the plain way."""
    by = []
    for one, *pictures in zip(asked, earlier, plain, worn, strict=True):
        far = [float(np.mean(moved(pictures[0], after, kind, one.edited) or [0.0])) for after in pictures[1:]]
        by.append(far[1] - far[0])
    return sorted(range(len(by)), key=by.__getitem__)[:SHOWN]


def sheet(shown: Sequence[tuple[str, Sequence[Pixels]]]) -> Image.Image:
    """A row for each edit: the picture before, and that of each way."""
    side = 64 * SCALE + 2
    page = Image.new("RGB", (GAP + (side + GAP) * (len(WAYS) + 1), LINE + (side + LINE + GAP) * len(shown)), "white")
    pen = ImageDraw.Draw(page)
    for column, name in enumerate(("before", "edited, plainly", "maps to words", "all maps")):
        pen.text((GAP + column * (side + GAP), 2), name, fill="black", font_size=12)
    for line, (text, pictures) in enumerate(shown):
        top = LINE + line * (side + LINE + GAP)
        for column, pixels in enumerate(pictures):
            left = GAP + column * (side + GAP)
            page.paste("#d8d4cc", (left, top, left + side, top + side))
            picture = Image.fromarray(pixels).resize((side - 2, side - 2), Image.Resampling.NEAREST)
            page.paste(picture, (left + 1, top + 1))
        pen.text((GAP, top + side + 2), text, fill="#555555", font_size=12)
    return page


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    made = parser(__doc__)
    made.add_argument("--prompts", type=int, default=136, help="in all, of four tiers; not each can be edited")
    asked = made.parse_args(argv)
    count = len(ASKED) if asked.quick else asked.prompts
    prompts = [prompt for tier in ASKED for prompt in held_out_prompts(tier, count // len(ASKED), SEED)]
    engine = load_engine(load_card("embedded/sd15"), threads=1)
    shipped = load_styles()["recoloured"]
    with results(asked, HOME, is_full(made, asked)) as out:
        rows: list[Any] = []
        shown: list[tuple[str, list[Pixels]]] = []
        for kind in EDITS[: 1 if asked.quick else None]:
            some = list({one.text: one for one in edits(kind, prompts)}.values())
            texts, seeds = [one.text for one in some], [one.seed for one in some]
            earlier = drawn(engine, [one.before.text for one in some], seeds)
            formers = {one.text: one.before.text for one in some}  # so that one style serves all prompts of a batch
            ways: list[list[Pixels]] = []
            usual: list[float] = []
            for way, until in WAYS.items():
                style = replace(shipped, settings={"instead_of": formers, **until}) if until else None
                ways.append(drawn(engine, texts, seeds, style))
                told, kept = row(kind, way, some, earlier, ways[-1])
                usual = usual or kept
                told["gained"] = interval([a - b for a, b in zip(kept, usual, strict=True)])
                rows.append(told)
                print(json.dumps(told), flush=True)
            shown += [
                (some[k].text, [earlier[k], *(way[k] for way in ways)]) for k in held(kind, some, earlier, *ways[:2])
            ]
        (out / "places.json").write_text("[\n" + ",\n".join(json.dumps(one) for one in rows) + "\n]\n")
        sheet(shown).quantize(128).save(out / "places.png", optimize=True)


if __name__ == "__main__":
    main()
