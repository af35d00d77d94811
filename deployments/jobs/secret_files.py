"""Secrets of a server: from the environment, or random ones in a folder that all of its processes see."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from deployments.store.errors import StoreError


def secret_from(variable: str, file: Path) -> Callable[[], bytes]:
    """A function that reads the secret of an environment variable, or else of a file, which it makes (mode 600).

    Raises `StoreError` if the file can be neither read nor made."""

    def read() -> bytes:
        if given := os.environ.get(variable):
            return given.encode()
        try:
            return _kept(file)
        except OSError as error:
            raise StoreError(f"{file} cannot be read or made ({error.strerror}); set {variable}") from None

    return read


def _kept(file: Path) -> bytes:
    for _ in range(2):
        try:
            if kept := file.read_bytes().strip():
                return kept
        except FileNotFoundError:
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Written whole under another name and then linked: whoever comes second finds the first one's.
        made = file.with_name(f".{file.name}-{secrets.token_hex(8)}")
        with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(secrets.token_hex(32).encode())
        try:
            os.link(made, file)
        except FileExistsError:
            pass
        finally:
            made.unlink()
    raise OSError(errno.EINVAL, "it is empty; remove it")
