"""The hand-written rule."""

from router.bench import HandRule

NAME, ABOUT = "hand rule", "written text, numbers, places and several colours want the strong model, negation does not"
learn, carry = HandRule.learn, HandRule.carry
