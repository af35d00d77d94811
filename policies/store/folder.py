"""Which files of a folder are policies: `<name>.yaml` or `<name>.yml`, as plain visible files."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

SUFFIXES = (".yaml", ".yml")

Stamp = tuple[int, int, int]  # mtime_ns, size, inode


@dataclass(frozen=True)
class Folder:
    """One look at a folder. files: what each policy file looks like, by file name; twice: a file -> the one of the same
    name that counts instead"""

    files: Mapping[str, Stamp] = field(default_factory=dict)
    twice: Mapping[str, str] = field(default_factory=dict)


def look(directory: Path) -> Folder:
    """The policy files of a folder. Raises `OSError` if it cannot be listed.

    What editors, archives and systems leave beside them is none: hidden files (`.#x.yaml`, `._x.yaml`), backups
    (`#x.yaml#`, `x.yaml~`), folders, sockets and pipes. A link counts as what it leads to; one that leads nowhere is a
    file that cannot be read. Of `x.yaml` and `x.yml`, the former counts.
    """
    files: dict[str, Stamp] = {}
    for path in directory.iterdir():
        if is_named_like_one(path) and (stamp := _stamp(path)) is not None:
            files[path.name] = stamp
    twice: dict[str, str] = {}
    first: dict[str, str] = {}
    for name in sorted(files, key=lambda name: (SUFFIXES.index(Path(name).suffix.lower()), name)):
        if (kept := first.setdefault(Path(name).stem, name)) != name:
            twice[name] = kept
    return Folder({name: files[name] for name in sorted(first.values())}, twice)


def policy_files(directory: Path) -> list[Path]:
    """The paths of the policy files of a folder, in the order of the alphabet."""
    return [directory / name for name in look(directory).files]


def is_named_like_one(path: Path) -> bool:
    """Whether a path is called as policy files are."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith((".", "#", "~"))


def _stamp(path: Path) -> Stamp | None:
    """What changes when a file does; None if it is no plain file."""
    try:
        found = path.stat()
    except FileNotFoundError:  # a link that leads nowhere, or a file that vanished just now
        return (0, 0, 0) if path.is_symlink() else None
    except OSError:
        return (0, 0, 0)
    return (found.st_mtime_ns, found.st_size, found.st_ino) if stat.S_ISREG(found.st_mode) else None
