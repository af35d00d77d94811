"""Versions of policies go through the store from one machine's folder to another's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deployments.policy_versions import bring, follow
from deployments.store.store import Store
from policies import PolicyBook

PLAIN = """version: 1
name: {name}
recipes:
  draft: {{generate: {{model: sd15, steps: {steps}}}}}
objective: {{minimise: work_s}}
"""


def write(folder: Path, name: str, steps: int, at: float | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(PLAIN.format(name=name, steps=steps), encoding="utf-8")
    if at is not None:
        os.utime(path, (at, at))
    return path


def settled(store: Store) -> None:
    """All that was handed over is written: the store writes in order."""
    store.keys_used({})


def steps_of(folder: Path, name: str = "shop") -> str:
    return (folder / f"{name}.yaml").read_text(encoding="utf-8").split("steps: ")[1].split("}")[0]


def test_a_change_on_one_machine_reaches_another_that_starts_later(store: Store, tmp_path: Path) -> None:
    """What was put in force here is in the folder there, also a policy that it never had; and then both agree."""
    here, there = tmp_path / "here", tmp_path / "there"
    write(here, "shop", 3, at=1000.0)
    write(there, "shop", 3, at=1000.0)
    book = PolicyBook(here, "shop", models=["sd15"])
    follow(book, store)
    book.put("shop", PLAIN.format(name="shop", steps=5))
    book.put("other", PLAIN.format(name="other", steps=7))
    settled(store)
    assert sorted(bring(store, there)) == ["other", "shop"]
    assert (steps_of(there), steps_of(there, "other")) == ("5", "7")
    assert bring(store, there) == bring(store, here) == []


def test_a_file_that_was_written_later_is_the_next_version(store: Store, tmp_path: Path) -> None:
    """The store does not take back what somebody wrote into a folder since, and has it from then on."""
    folder, other = tmp_path / "here", tmp_path / "there"
    write(folder, "shop", 3, at=1000.0)
    follow(PolicyBook(folder, "shop", models=["sd15"]), store)
    write(folder, "shop", 9, at=2000.0)
    settled(store)
    assert bring(store, folder) == []
    follow(PolicyBook(folder, "shop", models=["sd15"]), store)
    settled(store)
    write(other, "shop", 3, at=1000.0)
    assert bring(store, other) == ["shop"] and steps_of(other) == "9"


def test_a_policy_that_went_is_not_brought_back_and_a_broken_one_not_handed_on(store: Store, tmp_path: Path) -> None:
    """Whoever deletes a file while it is followed deletes it everywhere; what is not valid stays where it is."""
    here, there = tmp_path / "here", tmp_path / "there"
    write(here, "shop", 3, at=1000.0)
    extra = write(here, "extra", 4, at=1000.0)
    book = PolicyBook(here, "shop", models=["sd15"])
    follow(book, store)
    extra.unlink()
    (here / "shop.yaml").write_text("version: 1\nname: shop\n", encoding="utf-8")
    book.refresh(wait=True)
    settled(store)
    write(there, "shop", 8, at=900.0)
    assert bring(store, there) == ["shop"] and steps_of(there) == "3"
    assert not (there / "extra.yaml").exists()


def test_a_folder_that_cannot_be_used_is_left_alone(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A folder that is not there stays so; a file that is no text stays as it is, with a warning."""
    here = tmp_path / "here"
    write(here, "shop", 3)
    follow(PolicyBook(here, "shop", models=["sd15"]), store)
    settled(store)
    assert bring(store, tmp_path / "nowhere") == []
    broken = write(tmp_path / "there", "shop", 3, at=1000.0)
    broken.write_bytes(b"\xff\xfe\x00")
    os.utime(broken, (1000.0, 1000.0))
    assert bring(store, tmp_path / "there") == []
    assert broken.read_bytes() == b"\xff\xfe\x00" and "stays as it is" in caplog.text


def test_only_so_many_versions_are_kept(store: Store) -> None:
    """The newest hundred of a policy; one that is older than the last, or says the same, adds nothing."""
    for number in range(105):
        store.keep_policy_soon("shop", f"{number:012x}", str(number), 1000.0 + number)
    store.keep_policy_soon("shop", "0" * 12, "old", 5.0)
    store.keep_policy_soon("shop", f"{104:012x}", "the same", 9999.0).result()
    (last,) = store.policies()
    assert (last.text, last.at) == ("104", 1104.0)
    with store.database.reading() as db:
        assert db.exec_driver_sql("SELECT count(*) FROM policies").scalar() == 100
