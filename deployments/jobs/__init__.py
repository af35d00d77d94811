"""Accepted means done: every request is a job in the store, run here, followed by whoever asks, outliving processes."""
