"""The edges of the log of decisions: what is forgotten when, which picture is meant, what replaces what."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deployments.store import decision_log as module
from deployments.store.decision_log import DecisionLog, _by_hundreds, _kept_key
from deployments.store.errors import StoreError
from router.errors import ArtifactError, NotFoundError, RequestError
from router.learning.feedback import Feedback, Receipt, Retention
from tests.store.test_decision_log import decision, old_log


@pytest.fixture
def log(tmp_path: Path) -> Iterator[DecisionLog]:
    made = DecisionLog(tmp_path / "log.sqlite", key=b"own")
    yield made
    made.close()


def test_what_is_too_old_or_too_many_is_forgotten(tmp_path: Path) -> None:
    """Exactly as old as is allowed is kept, exactly as many are kept, the latest of them; each is counted."""
    log = DecisionLog(tmp_path / "log.sqlite", key=b"own", retention=Retention(10.0, 3))
    for k in range(5):
        log.record(decision(f"r{k}", at_s=1e12 + k))
    assert log.purge(1e12) == 2
    assert log.counts()["decisions"] == 3
    assert log.purge(1e12 + 12) == 0
    assert log.purge(1e12 + 12.5) == 1
    assert log.purge(1e12 + 14) == 1 and log.counts()["since_s"] == 1e12 + 4
    assert DecisionLog(tmp_path / "none.sqlite").purge() == 0 == DecisionLog(tmp_path / "none.sqlite").forget("x")


def test_forgetting_is_looked_after_now_and_then(log: DecisionLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the first decision of a process, and then after every so many."""
    monkeypatch.setattr(module, "PURGE_EVERY", 3)
    looked = list[int]()
    monkeypatch.setattr(log, "purge", lambda: looked.append(log._written))
    for k in range(8):
        log.record(decision(f"r{k}"))
    assert looked == [1, 4, 7]


def test_what_is_said_of_a_picture_replaces_what_the_same_source_said_of_it(log: DecisionLog) -> None:
    """Of it, and of no other; of all of them, if none is named."""
    log.record(replace(decision("r"), kept=(2, 0)))
    assert log.attach("r", "rating", 0.25, 1) == Receipt((1,), ("duel",), False)
    assert log.attach("r", "scorer:x", 0.5, 1) == Receipt((1,), ("duel",), False)
    assert log.attach("r", "rating", 0.75, 0) == Receipt((0,), ("draft",), False)
    assert log.attach("r", "rating", 0.5) == Receipt((0, 1), ("draft", "duel"), True)
    assert log.attach("r", "rating", 1.0, 1) == Receipt((1,), ("duel",), True)
    ((_, said),) = log.rated("rating")
    assert [(one.image, one.recipe, one.value, one.attempt) for one in said] == [
        (0, "draft", 0.5, 2),
        (1, "duel", 1.0, 0),
    ]
    for image in (-1, 2):
        with pytest.raises(RequestError, match=r"made 2 picture\(s\), so image is 0 to 1"):
            log.attach("r", "rating", 0.5, image)
    for unknown in ("none", "a\0"):
        with pytest.raises(NotFoundError):
            log.attach(unknown, "rating", 0.5)
    assert log.rated("a\0") == []


def test_what_scorers_said_is_kept_with_when_they_said_it(log: DecisionLog) -> None:
    """Or with the decision's time; counts have all of it by policy and by source, the most first."""
    said = [
        Feedback("scorer:a", 0, "draft", 0.1, 7.0),
        Feedback("scorer:a", 1, "duel", 0.2),
        Feedback("scorer:b", 0, "draft", 1),
    ]
    log.record(decision("r", at_s=1e12), said)
    log.record(replace(decision("s", at_s=1e12 + 5), propensity=1.0, policy="other"))
    log.record(decision("t", at_s=1e12 + 9))
    ((_, found),) = log.rated("scorer:a")
    assert [(one.at_s, one.value) for one in found] == [(7.0, 0.1), (1e12, 0.2)]
    assert log.counts() == {
        "decisions": 3, "by_chance": 2, "with_text": 0, "since_s": 1e12, "until_s": 1e12 + 9,
        "policies": {"balanced": 2, "other": 1}, "feedback": {"scorer:a": 2, "scorer:b": 1},
    }  # fmt: skip
    assert list(log.counts()["policies"]) == ["balanced", "other"]
    assert log.forget(decision().prompt.upper() + "  ") == 3
    emptied = {"decisions": 0, "by_chance": 0, "with_text": 0, "since_s": None, "until_s": None}
    assert log.counts() == {**emptied, "policies": {}, "feedback": {}}


def test_long_lists_are_written_five_hundred_at_once() -> None:
    """In order, with none left out."""
    rows: list[dict[str, Any]] = [{"n": k} for k in range(1001)]
    assert [len(some) for some in _by_hundreds(rows)] == [500, 500, 1]
    assert [row for some in _by_hundreds(rows) for row in some] == rows and list(_by_hundreds([])) == []


def test_the_key_is_of_256_bits_and_its_owner_s(tmp_path: Path) -> None:
    """Made with its folder, read again as it is, and nothing else is left there."""
    path = tmp_path / "state" / "log.key"
    key = _kept_key(path)
    assert len(key) == 32 and _kept_key(path) == key and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in path.parent.iterdir()] == ["log.key"]
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="the key of the log cannot be kept there"):
        _kept_key(tmp_path / "file" / "log.key")


def test_a_hash_of_a_prompt_needs_its_key(tmp_path: Path) -> None:
    """The same for case and spaces, another one with another key, a random one if none is given."""
    one, same, other, random = (
        DecisionLog(tmp_path / f"{k}.sqlite", key=key) for k, key in enumerate((b"a", b"a", b"b", None))
    )
    assert one.hashed("A  cat") == same.hashed("a cat") != one.hashed("a dog")
    assert len({log.hashed("a cat") for log in (one, other, random)}) == 3
    assert random.hashed("a cat") == random.hashed("A CAT") and (tmp_path / "3.sqlite.key").is_file()


TRIES = """
ALTER TABLE feedback RENAME TO former;
CREATE TABLE feedback (
  decision INTEGER NOT NULL REFERENCES decisions (number) ON DELETE CASCADE, source TEXT NOT NULL,
  image INTEGER NOT NULL, recipe TEXT NOT NULL, value REAL NOT NULL, at_s REAL NOT NULL, attempt INTEGER NOT NULL,
  PRIMARY KEY (decision, source, image, recipe, attempt)) WITHOUT ROWID;
INSERT INTO feedback SELECT decision, source, image, recipe, value, at_s, 3 FROM former;
INSERT INTO feedback VALUES (99, 'rating', 0, 'draft', 1, 5, 0);
DROP TABLE former;
PRAGMA user_version = 2;
"""


def test_a_log_of_version_0_1_that_counted_tries_is_taken_over_with_them(log: DecisionLog, tmp_path: Path) -> None:
    """Its second schema; what was said of no decision stays behind. It is no store either, and a third schema of such a
    log there never was."""
    file = tmp_path / "former.sqlite"
    old_log(file)
    with sqlite3.connect(file) as db:
        db.executescript(TRIES)
    with pytest.raises(ArtifactError, match="triptych router log --take-over"):
        DecisionLog(file).counts()
    assert log.take_over(file) == 2
    assert log.counts()["feedback"] == {"scorer:alignment": 4, "rating": 2}
    assert {one.attempt for _, said in log.rated("scorer:alignment") for one in said} == {3}
    with sqlite3.connect(file) as db:
        db.execute("PRAGMA user_version = 3")
    with pytest.raises(ArtifactError, match=r"no log of decisions of version 0\.1"):
        log.take_over(file)
