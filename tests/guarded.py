"""A mapping that is only touched while a lock is held: what shows that a lock is taken, without a race to lose."""

from __future__ import annotations

import threading
from typing import Any


class Guarded(dict):
    """Fails where it is read or changed while `lock` is free. touched: how often it was"""

    def __init__(self, lock: threading.Lock, *content: Any) -> None:
        super().__init__(*content)
        self._lock, self.touched = lock, 0

    def _held(self) -> None:
        assert self._lock.locked(), "touched without its lock"
        self.touched += 1


def _checked(name: str) -> Any:
    def method(self: Guarded, *args: Any, **kwargs: Any) -> Any:
        self._held()
        return getattr(dict, name)(self, *args, **kwargs)

    return method


for _name in ("get", "pop", "clear", "items", "values", "setdefault", "update", "__getitem__", "__setitem__",
              "__delitem__", "__contains__", "__iter__", "__len__"):  # fmt: skip
    setattr(Guarded, _name, _checked(_name))
