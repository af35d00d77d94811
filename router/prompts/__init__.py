"""What a prompt says. Text comes in; counts of words, signals of skills (how much it asks for lettering, relations,
...), an embedding and how familiar it is to what was trained on go out, as a `PromptView` of `router.types`.
"""
