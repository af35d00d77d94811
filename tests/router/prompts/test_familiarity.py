"""What a prompt says that no training caption did: words, and pairs of known words."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.catalogue import load_catalogue
from models.embedded.captions import caption
from models.embedded.training.vocabulary import captions_say
from models.embedded.world import PAIRS, TIERS, sample_scene
from router.errors import CatalogueError
from router.prompts.familiarity import sayings, unsaid, vocabulary_of

EMBEDDED = load_catalogue({"sd15": "embedded/sd15", "flux": "embedded/flux", "alignment": "embedded/alignment"})
WORDS = vocabulary_of(EMBEDDED)


@given(st.integers(0, 10**6), st.sampled_from(TIERS), st.sampled_from(["train", "held out"]))
def test_no_caption_says_anything_unsaid(seed: int, tier: str, split: str) -> None:
    """Every caption of the world, in every phrasing, is within the vocabulary that the cards list."""
    rng = random.Random(seed)
    assert unsaid(caption(sample_scene(rng, tier, PAIRS), rng, split), WORDS) == ()


@pytest.mark.parametrize(
    ("prompt", "strange"),
    [
        ("a white circle and a black square", ("white circle", "black square")),
        ("A Red CIRCLE, above the blue square!", ()),
        ("a striped red circle", ("striped",)),
        ("two stars", ("two stars",)),
        ("five green rings", ("five",)),
        ("a red, circle", ()),
        ("???", ()),
        ("ein roter Kreis", ("ein", "roter", "kreis")),
    ],
)
def test_what_is_strange_is_named_once(prompt: str, strange: tuple[str, ...]) -> None:
    """An unknown word is named alone, a pair only if both of its words are known."""
    assert unsaid(prompt, WORDS) == strange


def test_pairs_are_of_an_attribute_and_the_word_after_it() -> None:
    """Of a sentence, only numbers, sizes, colours and materials make pairs, and not with words that say nothing."""
    assert sayings("two small red circles on a wooden table") == {
        "two", "small", "red", "circles", "on", "a", "wooden", "table", "two small", "small red", "red circles",
        "wooden table",
    }  # fmt: skip


def test_an_installation_with_an_open_model_has_no_vocabulary() -> None:
    """As soon as one model that makes pictures lists nothing, nothing is strange; scorers and refiners do not count."""
    assert vocabulary_of(load_catalogue({"sd15": "embedded/sd15", "sdxl": "real/sdxl"})) == frozenset()
    assert vocabulary_of(load_catalogue({"sdxl": "real/sdxl"})) == frozenset()
    assert vocabulary_of(None) == frozenset()


def test_the_shipped_vocabulary_is_what_the_captions_say() -> None:
    """The file beside the cards is what its module writes, as far as fewer captions show it."""
    assert set(captions_say(each=1500)) <= WORDS
    assert len(WORDS) < 300


def test_a_vocabulary_that_is_not_there_is_named() -> None:
    """A card whose vocabulary cannot be read is refused with the file."""
    with pytest.raises(CatalogueError, match=r"nowhere\.txt"):
        load_catalogue({"sd15": {"card": "embedded/sd15", "overrides": {"vocabulary": "nowhere.txt"}}})
