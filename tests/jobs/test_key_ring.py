"""What is known of the keys, and how late: by a clock that goes when it is told to."""

from __future__ import annotations

import hashlib

import pytest

from deployments.jobs.keys import PREFIX, KeyRing, hash_of, new_key, new_key_id
from deployments.store.errors import StoreError
from deployments.store.records import KeyRecord

ONE, GONE = KeyRecord("key_1", "h1", "acme"), KeyRecord("key_2", "h2", "acme", revoked_at=1.0)
NEW = KeyRecord("key_3", "h3", "acme")


class Ring:
    """A ring that is fresh for two seconds, and for a quarter of one where a key is not known."""

    def __init__(self, *keys: KeyRecord) -> None:
        self.keys, self.now_s, self.reads, self.away = list(keys), 0.0, 0, False
        self.ring = KeyRing(self.load, lambda: self.now_s, 2.0, 0.25)

    async def load(self) -> list[KeyRecord]:
        self.reads += 1
        if self.away:
            raise StoreError("away")
        return list(self.keys)


@pytest.mark.parametrize("what", ["identify", "get", "all"])
async def test_what_is_known_is_read_again_when_it_is_two_seconds_old(what: str) -> None:
    """Just before two seconds nothing is read, at two seconds it is, whatever is asked; a failure is tried again at
    once, since what is known stays as old as it was."""
    made = Ring(ONE)

    async def ask() -> None:
        await (made.ring.all() if what == "all" else getattr(made.ring, what)("h1" if what == "identify" else "key_1"))

    reads = []
    for now_s in (0.0, 1.999, 2.0, 3.999, 4.0):
        made.now_s = now_s
        await ask()
        reads.append(made.reads)
    assert reads == [1, 1, 2, 2, 3]
    made.now_s, made.away = 6.0, True
    await ask()
    await ask()
    assert made.reads == 5


async def test_what_could_not_be_noted_of_keys_is_noted_later() -> None:
    """When keys were used is not lost because the store was away, and the latest time counts."""
    ring = Ring(ONE).ring
    await ring.identify("h1")
    used = ring.used()
    assert set(used) == {"key_1"} and ring.used() == {}
    ring.not_noted({"key_1": 5.0, "key_9": 7.0})
    assert ring.used() == {"key_1": 5.0, "key_9": 7.0}
    await ring.identify("h1")
    ring.not_noted({"key_1": 5.0})
    assert ring.used()["key_1"] > 5.0


@pytest.mark.parametrize("by", ["identify", "get"])
async def test_a_key_that_is_not_known_may_be_new(by: str) -> None:
    """It is looked for in the store when what is known is a quarter of a second old, and not before."""
    made = Ring(ONE)

    async def found() -> KeyRecord | None:
        return (await made.ring.identify("h3")).key if by == "identify" else await made.ring.get("key_3")

    assert await found() is None
    made.keys.append(NEW)
    made.now_s = 0.249
    assert (await found(), made.reads) == (None, 1)
    made.now_s = 0.25
    assert (await found(), made.reads) == (NEW, 2)
    assert (await found(), made.reads) == (NEW, 2)


async def test_a_revoked_key_is_listed_and_opens_nothing() -> None:
    """By hash and by id it is none; among all keys it is there, and where only it was ever made, keys were made."""
    made = Ring(GONE)
    assert (await made.ring.identify("h2")).key is None and (await made.ring.identify("h2")).keyed
    assert await made.ring.get("key_2") is None
    assert await made.ring.all() == (GONE,)
    none = await Ring().ring.identify(None)
    assert (none.key, none.keyed) == (None, False)
    assert (await Ring(ONE).ring.identify(None)).key is None


async def test_keys_that_were_never_read_are_an_error() -> None:
    """Nothing is let in by guess; once they were read, a store that is away changes nothing."""
    made = Ring(ONE)
    made.away = True
    for ask in (made.ring.identify("h1"), made.ring.get("key_1"), made.ring.all()):
        with pytest.raises(StoreError):
            await ask


def test_a_key_is_random_and_its_hash_says_nothing_of_it() -> None:
    """256 bits behind the prefix; ids of six bytes; SHA-256 in hex."""
    key, other = new_key(), new_key()
    assert key != other and key.startswith(PREFIX) and len(key) == len(PREFIX) + 43
    assert hash_of(key) == hashlib.sha256(key.encode()).hexdigest()
    assert len(new_key_id()) == len("key_") + 12 and new_key_id() != new_key_id()
