"""The command `triptych label`: a person says which pictures of a study show their prompt."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.color import Color
from rich.style import Style
from rich.text import Text

from deployments.cli.artefacts import print_figures
from deployments.cli.console import AsJson, err, out, say
from router.errors import RequestError

KEYS = {"1": (True, False), "2": (False, True), "b": (True, True), "n": (False, False)}
WIDTH = 48  # characters of a picture, at most


def label(
    folder: Annotated[Path, typer.Argument(help="A study of `triptych bootstrap`, by its folder.")],
    labels: Annotated[int, typer.Option(min=1, help="Pictures to label in all; two an answer.")] = 120,
    page: Annotated[bool, typer.Option("--page", help="Ask on a page in the browser, on this machine only.")] = False,
    rater: Annotated[str | None, typer.Option(help="Who answers (default: the user of this machine).")] = None,
    as_json: AsJson = False,
) -> None:
    """Which of two pictures show the prompt? Pairs that teach most of the judge come first; stop whenever you like.

    Answers are kept at once; `triptych bootstrap` with the same folder uses them from 20 labels on.
    """
    from deployments.bootstrap.labelling import Answer, Labels, next_pair, report
    from deployments.bootstrap.ledger import Ledger
    from deployments.bootstrap.study import load

    study, ledger, given = load(folder), Ledger(folder), Labels(folder)
    who = rater or getpass.getuser()
    if page:
        from deployments.cli.bootstrap.label_page import ask_on_page

        ask_on_page(study, ledger, given, labels, who, lambda url: err.print(f"open {url}; Ctrl-C ends it"))
    elif sys.stdin.isatty():
        while sum(map(len, given.by_picture().values())) < labels and (pair := next_pair(study, ledger, given)):
            done = sum(map(len, given.by_picture().values()))
            sides = [ledger.pixels(ledger.entries[id].shot) for id in (pair.left, pair.right)]
            out.print(f"\n{done} of {labels} labels.  Does it show:  {pair.prompt}", style="bold")
            out.print(side_by_side([side for side in sides if side is not None]))
            said = typer.prompt("1 left, 2 right, b both, n neither, q stop", err=True).strip().lower()
            if said == "q":
                break
            if said in KEYS:
                given.add(Answer(pair.left, pair.right, *KEYS[said], rater=who, again=pair.again))
    elif not as_json:
        raise RequestError("labels are given by a person: run it in a terminal, or with --page", "page")
    if not given.answers:
        say("{}" if as_json else "no labels yet")
        return
    found = report(study, ledger, given)
    if as_json:
        print_figures(found)
        return
    say(
        f"{found['labels']:.0f} labelled pictures; of those shown twice, {100 * found['same']:.0f} % got the same label"
    )
    say(
        f"left out, the calibrated judge has a Brier score of {found['brier']:.3f} (before "
        f"{found['brier_before']:.3f}) and a calibration error of {found['calibration_error']:.3f} (before "
        f"{found['calibration_error_before']:.3f}); {100 * found['coverage']:.0f} % of bins are as expected"
    )
    say("`triptych bootstrap` with the same options and folder trains on it")


def side_by_side(pictures: list[NDArray[np.uint8]], width: int = WIDTH) -> Text:
    """Pictures, uint8 (height, width, 3), as half blocks of a terminal, two pixels a character."""
    from PIL import Image

    shown = []
    for picture in pictures:
        height = max(2, round(width * picture.shape[0] / picture.shape[1] / 2) * 2)
        shown.append(np.asarray(Image.fromarray(picture).resize((width, height))))
    rows = max(one.shape[0] for one in shown)
    text = Text()
    for y in range(0, rows, 2):
        for one in shown:
            for x in range(width):
                if y + 1 < one.shape[0]:
                    above, below = one[y, x].tolist(), one[y + 1, x].tolist()
                    text.append("▀", style=Style(color=Color.from_rgb(*above), bgcolor=Color.from_rgb(*below)))
                else:
                    text.append(" ")
            text.append("   ")
        text.append("\n")
    return text
