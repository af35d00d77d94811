"""What operators ask over HTTP, for keys of scope admin."""
