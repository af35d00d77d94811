"""The command `triptych models`, but for its list."""
