"""Looking at pictures, and whether that pays. Scores of a scorer and chances before come in; probabilities that a
picture is right, and which look, retry or further picture is worth its price, go out.
"""
