"""Several pictures into one. Pictures and a method come in; the blend, or the best of them or of their regions, goes
out.
"""
