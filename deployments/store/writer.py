"""All writes of a process, by one thread: those that come together share a transaction (group commit).

A commit waits for the disk, so 100 jobs that arrive at once must not wait for it 100 times one after another.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Connection

from deployments.store.database import Database
from deployments.store.errors import StoreError, StoreFullError
from router.errors import TriptychError

T = TypeVar("T")
MOST = 256  # writes in one transaction


@dataclass(frozen=True)
class _Write:
    """run: writes, and may run again; if it raises a `TriptychError`, it has written nothing. undo: takes back what it
    may have committed although its caller was told that it failed."""

    run: Callable[[Connection], Any]
    undo: Callable[[Connection], Any] | None
    future: Future[Any] = field(default_factory=Future)


class Writer:
    """The thread that writes to `database`. transactions: how many were committed."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._doubtful: list[Callable[[Connection], Any]] = []
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self.transactions = 0

    def submit(self, run: Callable[[Connection], T], undo: Callable[[Connection], Any] | None = None) -> Future[T]:
        """`run(connection)` in the next transaction; the future is done once that is committed.

        Its exception is the `TriptychError` that `run` raised, or `StoreError` if the database did not take it."""
        write = _Write(run, undo)
        with self._lock:
            if self._closed:
                raise StoreError("the store is closed")
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="triptych-store", daemon=True)
                self._thread.start()
            self._waiting.put(write)
        return write.future

    def do(self, run: Callable[[Connection], T]) -> T:
        """The same, and wait for it."""
        return self.submit(run).result()

    def close(self) -> None:
        """Write what waits, then end."""
        with self._lock:
            self._closed = True
            thread = self._thread
            self._waiting.put(None)
        if thread is not None:
            thread.join()

    def _work(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch, end = [first], False
            while len(batch) < MOST and not end:
                try:
                    write = self._waiting.get_nowait()
                except queue.Empty:
                    break
                if write is None:
                    end = True
                else:
                    batch.append(write)
            self._write([write for write in batch if write.future.set_running_or_notify_cancel()])
            if end:
                return

    def _write(self, batch: Sequence[_Write]) -> None:
        """Write all in one transaction, or else each alone, so that one that cannot be written stops no other."""
        if not batch:
            return
        try:
            results = self._transaction(batch)
        except Exception as error:
            if len(batch) > 1 and (isinstance(error, StoreFullError) or not isinstance(error, StoreError)):
                for write in batch:
                    self._write([write])
                return
            for write in batch:
                write.future.set_exception(error)
            return
        for write, (result, failure) in zip(batch, results, strict=True):
            if failure is None:
                write.future.set_result(result)
            else:
                write.future.set_exception(failure)

    def _transaction(self, batch: Sequence[_Write]) -> list[tuple[Any, TriptychError | None]]:
        """Run and commit; once more, on a new connection, if the old one was lost meanwhile."""
        connected = committing = False
        for last in (False, True):
            try:
                with self._database.writing() as db:
                    connected = True
                    for undo in self._doubtful:
                        undo(db)
                    results = [_outcome(write, db) for write in batch]
                    committing = True
                self._doubtful.clear()
                self.transactions += 1
                return results
            except StoreFullError:
                raise
            except StoreError:
                if connected and not last:
                    continue
                if committing:  # it may be committed, and nobody can say so now
                    self._doubtful += [write.undo for write in batch if write.undo is not None]
                raise
        raise AssertionError("unreachable")


def _outcome(write: _Write, db: Connection) -> tuple[Any, TriptychError | None]:
    try:
        return write.run(db), None
    except StoreError:
        raise
    except TriptychError as refused:
        return None, refused
