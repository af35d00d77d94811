"""How prompts become what networks read: remembered, so that each is read once; in chunks and with weights, where a
card says so.
"""
