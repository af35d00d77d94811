"""What a step takes. Plans come in; seconds, dollars and waiting go out, learned from what workers report, behind
what is already queued.
"""
