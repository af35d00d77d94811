"""Checks of a policy's `safety`: a prompt or a picture comes in, what was found goes out. The orchestrator
does what follows.
"""
