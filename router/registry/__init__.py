"""Trained folders on disk. An artefact is verified before anything in it is believed, saved in one move, and what it
replaced is kept and can be put back.
"""
