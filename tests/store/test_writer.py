"""The thread that writes: what shares a transaction, what is tried again, what is taken back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from deployments.store import writer as module
from deployments.store.errors import StoreError, StoreFullError
from deployments.store.writer import Writer, _Write
from router.errors import RequestError


class Base:
    """A database that fails as it is told: "away" before there is a connection, "lost" at the commit, an exception."""

    def __init__(self, *turns: Any) -> None:
        self.turns, self.log, self.begun = list(turns), list[Any](), 0

    @contextmanager
    def writing(self) -> Iterator[list[Any]]:
        self.begun += 1
        turn = self.turns.pop(0) if self.turns else None
        if turn == "away":
            raise StoreError("away")
        done: list[Any] = []
        yield done
        if turn == "lost":
            raise StoreError("lost")
        if isinstance(turn, Exception):
            raise turn
        self.log += done


def writer_on(*turns: Any) -> tuple[Writer, Base]:
    base = Base(*turns)
    given: Any = base
    return Writer(given), base


def note(what: Any, error: Exception | None = None) -> Any:
    def run(db: list[Any]) -> Any:
        if error is not None:
            raise error
        db.append(what)
        return what

    return run


def write(writer: Writer, *runs: Any) -> list[Any]:
    """What became of some writes that came together: what they returned, or the error."""
    batch = [_Write(run, note(f"undo {k}")) for k, run in enumerate(runs)]
    writer._write(batch)
    return [one.future.exception() or one.future.result() for one in batch]


def test_a_connection_that_was_lost_is_replaced_once() -> None:
    """Everything of the transaction runs again; it is one that was committed, and nothing is taken back."""
    writer, base = writer_on("lost")
    assert write(writer, note(1), note(2)) == [1, 2]
    assert (base.begun, base.log, writer.transactions) == (2, [1, 2], 1)
    assert write(writer, note(3)) == [3] and base.log == [1, 2, 3] and writer.transactions == 2


def test_what_nobody_can_say_of_is_taken_back_before_anything_else() -> None:
    """If it is lost twice, all that shared it are told so; the next transaction first undoes it, and only once."""
    writer, base = writer_on("lost", "lost")
    found = write(writer, note(1), note(2))
    assert [type(one) for one in found] == [StoreError] * 2 and base.begun == 2 and writer.transactions == 0
    assert write(writer, note(3)) == [3]
    assert base.log == ["undo 0", "undo 1", 3]
    assert write(writer, note(4)) == [4] and base.log[3:] == [4]


def test_what_never_reached_the_database_is_neither_tried_again_nor_taken_back() -> None:
    """It is away: all are told at once."""
    writer, base = writer_on("away")
    assert [str(one) for one in write(writer, note(1), note(2))] == ["away", "away"]
    assert base.begun == 1
    assert write(writer, note(3)) == [3] and base.log == [3]


def test_one_that_cannot_be_written_stops_no_other() -> None:
    """A bug, or no room: each alone, and only that one fails; refusals are none of the database's."""
    bug, refused = ValueError("a bug"), RequestError("no", "p")
    writer, base = writer_on()
    assert write(writer, note(1), note(2, bug), note(3)) == [1, bug, 3]
    assert (base.log, base.begun) == ([1, 3], 4)
    assert write(writer, note(4), note(5, refused), note(6)) == [4, refused, 6] and base.begun == 5
    full = StoreFullError("full")
    writer, base = writer_on(full, full)
    assert write(writer, note(1), note(2)) == [full, 2]
    assert base.begun == 3 and base.log == [2]
    writer, base = writer_on(full)
    assert write(writer, note(1)) == [full] and base.begun == 1
    assert write(writer) == [] and base.begun == 1


def test_a_store_error_of_a_write_is_the_transaction_s() -> None:
    """It is no refusal of one: all are told, after it was tried once more."""
    writer, base = writer_on()
    found = write(writer, note(1), note(2, StoreError("broken")))
    assert [str(one) for one in found] == ["broken", "broken"] and base.begun == 2 and base.log == []


def test_what_waits_is_written_together_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order in which it came, by one thread; what was cancelled before is left out, after the end nothing is
    taken."""
    monkeypatch.setattr(module, "MOST", 3)
    writer, base = writer_on()
    sizes = list[int]()
    usual = writer._transaction
    monkeypatch.setattr(writer, "_transaction", lambda batch: (sizes.append(len(batch)), usual(batch))[1])
    writes = [_Write(note(k), None) for k in range(8)]
    for one in writes:
        writer._waiting.put(one)
    writes[4].future.cancel()
    writer._waiting.put(None)
    writer._work()
    assert base.log == [0, 1, 2, 3, 5, 6, 7] and sizes == [3, 2, 2]
    writer.close()
    with pytest.raises(StoreError, match="the store is closed"):
        writer.submit(note(9))


def test_the_thread_begins_with_the_first_write_and_ends_with_the_store() -> None:
    """It keeps no process alive; what was handed over before the end is written."""
    writer, base = writer_on()
    assert writer._thread is None
    assert writer.do(note(1)) == 1
    thread = writer._thread
    assert thread is not None and thread.daemon and thread.name == "triptych-store"
    futures = [writer.submit(note(k)) for k in range(2, 5)]
    writer.close()
    assert [one.result() for one in futures] == [2, 3, 4] and not thread.is_alive() and base.log == [1, 2, 3, 4]
