"""From a recipe to work. A recipe and a request come in; a typed graph of steps with concrete sizes, seeds and hand-
overs goes out, or a refusal with its remedy; and the walk over that graph.
"""
