"""A step while it runs to the seconds of its phases, which every step has, and of its parts, for `models profile`."""
