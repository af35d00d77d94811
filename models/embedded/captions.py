"""Captions of the world: many phrasings out of one scene, and the way back from a prompt to its claims."""

import random
import re

from models.embedded.world import BACKGROUNDS, COLOURS, POSITIONS, SHAPES, Scene, Thing

FRAMES = {
    "train": (
        "{}",
        "{}",
        "{}",
        "{}",
        "a picture of {}",
        "an image of {}",
        "draw {}",
        "draw me {}",
        "please draw {}",
        "show me {}",
        "a drawing with {}",
        "i want {}",
        "make a picture of {}",
        "a simple drawing of {}",
        "a picture with {}",
        "make me {}",
    ),
    "held out": (
        "please draw me {}",
        "show me a picture of {}",
        "make a drawing of {}",
        "an image with {}",
        "i want a picture of {}",
    ),
}
GROUNDS = {
    "train": ("{} on a {} background", "{} with a {} background", "{}, {} background"),
    "held out": ("{}, on a {} background",),
}
PLACES = {
    "left": ("on the left", "at the left", "on the left side"),
    "right": ("on the right", "at the right", "on the right side"),
    "top": ("at the top", "on the top side"),
    "bottom": ("at the bottom", "on the bottom side"),
    "center": ("in the center", "in the middle"),
}
RELATION_WORDS = {
    "above": ("above", "over", "on top of"),
    "below": ("below", "under", "beneath"),
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
}
SIZE_WORDS = {"small": ("small", "small", "tiny", "little"), "large": ("large", "large", "big")}
COUNT_WORDS = {2: "two", 3: "three"}
JOINS = ("and", "and", "and", "next to", "beside")

_FILLERS = frozenset(
    (
        *("a", "an", "the", "picture", "image", "drawing", "simple", "of", "with", "draw", "me", "please", "show"),
        *("i", "want", "make", "some", "there", "is", "are", "and", "you", "can", "could", "us", "create", "paint"),
        "generate",
    )
)


def caption(scene: Scene, rng: random.Random, split: str = "train") -> str:
    """One phrasing of what the scene claims; `split` is "train" or "held out" (phrasings no model trains on)."""
    phrases = [_phrase(thing, rng) for thing in scene.things]
    if scene.relation:
        body = f"{phrases[0]} {rng.choice(RELATION_WORDS[scene.relation])} {phrases[1]}"
    elif len(phrases) == 3:
        body = f"{phrases[0]}, {phrases[1]} and {phrases[2]}"
    else:
        body = f" {rng.choice(JOINS)} ".join(phrases)
    if scene.position:
        body = f"{body} {rng.choice(PLACES[scene.position])}"
    if scene.background:
        body = rng.choice(GROUNDS[split]).format(body, scene.background)
    return rng.choice(FRAMES[split]).format(body)


def _phrase(thing: Thing, rng: random.Random) -> str:
    words = [rng.choice(SIZE_WORDS[thing.size])] if thing.size else []
    words.append(thing.colour)
    if thing.count > 1:
        return " ".join([COUNT_WORDS[thing.count], *words, thing.shape + "s"])
    return " ".join(["an" if words[0][0] in "aeiou" else "a", *words, thing.shape])


def vocabulary() -> tuple[str, ...]:
    """Every word that a caption or an accepted prompt may hold, sorted: the tokenizers know these as one token."""
    words = {"background", ",", "one", "grey", "centre", "side", "to", "next", "beside", "in", "on", "at"} | _FILLERS
    words |= (
        set(COLOURS) | set(BACKGROUNDS) | set(SHAPES) | {shape + "s" for shape in SHAPES} | set(COUNT_WORDS.values())
    )
    for table in (PLACES, RELATION_WORDS, SIZE_WORDS):
        words.update(word for phrases in table.values() for phrase in phrases for word in phrase.split())
    return tuple(sorted(words))


_SIZE_OF = {word: size for size, words in SIZE_WORDS.items() for word in words}
_COUNT_OF = {"two": 2, "2": 2, "three": 3, "3": 3}
_THING = re.compile(
    rf"(?:\b(a|an|one|the|two|three|2|3) )?(?:\b({'|'.join(_SIZE_OF)}) )?"
    rf"\b({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})(s?)\b"
)
_GROUND = re.compile(rf"(?:(?:on|with|against|and) )?(?:(?:a|the) )?\b({'|'.join(BACKGROUNDS)}) background\b")
_RELATION = {words: relation for relation, phrases in RELATION_WORDS.items() for words in phrases} | {
    "on the left of": "left of",
    "on the right of": "right of",
}
_BETWEEN = re.compile(rf"@(?: is| are)? ({'|'.join(sorted(_RELATION, key=len, reverse=True))}) @")
_PLACE = re.compile(rf"\b(?:on|at|in|to) the ({'|'.join(POSITIONS)}|middle)(?: side)?\b(?! of @)")


def parse(prompt: str) -> Scene | None:
    """The claims of a free prompt, or None when any part of it is outside the world.

    The scene has no placements; its tier is the easiest tier that makes such claims.
    """
    text = re.sub(r"[.!?;:\"']", " ", prompt.lower())
    text = " ".join(re.sub(r",", " , ", text).replace("grey", "gray").replace("centre", "center").split())
    grounds = [match[1] for match in _GROUND.finditer(text)]
    text = _GROUND.sub(" ", text)
    things = tuple(_thing(match) for match in _THING.finditer(text))
    text = " ".join(_THING.sub("@", text).split())
    places = [match[1].replace("middle", "center") for match in _PLACE.finditer(text)]
    text = " ".join(_PLACE.sub(" ", text).split())
    between = [_RELATION[match[1]] for match in _BETWEEN.finditer(text)]
    text = _BETWEEN.sub("@ @", text).replace("@ next to @", "@ @").replace("@ beside @", "@ @")
    left_over = [word for word in text.split() if word not in _FILLERS and word not in ("@", ",")]
    total = sum(thing.count for thing in things)
    if left_over or not things or len(things) > 3 or total > 6 or max(map(len, (grounds, places, between))) > 1:
        return None
    if (between and len(things) != 2) or (places and len(things) != 1) or any(thing.count > 3 for thing in things):
        return None
    relation, position, background = (found[0] if found else None for found in (between, places, grounds))
    return Scene(_tier(things, relation, position, background), things, relation, position, background)


def _thing(match: re.Match[str]) -> Thing:
    count = _COUNT_OF.get(match[1] or "a", 1)
    return Thing(match[3], match[4], _SIZE_OF.get(match[2] or ""), 2 if match[5] and count == 1 else count)


def _tier(things: tuple[Thing, ...], relation: str | None, position: str | None, background: str | None) -> str:
    if len(things) == 3 or any(thing.count > 1 for thing in things):
        return "counts"
    if len(things) == 2:
        return "relation" if relation else "two"
    return "attributes" if position or background or things[0].size else "one"
