"""`triptych edit`: a picture painted over as a prompt says, and what `generate --image` reads of files."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from router.errors import RequestError

Image = Annotated[Path | None, typer.Option("--image", help="A picture to paint over: PNG, JPEG or WebP.")]
Also = Annotated[
    list[Path] | None,
    typer.Option("--also", help="A further picture to look at, for models that take several; may be repeated."),
]
Mask = Annotated[
    Path | None, typer.Option("--mask", help="A picture of the same size, transparent where the first may change.")
]
Reference = Annotated[
    Path | None, typer.Option("--reference", help="A picture that a style of kind ip_adapter draws after.")
]
Strength = Annotated[float | None, typer.Option("--strength", help="How far the picture may change, above 0 to 1.")]
Extend = Annotated[
    str | None, typer.Option("--extend", metavar="L,T,R,B", help="Pixels to draw beyond left, top, right and bottom.")
]


def pictures(
    images: Sequence[Path | None],
    mask: Path | None,
    reference: Path | None,
    strength: float | None = None,
    extend: str | None = None,
) -> dict[str, Any]:
    """The fields of a body that these options mean; the first of the images is edited. Raises `RequestError`."""
    if images and images[0] is None and len(images) > 1:
        raise RequestError("--also is for a further picture, and there is none; give the first by --image", "also")
    read = [_read(one, "image") for one in images if one is not None]
    given = {
        "image": read[0] if len(read) == 1 else read or None,
        "mask": None if mask is None else _read(mask, "mask"),
        "reference": None if reference is None else _read(reference, "reference"),
    }
    return {**given, "strength": strength, "extend": None if extend is None else _sides(extend)}


def _read(file: Path, option: str) -> str:
    try:
        return base64.b64encode(file.read_bytes()).decode("ascii")
    except OSError as error:
        raise RequestError(f"--{option} {file}: it cannot be read: {error.strerror}", option) from None


def _sides(text: str) -> dict[str, int]:
    try:
        left, top, right, bottom = (int(part) for part in text.split(","))
    except ValueError:
        raise RequestError(f"--extend {text}: it is four whole numbers, such as 0,0,64,0", "extend") from None
    return {"left": left, "top": top, "right": right, "bottom": bottom}
