"""A directory of policies: look-ups, reload, and what a broken file does."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from policies import PRESETS, PolicyBook
from policies.language import prompt_language
from policies.store.folder import policy_files
from router.errors import NotFoundError, PolicyError
from tests.policies.values import MODELS, QUALITY, RECIPES


def write(directory: Path, name: str, rest: str = QUALITY, recipes: str = RECIPES) -> Path:
    """Put the file in place as deployments do: whole, by a rename."""
    path, new = directory / f"{name}.yaml", directory / f"{name}.new"
    new.write_text(f"version: 1\nname: {name}\n{recipes}{rest}")
    return new.rename(path)


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    write(tmp_path, "main")
    write(tmp_path, "other")
    return tmp_path


@pytest.fixture
def book(shelf: Path) -> PolicyBook:
    return PolicyBook(shelf, "main", models=MODELS)


def test_presets_make_a_book() -> None:
    """The shipped presets are a valid directory, and the default comes first."""
    assert PolicyBook(PRESETS, "balanced", models=MODELS).names() == [
        "balanced",
        "best",
        "fast",
        "frugal",
        "product-photo",
    ]


def test_changed_file_counts_for_the_next_look_up(shelf: Path, book: PolicyBook) -> None:
    """After a file changes, the next look-up gives the new policy; who holds the old one keeps it."""
    before = book.default
    write(shelf, "main", "objective: {minimise: cost_usd}\n")
    assert book.default.objective.minimise == "cost_usd"
    assert before.objective.maximise == "quality"
    assert book.default.digest != before.digest


def test_unchanged_files_are_not_read_again(book: PolicyBook) -> None:
    """A refresh without a change keeps the very same values."""
    before = book.get("main"), book.get("other")
    assert book.refresh() is False
    assert (book.get("main"), book.get("other")) == before
    assert book.get("main") is before[0]


def test_only_the_changed_file_is_read(shelf: Path, book: PolicyBook) -> None:
    """A change of one file leaves the others' values untouched."""
    other = book.get("other")
    write(shelf, "main", "objective: {minimise: cost_usd}\n")
    assert book.refresh() is True
    assert book.get("other") is other


def test_broken_file_leaves_the_old_in_force(shelf: Path, book: PolicyBook) -> None:
    """A file that became broken changes nothing, is reported with its line, and heals when it is mended."""
    good = book.default
    write(shelf, "main", "objectiv: {maximise: quality}\n")
    assert book.default is good
    assert any(":7:1: the policy: unknown key 'objectiv'; did you mean 'objective'?" in p for p in book.problems())
    write(shelf, "main", "objective: {minimise: cost_usd}\n")
    assert book.problems() == ()
    assert book.default is not good


def test_a_broken_file_leaves_what_another_process_followed_last(shelf: Path, book: PolicyBook) -> None:
    """Of two books of one directory, the one that slept through a change takes it up when the next file is broken."""
    awake = PolicyBook(shelf, "main", models=MODELS)
    write(shelf, "main", "objective: {minimise: cost_usd}\n")
    changed = awake.default.digest
    (shelf / "main.yaml").write_text("version: 1\nname: {")
    assert awake.default.digest == changed
    assert book.default.digest == changed
    assert book.default.objective.minimise == "cost_usd"
    assert len(book.problems()) == 1


def test_new_files_appear_and_deleted_ones_vanish(shelf: Path, book: PolicyBook) -> None:
    """A policy comes and goes with its file."""
    write(shelf, "third")
    assert book.names() == ["main", "other", "third"]
    (shelf / "other.yaml").unlink()
    assert book.names() == ["main", "third"]
    with pytest.raises(NotFoundError, match="no policy 'other'"):
        book.get("other")


def test_new_broken_file_is_only_a_problem(shelf: Path, book: PolicyBook) -> None:
    """A new file that is broken from the start adds no policy, and the problem goes with the file."""
    path = write(shelf, "third", "objective: {}\n")
    assert book.names() == ["main", "other"]
    assert len(book.problems()) == 1
    path.unlink()
    assert book.problems() == ()


def test_default_outlives_its_file(shelf: Path, book: PolicyBook) -> None:
    """The default policy stays in force when its file is gone, and the loss is reported until it is back."""
    good = book.default
    (shelf / "main.yaml").unlink()
    assert book.default is good
    assert "the file of the default policy is gone" in book.problems()[0]
    write(shelf, "main")
    assert book.default == good
    assert book.problems() == ()


def test_directory_outage_changes_nothing(shelf: Path, book: PolicyBook) -> None:
    """While the directory cannot be read, all policies stay in force."""
    away = shelf.rename(shelf.with_name("away"))
    assert book.names() == ["main", "other"]
    assert "no such directory" in book.problems()[0]
    away.rename(shelf)
    assert book.problems() == ()
    assert book.names() == ["main", "other"]


def test_second_file_with_the_same_name(shelf: Path, book: PolicyBook) -> None:
    """Two files cannot hold the same policy, since a policy is named like its file."""
    (shelf / "copy.yaml").write_text((shelf / "main.yaml").read_text())
    assert book.names() == ["main", "other"]
    assert "the policy is named 'main' but its file 'copy'" in book.problems()[0]


def test_start_is_strict(shelf: Path) -> None:
    """Any broken file, an absent default or an absent directory stops the start, with all problems at once."""
    write(shelf, "bad", "objective: {}\n")
    write(shelf, "worse", "objective: {minimise: fun}\n")
    with pytest.raises(PolicyError) as caught:
        PolicyBook(shelf, "main")
    assert [Path(problem.split(":")[0]).name for problem in caught.value.problems] == ["bad.yaml", "worse.yaml"]
    for name in ("bad", "worse"):
        (shelf / f"{name}.yaml").unlink()
    with pytest.raises(PolicyError, match="no policy 'mian' to use as the default; did you mean 'main'"):
        PolicyBook(shelf, "mian")
    with pytest.raises(PolicyError, match="no such directory"):
        PolicyBook(shelf / "nowhere", "main")
    with pytest.raises(PolicyError, match="unknown model"):
        PolicyBook(shelf, "main", models=["sd15"])


@pytest.mark.parametrize(
    ("target", "policy", "pinned"),
    [
        ("auto", "main", None),
        ("other", "other", None),
        ("other/premium", "other", "premium"),
        ("other/flux", "other", "flux"),
        ("premium", "main", "premium"),
        ("flux", "main", "flux"),
    ],
)
def test_target_resolves(book: PolicyBook, target: str, policy: str, pinned: str | None) -> None:
    """`model` may be auto, a policy, a recipe of a policy, a recipe of the default, or a model."""
    found, recipe = book.resolve(target, MODELS)
    assert (found.name, recipe) == (policy, pinned)


@pytest.mark.parametrize(
    ("target", "hint"),
    [
        ("premum", "'premium'"),
        ("othr", "'other'"),
        ("flxu", "'flux'"),
        ("other/premum", "'other/premium'"),
        ("", "known:"),
    ],
)
def test_unknown_target_proposes_the_nearest(book: PolicyBook, target: str, hint: str) -> None:
    """An unknown target is not found, and the nearest name of any kind is proposed."""
    with pytest.raises(NotFoundError) as caught:
        book.resolve(target, MODELS)
    assert hint in str(caught.value)
    assert (caught.value.param, caught.value.code) == ("model", "model_not_found")


def test_readers_never_see_half_a_change(shelf: Path, book: PolicyBook) -> None:
    """While files are rewritten, readers in other threads get a whole policy every time."""
    stop = threading.Event()
    seen: list[str] = []
    failures: list[BaseException] = []

    def look() -> None:
        while not stop.is_set():
            try:
                seen.append(str(book.resolve("auto")[0].objective.given()))
            except BaseException as error:
                failures.append(error)
                return

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for count in range(10):
        write(shelf, "main", QUALITY if count % 2 else "objective: {minimise: cost_usd}\n# longer\n")
        book.refresh()
    stop.set()
    for thread in threads:
        thread.join(10)
    assert failures == []
    assert set(seen) <= {"['maximise']", "['minimise']"}
    book.refresh()
    assert book.default.objective.maximise == "quality"


# ------------------------------------------------------------------------------------------------- files that are none


@pytest.mark.parametrize(
    "leave",
    [
        lambda folder: (folder / ".#shop.yaml").symlink_to("user@host.123:456"),
        lambda folder: (folder / "._shop.yaml").write_bytes(b"\x00\x05\x16\x07\xff"),
        lambda folder: (folder / ".shop.yaml.swp").write_bytes(b"b0VIM"),
        lambda folder: (folder / "#shop.yaml#").write_text("half"),
        lambda folder: (folder / "#shop.yaml").write_text("half"),
        lambda folder: (folder / "shop.yaml~").write_text("half"),
        lambda folder: (folder / "~$shop.yaml").write_text("half"),
        lambda folder: (folder / "old.yaml").mkdir(),
        lambda folder: (folder / "old.yml").symlink_to(folder, target_is_directory=True),
        lambda folder: os.mkfifo(folder / "pipe.yaml"),
        lambda folder: (folder / "notes.yaml.txt").write_text("half"),
    ],
)
def test_what_editors_and_systems_leave_is_no_policy(shelf: Path, book: PolicyBook, leave: Any) -> None:
    """Hidden files, backups, folders, pipes and links to folders change nothing, neither at the start nor later."""
    revision = book.revision
    leave(shelf)
    assert book.names() == ["main", "other"]
    assert (book.problems(), book.revision) == ((), revision)
    assert PolicyBook(shelf, "main", models=MODELS).names() == ["main", "other"]
    assert [path.name for path in policy_files(shelf)] == ["main.yaml", "other.yaml"]


def test_yml_is_read_and_written_like_yaml(shelf: Path, book: PolicyBook) -> None:
    """A policy in `x.yml` is followed, its text is read from there, and a change through the book goes there."""
    write(shelf, "third").rename(shelf / "third.yml")
    write(shelf, "fourth").rename(shelf / "fourth.YAML")
    assert book.names() == ["main", "fourth", "other", "third"]
    text = book.text("third").replace(QUALITY, "objective: {minimise: cost_usd}\n")
    book.put("third", text)
    assert (shelf / "third.yml").read_text() == text
    assert not (shelf / "third.yaml").exists()
    assert book.get("third").objective.minimise == "cost_usd"


def test_two_files_of_one_name_are_told(shelf: Path, book: PolicyBook) -> None:
    """Of `main.yaml` and `main.yml` the former counts and the other one is named as not read; a start is refused."""
    (shelf / "main.yml").write_text(
        (shelf / "main.yaml").read_text().replace(QUALITY, "objective: {minimise: cost_usd}")
    )
    assert book.default.objective.maximise == "quality"
    (problem,) = book.problems()
    assert problem == f"{shelf / 'main.yml'}: is not read, since main.yaml has the same name; keep one of them"
    with pytest.raises(PolicyError, match=r"main\.yml: is not read"):
        PolicyBook(shelf, "main", models=MODELS)
    (shelf / "main.yml").unlink()
    assert book.problems() == ()


def test_a_link_that_leads_nowhere_leaves_the_old_in_force(shelf: Path, book: PolicyBook) -> None:
    """A policy whose visible link broke stays as it was, and the problem is named."""
    good = book.get("other")
    (shelf / "other.yaml").unlink()
    (shelf / "other.yaml").symlink_to(shelf / "gone")
    assert book.get("other") is good
    assert "cannot be read: no such file" in book.problems()[0]


# ------------------------------------------------------------------------------------------------------------- waiting


class Halting(PolicyBook):
    """A book whose reading can be halted in the middle; it counts how often it looked at the folder."""

    def __init__(self, *args: Any, **more: Any) -> None:
        self.reading, self.go_on, self.looks = threading.Event(), threading.Event(), 0
        self.go_on.set()
        super().__init__(*args, **more)

    def _read(self, old: Any) -> Any:
        self.looks += 1
        shelf = super()._read(old)
        self.reading.set()
        assert self.go_on.wait(60)
        return shelf


def test_nobody_waits_while_one_reads(shelf: Path) -> None:
    """While a thread reads a changed file, others look up, resolve and ask for problems with what was in force before;
    once it is read, everybody has the new one."""
    book = Halting(shelf, "main", models=MODELS)
    before = book.default
    write(shelf, "main", "objective: {minimise: cost_usd}\n")
    book.go_on.clear()
    book.reading.clear()
    reader = threading.Thread(target=book.refresh)
    reader.start()
    assert book.reading.wait(60)
    assert book.default is before  # would never return if it waited
    assert book.resolve("auto")[0] is before
    assert book.problems() == ()
    book.go_on.set()
    reader.join()
    assert book.default.objective.minimise == "cost_usd"


def test_whoever_puts_a_policy_sees_it_in_force(shelf: Path) -> None:
    """A change through the book waits for a reader that is under way, so that it is in force when the call returns."""
    book = Halting(shelf, "main", models=MODELS)
    text = book.text("other").replace(QUALITY, "objective: {minimise: cost_usd}\n")
    book.go_on.clear()
    book.reading.clear()
    reader, putter = threading.Thread(target=book.refresh), threading.Thread(target=book.put, args=("other", text))
    reader.start()
    assert book.reading.wait(60)
    putter.start()
    book.go_on.set()
    putter.join()
    reader.join()
    assert book.resolve("other", refresh=False)[0].objective.minimise == "cost_usd"


def test_a_policy_that_asks_for_the_language_is_ready_when_it_is_in_force(shelf: Path) -> None:
    """The library that tells languages apart is loaded when the first policy that needs it is put in force, at whatever
    depth it asks, and not before; no request waits for that."""
    prompt_language._identifier.cache_clear()
    book = PolicyBook(shelf, "main", models=MODELS)
    assert not prompt_language._identifier.cache_info().currsize
    asks = "rules: [{name: r, when: {any: [{not: {language: de}}, {tag: x}]}, prefer: [draft]}]\n"
    write(shelf, "other", QUALITY + asks)
    assert book.get("other").asks("language") and not book.default.asks("language")
    for thread in threading.enumerate():
        if thread.name == "prompt-language":
            thread.join(60)
    assert prompt_language._identifier.cache_info().currsize
