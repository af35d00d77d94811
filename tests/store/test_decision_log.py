"""The log of decisions: nothing lost, nothing doubled, nothing kept that should not be."""

from __future__ import annotations

import json
import multiprocessing
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from sqlalchemy import text

from deployments.settings import ConfigError, FeedbackSettings, StoreSettings, parse_settings
from deployments.store.database import Database
from deployments.store.decision_log import DecisionLog
from deployments.store.errors import StoreError
from deployments.store.store import open_store
from router.errors import ArtifactError, NotFoundError, RequestError
from router.learning.feedback import DecisionRecord, Feedback, Retention
from router.types import Estimate, Quality

PROMPT = "An entirely secret prompt about Marzipan"


def decision(name: str = "req_1", prompt: str = PROMPT, at_s: float | None = None) -> DecisionRecord:
    """One decision between two recipes, two pictures."""
    vector = np.random.default_rng(len(name)).normal(size=384)
    estimates = {
        "draft": Estimate("draft", Quality(0.4, 0.1), 0.1, 0.0, 0.1, 1e-5),
        "duel": Estimate("duel", Quality(0.9, 0.05, "composed"), 0.8, 0.1, 0.9, 1e-4),
    }
    return DecisionRecord(
        id=name,
        at_s=time.time() if at_s is None else at_s,
        prompt=prompt,
        embedding=(vector / np.linalg.norm(vector)).astype(np.float32),
        features={"words": 6.0, "digits": 0.0},
        policy="balanced",
        policy_digest="0123456789ab",
        artifact="a" * 64,
        base="b" * 64,
        base_means={"sd15": 0.4},
        options=estimates,
        keys={"draft": "sd15@8", "duel": "best_of(alignment;flux|sdxl)"},
        recipe="draft",
        propensity=0.99,
        rules=("print work",),
        made=("draft", "duel"),
        latency_s=0.2,
        cost_usd=2e-5,
    )


def write_many(url: str, name: str, count: int) -> None:
    """Another process that logs and rates."""
    log = DecisionLog(Database(url), key=b"own")
    for k in range(count):
        log.record(decision(f"{name}-{k}"))
        log.attach(f"{name}-{k}", "rating", 0.5)


@pytest.fixture
def log(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DecisionLog]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state-home"))
    found = DecisionLog(Database(url))
    yield found
    found.close()


def test_what_was_logged_is_read(log: DecisionLog) -> None:
    """A decision comes back as it was, with what was said of it; only the prompt is gone, and the vector is rounded."""
    log.record(
        decision(), [Feedback("scorer:alignment", 0, "draft", 0.3), Feedback("scorer:alignment", 0, "duel", 0.8)]
    )
    ((found, said),) = log.rated("scorer:alignment")
    expected = replace(decision(), at_s=found.at_s, prompt="", number=1, prompt_hash=found.prompt_hash)
    assert found == replace(expected, features={"words": 6.0})
    assert np.abs(found.embedding - decision().embedding).max() < 1e-3
    assert {(f.recipe, f.value) for f in said} == {("draft", 0.3), ("duel", 0.8)}


@pytest.mark.parametrize("mode", ["hash", "text"])
def test_no_prompt_is_in_the_file_unless_asked_for(tmp_path: Path, mode: str) -> None:
    """With `hash` no word of a prompt is in any byte of any file; with `text` it is."""
    log = DecisionLog(tmp_path / "decisions.sqlite", mode)  # type: ignore[arg-type]
    log.record(decision())
    log.attach("req_1", "rating", 0.5)
    contents = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert (b"Marzipan" in contents) is (mode == "text")
    assert (b"marzipan" in contents.lower()) is (mode == "text")
    log.close()
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_equal_prompts_are_told_by_their_hash_only_with_the_key(tmp_path: Path) -> None:
    """Case and spaces aside, equal prompts have equal hashes in one log and other ones in another."""
    one, other = (DecisionLog(tmp_path / name / "log.sqlite") for name in ("one", "other"))
    assert one.hashed("A red  circle") == one.hashed("a red circle") != one.hashed("a red ring")
    assert one.hashed("a red circle") != other.hashed("a red circle")
    assert DecisionLog(one.path).hashed("a red circle") == one.hashed("a red circle")
    assert DecisionLog(one.path, key=b"own").hashed("x") == DecisionLog(other.path, key=b"own").hashed("x")


def test_feedback_again_replaces(log: DecisionLog) -> None:
    """The same source on the same picture replaces; another source and another picture stand beside it."""
    log.record(decision())
    first = log.attach("req_1", "rating", 0.2, image=0)
    again = log.attach("req_1", "rating", 0.8)
    log.attach("req_1", "scorer:mine", 0.1)
    assert (first.images, first.recipes, first.replaced) == ((0,), ("draft",), False)
    assert (again.images, again.recipes, again.replaced) == ((0, 1), ("draft", "duel"), True)
    ((_, said),) = log.rated("rating")
    assert [(f.image, f.recipe, f.value) for f in said] == [(0, "draft", 0.8), (1, "duel", 0.8)]
    assert log.counts()["feedback"] == {"rating": 2, "scorer:mine": 2}


def test_each_try_has_its_own_row(log: DecisionLog) -> None:
    """Of two pictures of one recipe in one search, both scores are kept, and a rating of the delivered one replaces
    only an earlier rating of it."""
    tries = [Feedback("scorer:alignment", 0, "draft", value, 0.0, k) for k, value in enumerate((0.9, 0.1))]
    log.record(replace(decision(), kept=(1, 0)), tries)
    ((found, said),) = log.rated("scorer:alignment")
    assert [(f.attempt, f.value) for f in said] == [(0, 0.9), (1, 0.1)]
    assert (found.kept, found.delivered(0), found.delivered(1)) == ((1, 0), ("draft", 1), ("duel", 0))
    assert not log.attach("req_1", "rating", 0.2, image=0).replaced
    assert log.attach("req_1", "rating", 0.4, image=0).replaced
    assert [(f.recipe, f.attempt, f.value) for f in log.rated("rating")[0][1]] == [("draft", 1, 0.4)]


OLD_SCHEMA = """
CREATE TABLE IF NOT EXISTS decisions (
  number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, at_s REAL NOT NULL,
  prompt TEXT, prompt_hash TEXT NOT NULL, embedding BLOB NOT NULL,
  policy TEXT NOT NULL, policy_digest TEXT NOT NULL, artifact TEXT NOT NULL,
  recipe TEXT NOT NULL, propensity REAL NOT NULL, facts TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS decisions_by_id ON decisions (id);
CREATE INDEX IF NOT EXISTS decisions_by_prompt ON decisions (prompt_hash);
CREATE TABLE IF NOT EXISTS feedback (
  decision INTEGER NOT NULL REFERENCES decisions (number) ON DELETE CASCADE, source TEXT NOT NULL,
  image INTEGER NOT NULL, recipe TEXT NOT NULL, value REAL NOT NULL, at_s REAL NOT NULL,
  PRIMARY KEY (decision, source, image, recipe)) WITHOUT ROWID;
PRAGMA user_version = 1;
"""


def old_log(path: Path) -> None:
    """A log as version 0.1 made it, with two decisions that a scorer and people rated."""
    names = ("rules", "explored", "pinned", "degradable", "made", "latency_s", "cost_usd", "base")
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.executescript(OLD_SCHEMA)
        for k in (1, 2):
            one = decision(f"old-{k}")
            facts = {name: getattr(one, name) for name in names}
            facts |= {"keys": dict(one.keys), "features": {"words": 6.0}, "base_means": dict(one.base_means)}
            facts["options"] = {name: asdict(estimate) for name, estimate in one.options.items()}
            own = (one.id, one.at_s, None, f"hash {k}", one.embedding.astype("<f2").tobytes(), one.policy)
            own = (*own, one.policy_digest, one.artifact, one.recipe, one.propensity, json.dumps(facts))
            db.execute(f"INSERT INTO decisions VALUES (NULL, {', '.join('?' * len(own))})", own)
            for source, image, recipe, value in (
                ("scorer:alignment", 0, "draft", 0.3),
                ("scorer:alignment", 0, "duel", 0.8),
                ("rating", 1, "duel", 0.75),
            ):
                db.execute("INSERT INTO feedback VALUES (?, ?, ?, ?, ?, ?)", (k, source, image, recipe, value, 5.0))


def test_a_log_of_version_0_1_is_taken_over(log: DecisionLog, tmp_path: Path) -> None:
    """What is in a log with a file of its own is appended once, every row as the first try of its recipe, its key comes
    along, what comes later has its tries, and the deletion of a decision still takes its feedback along."""
    old_log(tmp_path / "log.sqlite")
    (tmp_path / "log.sqlite.key").write_bytes(b"its key")
    assert log.take_over(tmp_path / "log.sqlite") == 2
    assert log.take_over(tmp_path / "log.sqlite") == 0
    assert log.counts() == {**log.counts(), "decisions": 2, "feedback": {"scorer:alignment": 4, "rating": 2}}
    assert log.hashed("x") == DecisionLog(tmp_path / "other.sqlite", key=b"its key").hashed("x")
    (first, said), _ = log.rated("scorer:alignment")
    assert (first.id, first.made, first.kept, first.delivered(1)) == ("old-1", ("draft", "duel"), (), ("duel", 0))
    assert [(f.recipe, f.value, f.at_s, f.attempt) for f in said] == [("draft", 0.3, 5.0, 0), ("duel", 0.8, 5.0, 0)]
    assert first.options == decision().options
    assert log.attach("old-2", "rating", 0.25, image=1).replaced
    assert [[f.value for f in said] for _, said in log.rated("rating")] == [[0.75], [0.25]]
    log.record(decision("new"), [Feedback("scorer:alignment", 0, "draft", v, 0.0, k) for k, v in enumerate((0.9, 0.1))])
    assert log.counts()["feedback"] == {"scorer:alignment": 6, "rating": 2}
    assert log.purge(now_s=time.time() + 1e12) == 0
    keep_one = DecisionLog(log.database, retention=Retention(max_rows=1))
    assert keep_one.purge() == 2
    assert keep_one.counts()["feedback"] == {"scorer:alignment": 2}


def test_the_log_of_the_state_folder_is_taken_over_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is configured, the log that version 0.1 made in the state folder is in the store as soon as that is
    opened, and lies aside afterwards; a store elsewhere leaves it alone."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    old, elsewhere = tmp_path / "triptych" / "decisions.sqlite", tmp_path / "else"
    old.parent.mkdir()
    old_log(old)
    other = open_store(StoreSettings(url=f"sqlite:///{elsewhere}", pictures=str(tmp_path / "p")))
    assert other.decisions.counts()["decisions"] == 0 and old.exists()
    other.close()
    store = open_store(StoreSettings(), FeedbackSettings(store_prompts="text"))
    store.decisions.record(decision("new"))
    store.decisions.attach("new", "rating", 1.0)
    assert store.decisions.counts()["decisions"] == 3
    assert [record.prompt for record, _ in store.decisions.rated("rating")] == ["", "", PROMPT]
    store.close()
    assert not old.exists() and old.with_name("decisions.sqlite.taken-over").exists()


def test_a_log_that_cannot_be_taken_over_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Another file of that name stops nothing: it stays where it is, and a warning says so."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (tmp_path / "triptych").mkdir()
    (tmp_path / "triptych" / "decisions.sqlite").write_text("no database" * 500)
    open_store(StoreSettings()).close()
    assert (tmp_path / "triptych" / "decisions.sqlite").exists() and "were not taken over" in caplog.text


def test_a_former_log_is_no_store(tmp_path: Path) -> None:
    """A config that names a log of version 0.1 as the store is told how to keep what is there, and so is whoever reads
    it; the file stays as it is."""
    old_log(tmp_path / "log.sqlite")
    with pytest.raises(StoreError, match="triptych router log --take-over"):
        open_store(StoreSettings(url=f"sqlite:///{tmp_path / 'log.sqlite'}", pictures=str(tmp_path / "p")))
    with pytest.raises(ArtifactError, match="triptych router log --take-over"):
        DecisionLog(tmp_path / "log.sqlite").counts()
    assert DecisionLog(tmp_path / "new.sqlite").take_over(tmp_path / "log.sqlite") == 2
    with pytest.raises(ConfigError, match=r"feedback: path: decisions are in the store.*store\.url.*--take-over /d/x"):
        parse_settings({"models": {"sd15": {"card": "embedded/sd15"}}, "feedback": {"path": "/d/x.sqlite"}})


def test_an_id_that_is_used_again_means_the_last_answer(log: DecisionLog) -> None:
    """Clients may choose their ids; a rating goes to the decision that they saw last, and none is lost."""
    for _ in range(2):
        log.record(decision("mine"))
    log.attach("mine", "rating", 1.0)
    ((found, _),) = log.rated("rating")
    assert (found.number, log.counts()["decisions"]) == (2, 2)


def test_what_is_not_there_is_said(log: DecisionLog, tmp_path: Path) -> None:
    """An unknown id, a missing log, a picture too many and a foreign file each have their error."""
    with pytest.raises(ArtifactError, match="there is no such log"):
        log.counts()
    with pytest.raises(NotFoundError, match="no request 'req_1' is in the log"):
        log.attach("req_1", "rating", 0.5)
    assert not (log.database.sqlite and log.database.exists())
    log.record(decision())
    with pytest.raises(NotFoundError):
        log.attach("req_2", "rating", 0.5)
    with pytest.raises(RequestError, match="made 2 picture"):
        log.attach("req_1", "rating", 0.5, image=2)
    foreign = tmp_path / "foreign"
    foreign.write_text("x" * 5000)
    with pytest.raises(ArtifactError, match="is it a database of Triptych"):
        DecisionLog(foreign).counts()


def test_a_log_of_another_version_is_left_alone(log: DecisionLog) -> None:
    """A database with a newer schema is neither read nor written."""
    log.record(decision())
    with log.database.writing() as db:
        db.execute(text("UPDATE triptych_schema SET version_num = '9999'"))
    other = DecisionLog(log.database)
    with pytest.raises(ArtifactError, match="schema '9999'"):
        other.counts()
    with pytest.raises(StoreError, match="schema '9999'"):
        other.record(decision())


EACH = 15
"""Decisions of each of the writers."""


def test_many_writers_lose_nothing(url: str) -> None:
    """Three processes and four threads that begin at once, on a database that is empty, all get their rows in."""
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=write_many, args=(url, f"process{k}", EACH)) for k in range(3)]
    for process in others:
        process.start()
    log = DecisionLog(Database(url), key=b"own")

    def write(name: str) -> None:
        for k in range(EACH):
            log.record(decision(f"{name}-{k}"))
            log.attach(f"{name}-{k}", "rating", 0.5)

    threads = [threading.Thread(target=write, args=(f"thread{k}",)) for k in range(4)]
    for thread in threads:
        thread.start()
    for one in (*threads, *others):
        one.join(300)
    assert [process.exitcode for process in others] == [0, 0, 0]
    assert log.counts()["decisions"] == 7 * EACH
    assert log.counts()["feedback"] == {"rating": 7 * EACH * 2}
    log.close()


def test_the_key_is_made_once(tmp_path: Path) -> None:
    """Of several logs on one file that begin at once, all have the same key."""
    logs = [DecisionLog(tmp_path / "log.sqlite") for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda log: log.hashed(PROMPT), logs))) == 1


def test_old_decisions_are_forgotten_with_their_feedback(url: str) -> None:
    """Beyond an age and beyond a number, decisions go, and what was said of them."""
    log = DecisionLog(Database(url), retention=Retention(max_age_s=100, max_rows=3), key=b"own")
    for k, age_s in enumerate((500, 90, 80, 70, 60)):
        log.record(decision(f"r{k}", at_s=1000 - age_s))
        log.attach(f"r{k}", "rating", 0.5) if age_s != 500 else None
    assert log.purge(now_s=1000) == 1  # the oldest was deleted when it came
    assert log.counts() == {**log.counts(), "decisions": 3, "feedback": {"rating": 6}}


def test_a_prompt_can_be_forgotten(log: DecisionLog) -> None:
    """Everything on one prompt is deleted by the prompt itself, though only its hash is stored."""
    log.record(decision("a"))
    log.record(decision("b", prompt="another"))
    log.attach("a", "rating", 0.5)
    assert log.forget(PROMPT.upper()) == 1
    assert log.counts()["decisions"] == 1 and log.counts()["feedback"] == {}


def test_odd_characters_are_no_obstacle(url: str) -> None:
    """Half a character and NUL in a prompt or an id are logged as far as they can be, or found nowhere."""
    log = DecisionLog(Database(url), "text", key=b"own")
    log.record(decision("req_ü", prompt="a \ud800 b \x00 漢字 \U0001f3a8"))
    log.attach("req_ü", "rating", 1.0)
    assert [record.prompt for record, _ in log.rated("rating")] == ["a ? b \ufffd 漢字 \U0001f3a8"]
    with pytest.raises(NotFoundError):
        log.attach("req_\x00", "rating", 1.0)
    assert log.rated("scorer:\x00") == []
    log.close()


@pytest.mark.parametrize("kept", ["text", "hash"])
def test_the_prompts_of_a_log_are_those_that_it_keeps(tmp_path: Path, kept: Literal["text", "hash"]) -> None:
    """Texts, each once, the latest first; where only hashes are kept, none."""
    log = DecisionLog(tmp_path / "log.sqlite", kept)
    for name, prompt in (("req_1", "first"), ("req_2", "second"), ("req_3", "first")):
        log.record(decision(name, prompt))
    assert log.prompts() == (["first", "second"] if kept == "text" else [])
    log.close()
