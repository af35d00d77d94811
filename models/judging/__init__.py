"""Judges of pictures where no person looks: what they say, and what that may be read as."""
