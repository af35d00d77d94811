"""Longer prompts get the strong model."""

from router.bench import Length

NAME, ABOUT = "prompt length", "longer prompts get the strong model"
learn, carry = Length.learn, Length.carry
