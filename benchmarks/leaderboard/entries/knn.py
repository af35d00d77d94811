"""Nearest neighbours."""

from router.bench import Nearest

NAME, ABOUT = "nearest neighbours", "the mean of the 30 nearest rated prompts, by embedding (MiniLM) and lexical counts"
learn, carry = Nearest.learn, Nearest.carry
