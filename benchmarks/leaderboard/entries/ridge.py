"""Ridge."""

from router.bench import Ridge

NAME, ABOUT = "ridge", "linear in the embedding and the lexical counts, the penalty by left-out prompts"
learn, carry = Ridge.learn, Ridge.carry
