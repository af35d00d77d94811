"""Pictures: bytes in a folder or on an S3 server, rows in the database, and never a row without its bytes."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deployments.settings import StoreSettings
from deployments.store import tidying
from deployments.store.blobs import Blobs
from deployments.store.errors import FencedError, StoreError, StoreFullError
from deployments.store.store import Store, open_store
from router.errors import NotFoundError
from tests.store.conftest import Settings
from tests.store.test_decision_log import decision
from tests.store.values import job, picture, used

DAY_S = 86_400.0


@pytest.fixture
def store(settings: Settings, place: str) -> Iterator[Store]:
    found = open_store(settings(pictures=place))
    yield found
    found.close()


def names(store: Store) -> set[str]:
    """The names of all bytes that are kept."""
    return set(store._blobs.older(store.id, time.time() + DAY_S))


def test_a_picture_comes_back(store: Store) -> None:
    """Bytes and facts are read as they were put, in order of their index, and nothing of what a client wrote is in
    the name of a file."""
    store.accept(job("../jöb"))
    second = store.put_picture(picture("../jöb", 1, facts={"prompt": "ü"}), b"second", 0)
    first = store.put_picture(picture("../jöb", 0, media_type="image/webp", seed=2**62), b"\x00first", 0)
    assert store.pictures("../jöb") == [first, second]
    assert store.picture(first.id) == first and store.picture("unknown") is None
    assert (store.read(first), store.read(second)) == (b"\x00first", b"second")
    assert (first.bytes_n, second.facts) == (6, {"prompt": "ü"}) and time.time() - first.made_at < 60
    assert names(store) == {first.key, second.key}
    assert first.key.endswith(".webp") and "j" not in first.key and ".." not in first.key


def test_a_picture_that_is_made_again_replaces(store: Store) -> None:
    """Of the same picture of a job, only the last is kept, row and bytes."""
    store.accept(job("a"))
    store.put_picture(picture("a"), b"one", 0)
    again = store.put_picture(picture("a"), b"two", 0)
    assert store.pictures("a") == [again] and store.read(again) == b"two"
    assert names(store) == {again.key}


def test_many_pictures_at_once(store: Store) -> None:
    """Forty pictures from eight threads are all there."""
    store.accept(job("a", n=40))
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda k: store.put_picture(picture("a", k), b"%d" % k, 0), range(40)))
    assert store.pictures("a") == made
    assert [store.read(one) for one in made] == [b"%d" % k for k in range(40)]


def test_what_may_not_be_written_leaves_no_bytes(store: Store) -> None:
    """A picture of a job that another orchestrator has, or that is not there, leaves neither row nor bytes."""
    old = store.begin()
    store.accept(job("a", fence=old))
    store.take_over(store.begin())
    with pytest.raises(FencedError):
        store.put_picture(picture("a"), b"stale", old)
    with pytest.raises(NotFoundError):
        store.put_picture(picture("unknown"), b"lost", old)
    assert names(store) == set()


def test_ended_jobs_are_forgotten_with_age(store: Store) -> None:
    """Beyond their age, ended jobs go with pictures and bytes; open ones and younger ones stay, usage too."""
    for name in ("old", "open", "young"):
        store.accept(job(name), [used(name)])
        store.put_picture(picture(name), name.encode(), 0)
    store.finished("old", 0, "done", {})
    later = time.time() + 7 * DAY_S - 10
    assert store.tidy(later) == {"jobs": 0, "pictures": 0, "bytes": 0, "orphans": 0}
    later = time.time() + 7 * DAY_S + 10
    assert store.tidy(later) == {"jobs": 1, "pictures": 1, "bytes": 3, "orphans": 0}
    assert (store.job("old"), store.pictures("old"), store.picture("img_old_0")) == (None, [], None)
    assert {name: store.read(store.pictures(name)[0]) for name in ("open", "young")} == {
        "open": b"open",
        "young": b"young",
    }
    assert len(names(store)) == 2
    assert len(store.usage_since(0)) == 3
    store.tidy(time.time() + 400 * DAY_S)
    assert store.usage_since(0) == [] and store.job("open") is not None


def test_the_oldest_go_where_there_are_too_many_bytes(settings: Settings, place: str) -> None:
    """Beyond the size, the jobs that ended first go until it is kept; an open job stays, whatever it holds."""
    store = open_store(settings(pictures=place, max_gib=3000 / 2**30))
    for name in ("open", "a", "b", "c", "d"):
        store.accept(job(name))
        store.put_picture(picture(name), bytes(1000), 0)
        if name != "open":
            store.finished(name, 0, "done", {})
    store.accept(job("none"))
    store.finished("none", 0, "failed", error={})
    assert store.tidy() == {"jobs": 2, "pictures": 2, "bytes": 2000, "orphans": 0}
    assert [store.job(name) is not None for name in ("open", "a", "b", "c", "d", "none")] == [
        True, False, False, True, True, True,
    ]  # fmt: skip
    store.put_picture(picture("open", 1), bytes(9000), 0)
    assert store.tidy()["jobs"] == 2
    assert store.tidy()["jobs"] == 0 and len(store.pictures("open")) == 2
    store.close()


def test_tidying_goes_on_until_nothing_is_due(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However few jobs are forgotten at once, all that are due go: by age, by bytes and by prompt; usage goes beyond
    the longest window of a budget and a day, and not before."""
    monkeypatch.setattr(tidying, "AT_ONCE", 2)
    store = open_store(settings(pictures=str(tmp_path / "pictures"), max_gib=350 / 2**30))
    now = time.time()

    def five(letter: str) -> None:
        for k in range(5):
            store.accept(job(f"{letter}{k}", request={"prompt": letter}), [used(f"{letter}{k}", at=now - k * DAY_S)])
            store.put_picture(picture(f"{letter}{k}"), bytes(100), 0)
            store.finished(f"{letter}{k}", 0, "done", {})

    five("a")
    assert store.tidy(now) == {"jobs": 2, "pictures": 2, "bytes": 200, "orphans": 0}
    assert sorted(one.id for one in store.jobs()[0]) == ["a2", "a3", "a4"]
    five("b")
    assert store.forget("b") == {"decisions": 0, "jobs": 5, "pictures": 5}
    assert store.tidy(now + 8 * DAY_S) == {"jobs": 3, "pictures": 3, "bytes": 300, "orphans": 0}
    assert len(store.usage_since(0)) == 10
    store.tidy(now + 365 * DAY_S - 1)
    assert sorted(row.job for row in store.usage_since(0)) == sorted(f"{k}{n}" for k in "ab" for n in range(3))
    store.tidy(now + 367 * DAY_S + 1)
    assert store.usage_since(0) == []
    store.close()


def test_bytes_without_a_row_are_tidied(store: Store, place: str) -> None:
    """What a process left behind when it died goes after an hour; what another application keeps there stays."""
    store.accept(job("a"))
    kept = store.put_picture(picture("a"), b"kept", 0)
    store._blobs.write(f"{store.id}/2026-01-01/lost.png", b"lost")
    foreign = Blobs(place)
    foreign.write("foreign/2026-01-01/other.png", b"other")
    assert store.tidy(time.time() + 60)["orphans"] == 0
    assert store.tidy(time.time() + 3700)["orphans"] == 1
    assert names(store) == {kept.key} and store.read(kept) == b"kept"
    assert foreign.read("foreign/2026-01-01/other.png") == b"other"


def test_a_prompt_is_forgotten(store: Store) -> None:
    """What is kept on one prompt, whatever its case and spaces, can be deleted before its time: ended jobs with their
    pictures, and decisions; other prompts and open jobs stay."""
    for name, prompt in (("a", "Two  green STARS"), ("b", "two green stars"), ("open", "two green stars"), ("c", "x")):
        store.accept(job(name, request={"prompt": prompt}))
        store.put_picture(picture(name), b"x", 0)
        if name != "open":
            store.finished(name, 0, "done", {})
    store.decisions.record(decision("a", prompt="two green stars"))
    assert store.forget(" two GREEN stars") == {"decisions": 1, "jobs": 2, "pictures": 2}
    assert {one.id for one in store.jobs()[0]} == {"open", "c"} and len(names(store)) == 2


def test_two_stores_may_share_a_place(settings: Settings, place: str, tmp_path: Path) -> None:
    """Stores with databases of their own do not tidy one another's pictures."""
    one = open_store(settings(pictures=place))
    other = open_store(settings(pictures=place, url=f"sqlite:///{tmp_path / 'other.sqlite'}"))
    one.accept(job("a"))
    mine = one.put_picture(picture("a"), b"mine", 0)
    assert other.tidy(time.time() + DAY_S)["orphans"] == 0
    assert one.read(mine) == b"mine"
    one.close(), other.close()


def test_a_picture_that_was_forgotten_is_said(store: Store) -> None:
    """Bytes that are gone are not found, which is not an error of the store."""
    store.accept(job("a"))
    one = store.put_picture(picture("a"), b"x", 0)
    store._blobs.delete(one.key)
    with pytest.raises(NotFoundError, match="not kept any more"):
        store.read(one)


def test_files_are_readable_by_their_owner_only(settings: Settings, tmp_path: Path) -> None:
    """Pictures and their folders are nobody else's."""
    store = open_store(settings())
    store.accept(job("a"))
    store.put_picture(picture("a"), b"x", 0)
    store.close()
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "pictures").rglob("*") if path.is_file()}
    assert modes == {0o600} and stat.S_IMODE((tmp_path / "pictures").stat().st_mode) == 0o700


# --------------------------------------------------------------------------------------------------------- a full disk


def test_a_full_disk_refuses_new_work_and_finishes_the_rest(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the file system of the pictures has no room, that is said with the place, nothing half is left, new work is
    refused, and what was accepted can be ended; with room again, both go on."""
    store = open_store(settings())
    store.accept(job("a"))
    write, full = os.fsync, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def no_room(_: int) -> None:
        raise full

    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(StoreFullError, match=r"pictures is full \(No space left on device\)") as refused:
        store.put_picture(picture("a"), b"x", 0)
    assert refused.value.retry_after_s == 30.0 and refused.value.code == "store_full"
    assert names(store) == set() and store.pictures("a") == []
    monkeypatch.setattr(os, "fsync", write)
    with pytest.raises(StoreFullError, match="no new work is accepted"):
        store.accept(job("b"))
    store.started("a", 0, {})
    kept = store.put_picture(picture("a"), b"x", 0)
    assert store.finished("a", 0, "done", {}) and store.read(kept) == b"x"
    store._full_until = 0.0
    assert store.accept(job("b")).id == "b"
    store.close()


def test_room_is_kept_for_what_was_accepted(settings: Settings) -> None:
    """With less room than the reserve nothing new is accepted, and the message says where, how little, and which key
    says how much; what is there can still be ended."""
    open_store(settings()).close()
    store = open_store(settings(keep_free_mib=1e9))
    with pytest.raises(StoreFullError, match=r"MiB left.*store\.keep_free_mib"):
        store.accept(job("a"))
    assert store.job("a") is None
    store.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 3 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", folder], capture_output=True).returncode:
        pytest.skip("may not mount a small disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_small_disk_fills_up(small_disk: Path) -> None:
    """On a real disk that fills up with database and pictures, every job that was accepted ends with its picture, and
    the first that does not fit is refused; after tidying there is room again."""
    place = {"url": f"sqlite:///{small_disk / 'a.sqlite'}", "pictures": str(small_disk / "pictures")}
    store = open_store(StoreSettings(**place, keep_free_mib=1.0, max_gib=0.1 / 1024))
    accepted = []
    with pytest.raises(StoreFullError, match="MiB left"):  # noqa: PT012
        for k in range(1000):
            accepted.append(store.accept(job(f"j{k}", request={"prompt": "x" * 1000})).id)
            store._looked = 0.0
            if k % 3 == 2:
                for name in accepted[-3:]:
                    store.put_picture(picture(name), bytes(20_000), 0)
                    store.finished(name, 0, "done", {})
    for name in accepted:
        if not store.pictures(name):
            store.put_picture(picture(name), bytes(20_000), 0)
            store.finished(name, 0, "done", {})
    assert len(accepted) > 10
    assert all(store.read(store.pictures(name)[0]) == bytes(20_000) for name in accepted)
    store.tidy()
    store._looked = 0.0
    assert store.accept(job("again")).id == "again"
    store.close()


def test_a_database_on_a_full_disk_says_so(small_disk: Path, tmp_path: Path) -> None:
    """Without a reserve, the database's own disk full is a `StoreFullError` that names the file, and nothing that was
    committed is lost."""
    url = f"sqlite:///{small_disk / 'a.sqlite'}"
    store = open_store(StoreSettings(url=url, pictures=str(tmp_path / "pictures"), keep_free_mib=0))
    accepted = []
    with pytest.raises(StoreFullError, match=r"a\.sqlite: the disk is full"):  # noqa: PT012
        for k in range(1000):
            accepted.append(store.accept(job(f"j{k}", request={"prompt": "x" * 20_000})).id)
    assert len(accepted) > 20 and all(store.job(name) for name in accepted)
    store.close()


# ------------------------------------------------------------------------------------------------- what is not there


@pytest.mark.parametrize(
    ("place", "match"),
    [
        ("/proc/nowhere", r"store\.pictures: /proc/nowhere cannot be used|cannot be used"),
        ("nowhere://bucket", "nowhere://bucket is no folder and no URL"),
    ],
)
def test_a_place_that_cannot_be_used_is_named(settings: Settings, place: str, match: str) -> None:
    """A folder that cannot be made and a kind of URL that is unknown are named, with the key."""
    with pytest.raises(StoreError, match=match):
        open_store(settings(pictures=place))


def test_a_bucket_that_is_not_there_is_named(settings: Settings, s3: str) -> None:
    """A missing bucket is said when the store is opened."""
    with pytest.raises(StoreError, match=r"s3://no-such-bucket/x does not answer.*bucket does not exist"):
        open_store(settings(pictures="s3://no-such-bucket/x"))


def test_an_s3_server_that_is_away_is_said(settings: Settings, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing listens: the error names the URL, without a traceback of the client's."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(StoreError, match=r"s3://triptych-test/x (does not answer|cannot be used)"):
        open_store(settings(pictures="s3://triptych-test/x"))
    s3fs.S3FileSystem.clear_instance_cache()
