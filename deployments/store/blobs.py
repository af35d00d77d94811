"""Bytes under names, in a folder or in whatever fsspec reaches (`s3://bucket/prefix`). A file is whole or not there."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from deployments.store.errors import StoreError, StoreFullError

# Where an object appears only when all of it is there. Elsewhere a file gets its name after it is written.
WHOLE = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "memory"}
DRAFT = ".draft-"
_FULL = ("StorageFull", "InsufficientStorage", "QuotaExceeded", "No space left")


class Blobs:
    """Files below `place`, a folder's path or a URL. Names have "/" between their parts.

    Methods raise `StoreError` if the place does not answer, `StoreFullError` if it is full. Safe in several threads."""

    def __init__(self, place: str) -> None:
        """Raises `StoreError` if the place cannot be reached."""
        self.place = place
        protocol, found, rest = place.partition("://")
        self._folder = Path(place if not found else rest) if not found or protocol == "file" else None
        self._fs: Any = None
        self._root = ""
        self._whole = protocol in WHOLE
        with self._told("cannot be used; correct store.pictures, or who may write there"):
            if self._folder is not None:
                self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                if not os.access(self._folder, os.R_OK | os.W_OK | os.X_OK):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            else:
                self._connect()

    def _connect(self) -> None:
        from fsspec.core import url_to_fs

        try:
            self._fs, self._root = url_to_fs(self.place, use_listings_cache=False)
        except ImportError as error:
            hint = "pip install -c constraints.txt -e '.[s3]'" if self.place.startswith("s3") else str(error)
            raise StoreError(f"store.pictures: {self.place} needs a package that is not installed: {hint}") from None
        except ValueError as error:
            raise StoreError(f"store.pictures: {self.place} is no folder and no URL that is known: {error}") from None
        # Clients hide why something is not there; writing says it.
        probe = f"{DRAFT}{secrets.token_hex(8)}"
        with suppress(StoreFullError):
            self.write(probe, b"")
            self.delete(probe)

    def free(self) -> int | None:
        """Bytes that are left; None: not known."""
        return None if self._folder is None else shutil.disk_usage(self._folder).free

    def write(self, name: str, data: bytes) -> None:
        """Keep `data` under `name`; on the disk, or with the service, when this returns."""
        with self._told():
            if self._folder is not None:
                _write_file(self._folder / name, data)
            elif self._whole:
                self._fs.pipe_file(self._path(name), data)
            else:
                folder, _, last = self._path(name).rpartition("/")
                draft = f"{folder}/{DRAFT}{secrets.token_hex(8)}-{last}"
                self._fs.makedirs(folder, exist_ok=True)
                self._fs.pipe_file(draft, data)
                self._fs.mv(draft, f"{folder}/{last}")

    def read(self, name: str) -> bytes | None:
        """What is kept under `name`; None: nothing."""
        with self._told():
            try:
                if self._folder is not None:
                    return (self._folder / name).read_bytes()
                data: bytes = self._fs.cat_file(self._path(name))
                return data
            except FileNotFoundError:
                return None

    def delete(self, name: str) -> None:
        """Remove what is kept under `name`, if anything is."""
        with self._told(), suppress(FileNotFoundError):
            if self._folder is None:
                self._fs.rm_file(self._path(name))
                return
            path = self._folder / name
            path.unlink()
            with suppress(OSError):
                path.parent.rmdir()  # once it is empty

    def older(self, below: str, before: float) -> Iterator[str]:
        """Names below a folder that were last written before that (Unix seconds)."""
        with self._told():
            if self._folder is not None:
                for path in (self._folder / below).rglob("*"):
                    with suppress(FileNotFoundError):
                        if path.is_file() and path.stat().st_mtime < before:
                            yield path.relative_to(self._folder).as_posix()
                return
            try:
                found = self._fs.find(self._path(below), detail=True)
            except FileNotFoundError:
                return
            for path, facts in found.items():
                written = _written(facts)
                if written is not None and written < before:
                    yield path.removeprefix(self._root).lstrip("/")

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    @contextmanager
    def _told(self, remedy: str = "try again") -> Iterator[None]:
        """Whatever the file system raises (each has its own errors) as the store's."""
        try:
            yield
        except StoreError:
            raise
        except Exception as error:
            said = " ".join(str(getattr(error, "strerror", None) or error).split())[:300] or type(error).__name__
            if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or any(sign in said for sign in _FULL):
                raise StoreFullError(f"{self.place} is full ({said}); make room there") from error
            raise StoreError(f"store.pictures: {self.place} does not answer ({said}); {remedy}") from error


def _write_file(path: Path, data: bytes) -> None:
    """Bytes first, then the name, then the folder that holds it: each on the disk before the next."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f"{DRAFT}{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _written(facts: dict[str, Any]) -> float | None:
    for name in ("LastModified", "mtime", "last_modified", "updated", "created"):
        value = facts.get(name)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
    return None
