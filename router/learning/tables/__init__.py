"""Tables and lists as people have them: the bytes of a file become text, the text rows, the rows ratings. What can be
read in one way only is read, and said; the rest is refused with its line, or named as what it is.
"""
