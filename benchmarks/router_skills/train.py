"""Trains the skill heads that ship with Triptych on the categories of public prompt sets, and judges them.

    python -m benchmarks.router_skills.train FOLDER
    python -m benchmarks.router_skills.train --quick

FOLDER holds `prompts_<set>.tsv.gz` (prompt, categories joined by |) and `genai_bench.tsv.gz`. No rating is read. What a
set's category says about a skill is `LABELS` below; categories that are not named say nothing about any. GenAI-Bench,
whose people tagged every prompt for every skill, is never learned from: it judges, and it is what the router is
evaluated on.

Writes `router/artifacts/skills/` and `skills.json`.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from benchmarks.command import is_full, parser, results
from benchmarks.router_evaluation.sets import SETS, add_folder, made_up, needed
from benchmarks.router_skills.training import Labelled, train_skills
from router.prompts.skills import FOLDER, SKILLS

HERE = Path(__file__).resolve().parent
SOURCES = "PartiPrompts, Gecko, GenEval, T2I-CompBench, DSG-1k (of DrawText and CountBench) and UniGenBench"
LICENCE = "Apache-2.0 (PartiPrompts, DSG-1k), MIT (GenEval, T2I-CompBench), CC BY 4.0 (Gecko, UniGenBench)"

TEXT, COUNT, BIND, SPACE, NOT, MANY = SKILLS
# set -> category (or its beginning, with *) -> (skills it asks for, skills it does not ask for)
LABELS: dict[str, dict[str, tuple[set[str], set[str]]]] = {
    "geneval": {
        "single_object": (set(), set(SKILLS)),
        "two_object": ({MANY}, {TEXT, COUNT, BIND, SPACE, NOT}),
        "counting": ({COUNT}, {TEXT, BIND, SPACE, NOT}),
        "colors": (set(), {TEXT, COUNT, SPACE, NOT, MANY}),
        "position": ({SPACE, MANY}, {TEXT, COUNT, BIND, NOT}),
        "color_attr": ({BIND, MANY}, {TEXT, COUNT, SPACE, NOT}),
    },
    "t2i_compbench": {
        "color": ({BIND, MANY}, {TEXT, NOT}),
        "shape": ({BIND, MANY}, {TEXT, NOT}),
        "texture": ({BIND, MANY}, {TEXT, NOT}),
        "spatial": ({SPACE, MANY}, {TEXT, COUNT, BIND, NOT}),
        "3d_spatial": ({SPACE, MANY}, {TEXT, COUNT, BIND, NOT}),
        "numeracy": ({COUNT}, {TEXT, SPACE, NOT}),
        "non_spatial": (set(), {TEXT, COUNT, NOT}),
    },
    "parti_p2": {
        "Basic": (set(), set(SKILLS)),
        "Quantity": ({COUNT}, {TEXT}),
        "Writing & Symbols": ({TEXT}, set()),
        "Simple Detail": (set(), {TEXT, NOT}),
        "Style & Format": (set(), {COUNT, NOT}),
    },
    "gecko": {
        "render/text*": ({TEXT}, {NOT}),
        "att/count*": ({COUNT}, {TEXT}),
        "att/count:quant_and_neg": ({NOT}, set()),
        "rel/spatial*": ({SPACE, MANY}, {TEXT, NOT}),
        "att/color:composed": ({BIND}, {TEXT}),
        "lang/complexity*": (set(), {TEXT}),
        "lang/complexity_nopeople:complexity_negation": ({NOT}, set()),
        "lang/compositional:negatives": ({NOT}, set()),
        "ne/*": (set(), {TEXT, COUNT, BIND, NOT, MANY}),
        "att/style*": (set(), {TEXT, COUNT, NOT, MANY}),
        "rel/action*": (set(), {TEXT, NOT}),
    },
    "dsg1k": {
        "drawtext": ({TEXT}, set()),
        "countbench": ({COUNT}, set()),
        "vrd": ({SPACE, MANY}, {TEXT, NOT}),
        "posescript": (set(), {TEXT, COUNT, MANY}),
    },
    "unigenbench_en": {
        "Text Generation": ({TEXT}, set()),
        "Attribute - Quantity": ({COUNT}, set()),
        "Compound - Feature Matching": ({BIND}, set()),
        "Entity Layout - Two-Dimensional Space": ({SPACE}, set()),
        "Entity Layout - Three-Dimensional Space": ({SPACE}, set()),
        "Grammar - Negation": ({NOT}, set()),
        "Grammar - Pronoun Reference": (set(), {TEXT, NOT}),
        "Grammar - Consistency": (set(), {TEXT, NOT}),
        "Style": (set(), {NOT}),
    },
}
# Its tag "attribute" is any attribute, not the binding of several, and judges nothing here.
GENAI = {"counting": COUNT, "spatial relation": SPACE, "negation": NOT}


def rows(file: Path) -> Iterator[dict[str, str]]:
    """The rows of a gzipped table."""
    with gzip.open(file, "rt", encoding="utf-8", newline="") as text:
        yield from csv.DictReader(text, delimiter="\t")


def labelled(folder: Path) -> list[Labelled]:
    """What the prompt sets say, a prompt each; where two of its categories disagree, it asks for the skill."""
    found = []
    for name, table in LABELS.items():
        for row in rows(folder / f"prompts_{name}.tsv.gz"):
            skills: dict[str, bool] = {}
            for category in row["categories"].split("|"):
                for pattern, (asked, unasked) in table.items():
                    if category == pattern or (pattern.endswith("*") and category.startswith(pattern[:-1])):
                        skills |= {skill: False for skill in unasked if skill not in skills}
                        skills |= dict.fromkeys(asked, True)
            if skills:
                found.append(Labelled(row["prompt"], name, skills))
    return list({one.prompt: one for one in found}.values())


def judged(folder: Path) -> list[Labelled]:
    """GenAI-Bench: every skill it has a tag for, asked for or not."""
    return [
        Labelled(
            row["prompt"], "genai_bench", {skill: tag in row["categories"].split("|") for tag, skill in GENAI.items()}
        )
        for row in rows(folder / "genai_bench.tsv.gz")
    ]


@contextmanager
def prompt_sets(made: argparse.ArgumentParser, chosen: argparse.Namespace) -> Iterator[Path]:
    """The folder with all sets; made-up ones for `--quick` without FOLDER. What is missing ends the run by name."""
    if chosen.folder is None and chosen.quick:
        with tempfile.TemporaryDirectory(prefix="triptych-tables-") as made_folder:
            folder = Path(made_folder)
            made_up(folder, ("genai_bench",))
            for name, table in LABELS.items():
                with gzip.open(folder / f"prompts_{name}.tsv.gz", "wt", encoding="utf-8") as text:
                    text.write("prompt\tcategories\n")
                    for number, pattern in enumerate(table):
                        category = pattern.removesuffix("*")
                        text.writelines(f"{name} {number} picture {k} of {category}\t{category}\n" for k in range(3))
            yield folder
        return
    if chosen.folder is None:
        made.error("name the FOLDER of the prompt sets; they are not part of Triptych. To see that it runs: --quick")
    names = [f"prompts_{name}.tsv.gz" for name in LABELS]
    lines = [
        f"  {name}: a gzipped TSV with the columns prompt and categories (joined by |)"
        for name in names if not (chosen.folder / name).is_file()
    ]  # fmt: skip
    if not (chosen.folder / SETS["genai_bench"].file).is_file():
        lines.append(needed(SETS["genai_bench"]))
    if lines:
        text = "\n".join(lines)
        made.error(f"{chosen.folder} lacks:\n{text}\nThe sets are published with {SOURCES}; none is part of Triptych")
    yield chosen.folder


def main(argv: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    add_folder(made)
    chosen = made.parse_args(argv)
    with prompt_sets(made, chosen) as folder, results(chosen, HERE, is_full(made, chosen)) as out:
        target = FOLDER if out == HERE else out / "skills"
        artifact, reports = train_skills(labelled(folder), target, SOURCES, LICENCE, judged=judged(folder))
        print(artifact.card)
        (out / "skills.json").write_text(json.dumps([asdict(r) for r in reports], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
