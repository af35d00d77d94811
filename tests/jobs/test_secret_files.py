"""Secrets of a server: one for all of its processes, nobody else's, and never an empty one."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deployments.jobs.secret_files import secret_from
from deployments.store.errors import StoreError


def test_whoever_asks_gets_the_same_secret(tmp_path: Path) -> None:
    """Made once, by whichever of many comes first, of 256 bits, for its owner only, and nothing else is left behind."""
    file = tmp_path / "state" / "secret"
    with ThreadPoolExecutor(16) as pool:
        found = set(pool.map(lambda _: secret_from("TRIPTYCH_NONE", file)(), range(64)))
    assert len(found) == 1 and {file.read_bytes()} == found and len(bytes.fromhex(found.pop().decode())) == 32
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert [one.name for one in file.parent.iterdir()] == ["secret"]


def test_the_environment_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then no file is made; a file that somebody wrote is read without the line's end."""
    monkeypatch.setenv("TRIPTYCH_NONE", "given")
    assert secret_from("TRIPTYCH_NONE", tmp_path / "secret")() == b"given" and not (tmp_path / "secret").exists()
    monkeypatch.delenv("TRIPTYCH_NONE")
    (tmp_path / "secret").write_bytes(b" mine \n")
    assert secret_from("TRIPTYCH_NONE", tmp_path / "secret")() == b"mine"


def test_an_empty_or_unreadable_file_is_no_secret(tmp_path: Path) -> None:
    """Both are errors that name the file and the variable, and leave nothing behind."""
    (tmp_path / "secret").write_bytes(b"\n")
    (tmp_path / "folder").mkdir()
    for name, why in (("secret", "it is empty; remove it"), ("folder", "directory")):
        with pytest.raises(StoreError, match=f"{name} cannot be read or made .*{why}.*; set TRIPTYCH_NONE"):
            secret_from("TRIPTYCH_NONE", tmp_path / name)()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["folder", "secret"]
