"""Prompts made of all of Unicode, with what opens a phrase in English among it."""

from __future__ import annotations

from hypothesis import strategies as st

ANY = st.characters()  # lone surrogates included
NUMERIC = st.characters(categories=("Nd", "Nl", "No"))
OPENERS = st.sampled_from(["a", "the", "two", "many", "no", "without", "and", "2", "²", "٣", "½", "Ⅷ", "①"])
WORDS = st.one_of(
    OPENERS,
    st.text(NUMERIC, min_size=1, max_size=4),
    st.sampled_from(["red circle", "blue square", "circles", "on a black background", "left of"]),
    st.text(ANY, min_size=1, max_size=8),
)
PROMPTS = st.one_of(st.lists(WORDS, min_size=1, max_size=12).map(" ".join), st.text(ANY, max_size=80))
