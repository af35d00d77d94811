"""Judges: what they say of pictures, and what that may be read as."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from models.catalogue import load_card
from models.judging.judges import Combined, ScorerJudge
from models.judging.lettering import FOUND, LetteringJudge, likeness, quoted
from router.errors import StepError

PICTURE = np.zeros((8, 8, 3), np.uint8)


@dataclass
class Says:
    """A judge that always says the same, or cannot say."""

    name: str
    says: float | None
    probability: bool = True

    def score(self, picture: np.ndarray, prompt: str) -> float:
        if self.says is None:
            raise StepError(f"{self.name} cannot say")
        return self.says


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ('a sign that says "OPEN"', ["OPEN"]),
        ("a banner reading 'Grand Opening' and a door with “7”", ["Grand Opening", "7"]),
        ("the dog's bowl and the cat's bed", []),
        ("«Été» on a poster", ["Été"]),
        ('an empty "" and a dash "-"', []),
    ],
)
def test_words_in_quotes_are_what_is_asked_for(prompt: str, wanted: Sequence[str]) -> None:
    """Quotes of several kinds, apostrophes left alone, nothing that cannot be read."""
    assert quoted(prompt) == list(wanted)


@pytest.mark.parametrize("lines", [["OPEN"], ["we are", "open", "today"], ["o p e n"], ["Open!"]])
def test_right_lettering_is_accepted_however_it_is_set(lines: list[str]) -> None:
    """In capitals or small letters, among other lines, spaced, with marks."""
    assert likeness("OPEN", lines) == FOUND


@pytest.mark.parametrize("lines", [[], ["OPFN"], ["CLOSED"], ["OPENED"], ["O", "P"]])
def test_wrong_lettering_is_refused(lines: list[str]) -> None:
    """Missing, misspelt, other or longer words are below one half, misspelt above other ones."""
    assert likeness("OPEN", lines) < 0.5
    assert likeness("OPEN", ["OPFN"]) > likeness("OPEN", ["CLOSED"]) > likeness("OPEN", [])


def test_all_of_the_words_have_to_be_there() -> None:
    """The word that fits least counts; without any, the judge cannot say."""
    judge = LetteringJudge(lambda picture: ["NORTH"])
    assert judge.score(PICTURE, 'a sign "north"') == FOUND
    assert judge.score(PICTURE, 'signs "north" and "south"') < 0.5
    with pytest.raises(StepError, match="no words in quotes"):
        judge.score(PICTURE, "a red circle")


def test_rendered_words_are_read() -> None:
    """The reader that comes as an extra reads a word of 256 pixels, and does not read another one."""
    picture = Image.new("RGB", (256, 256), "white")
    ImageDraw.Draw(picture).text((30, 90), "Bakery", font=ImageFont.load_default(60), fill="black")
    judge = LetteringJudge()
    assert judge.score(np.asarray(picture), 'a shop sign that says "Bakery"') == FOUND
    assert judge.score(np.asarray(picture), 'a shop sign that says "Florist"') < 0.5


def test_together_all_have_to_be_content() -> None:
    """The least counts, who cannot say is left out, and it is a probability only if all parts are."""
    both = Combined((Says("a", 0.9), Says("b", 0.4, probability=False)))
    assert (both.name, both.probability, both.score(PICTURE, "x")) == ("a+b", False, 0.4)
    assert Combined((Says("a", 0.9), Says("b", None))).score(PICTURE, "x") == 0.9
    with pytest.raises(StepError, match="a cannot say; b cannot say"):
        Combined((Says("a", None), Says("b", None))).score(PICTURE, "x")


@pytest.mark.parametrize(
    ("card", "probability"),
    [("embedded/alignment", True), ("real/vqa-alignment", True), ("real/clip-alignment", False),
     ("real/pickscore", False)],
)  # fmt: skip
def test_what_only_orders_is_never_called_a_probability(card: str, probability: bool) -> None:
    """CLIP's cosine and PickScore order pictures; a verifier and VQA mean probabilities. Asking loads nothing."""
    assert ScorerJudge(load_card(card)).probability is probability
