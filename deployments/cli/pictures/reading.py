"""Files of pictures, read in bounds, with the file's name in every error."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from models.provenance.reading import MOST_BYTES, PictureFile, read_file
from router.errors import RequestError

Files = Annotated[list[Path], typer.Argument(help="Pictures: PNG, WebP or JPEG.", show_default=False)]


def bytes_of(file: Path) -> bytes:
    """The content of a file. Raises `RequestError` if it cannot be read or is larger than is read."""
    try:
        if not file.is_file():
            raise RequestError(f"{file}: there is no such file", "file")
        with file.open("rb") as stream:
            data = stream.read(MOST_BYTES + 1)
    except OSError as error:
        raise RequestError(f"{file}: cannot be read: {error.strerror or error}", "file") from None
    return data


def picture_of(file: Path, data: bytes) -> PictureFile:
    """What the file says. Raises `RequestError`."""
    try:
        return read_file(data)
    except RequestError as error:
        raise RequestError(f"{file}: {error.message}", "file") from None
