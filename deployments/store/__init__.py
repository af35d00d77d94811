"""What must last: jobs, pictures, keys, usage, decisions. One database, and one place for the bytes of pictures."""

from deployments.store.store import Store, open_store

__all__ = ["Store", "open_store"]
