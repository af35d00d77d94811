"""Bytes that somebody sent to a clean picture: right way up, in sRGB, its transparency apart, within bounds.

    bytes ─▶ header (type, size, frames: refused here) ─▶ decoded, against the clock ─▶ upright ─▶ sRGB ─▶ pixels, alpha

The bounds are looked at before anything is decoded, so that what is refused is never allocated: a picture of w x h
pixels takes at most `BYTES_PER_PIXEL` * w * h bytes beside its file.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError

from models.given.headers import Header, bare_png, damaged, header
from router.errors import RequestError

BYTES_PER_PIXEL = 24
"""At most, at the worst moment: decoded, turned, converted, and as arrays."""
MOST_SCANS = 64
"""Of a JPEG: each is a pass over the whole picture, and thousands fit into a small file. Usual are up to a dozen."""
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
"""What EXIF's orientation asks for."""


@dataclass(frozen=True)
class Bounds:
    """What is taken. max_bytes: of a file;   max_pixels: of a picture;   timeout_s: seconds for decoding one"""

    max_bytes: int = 20 * 2**20
    max_pixels: int = 2**24
    timeout_s: float = 10.0


@dataclass(frozen=True)
class Clean:
    """pixels: uint8 (height, width, 3), sRGB;   alpha: uint8 (height, width), 0 transparent; None: it has none

    notes: in words, what of the file was not followed
    """

    pixels: NDArray[np.uint8] = field(repr=False)
    alpha: NDArray[np.uint8] | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.pixels.shape[1], self.pixels.shape[0]


def digest_of(pixels: NDArray[np.uint8]) -> str:
    """SHA-256 of a picture (height, width, 3) or a mask (height, width), whatever file it came in; hexadecimal."""
    shape = "x".join(map(str, pixels.shape))
    return hashlib.sha256(f"{shape}:".encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def cleaned(data: bytes, bounds: Bounds | None = None) -> Clean:
    """The picture in a file. Raises `RequestError` that says in words why it is not taken; its codes are
    "unsupported_image" (another type), "image_too_large" (bytes or pixels), "invalid_image" (damaged, cut off,
    animated, too slow)."""
    bounds = bounds or Bounds()
    if len(data) > bounds.max_bytes:
        raise RequestError(f"it has {len(data):,} bytes; at most {bounds.max_bytes:,} are read", None, TOO_LARGE)
    told = header(data)
    _check(told, bounds)
    with _decoding():
        source = _Timed(bare_png(data) if told.format == "PNG" else data, bounds.timeout_s)
        with Image.open(source, formats=(told.format,)) as image:
            if image.size != (told.width, told.height):
                raise damaged("its size is not the one that its header says")
            image.load()
            turn = TURNS.get(_orientation(image))
            profile = image.info.get("icc_profile")
            flat, alpha = _parts(image)
        if turn is not None:
            flat, alpha = flat.transpose(turn), None if alpha is None else alpha.transpose(turn)
        flat, notes = _in_srgb(flat, profile)
        return Clean(np.asarray(flat), None if alpha is None else np.asarray(alpha), notes)


TOO_LARGE = "image_too_large"


def _check(told: Header, bounds: Bounds) -> None:
    if told.animated:
        raise RequestError("it is an animation; send a single picture", None, "invalid_image")
    if not told.width or not told.height:
        raise damaged(f"its size is {told.width}x{told.height}")
    if told.width * told.height > bounds.max_pixels:
        size = f"{told.width}x{told.height}, {told.width * told.height:,} pixels"
        raise RequestError(f"it is {size}; at most {bounds.max_pixels:,} are read", None, TOO_LARGE)
    if told.scans > MOST_SCANS:
        raise damaged(f"it has {told.scans} scans; at most {MOST_SCANS} are read")


class _Late(Exception):
    """The clock ran out while a file was decoded."""


class _Timed(io.BytesIO):
    """A file that decoders read piece by piece, until the clock runs out."""

    def __init__(self, data: bytes, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(data)
        self._clock = clock
        self._due = clock() + timeout_s

    def read(self, size: int | None = -1, /) -> bytes:
        if self._clock() > self._due:
            raise _Late
        return super().read(size)


@contextmanager
def _decoding() -> Iterator[None]:
    """Whatever goes wrong inside a decoder is a `RequestError`."""
    try:
        yield
    except RequestError:
        raise
    except _Late:
        raise RequestError("it takes too long to decode", None, "invalid_image") from None
    except UnidentifiedImageError:
        raise damaged("its header is not sound") from None
    except MemoryError:
        raise RequestError("there is no memory for it now", None, TOO_LARGE) from None
    except Exception as error:  # each decoder has its own: OSError, SyntaxError, struct.error, zlib.error, …
        why = " ".join(str(error).split())[:120] or type(error).__name__
        raise damaged(why if "truncated" not in why else "it is cut off") from None


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # broken EXIF says nothing of the picture
        return 1


def _parts(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The picture in its own colours, one of L, RGB, CMYK, and its alpha, L."""
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)), None
    if image.has_transparency_data:
        whole = image.convert("RGBA")
        alpha = whole.getchannel("A")
        return whole.convert("RGB"), alpha if alpha.getextrema() != (255, 255) else None
    if image.mode in ("L", "CMYK", "RGB"):
        return image.copy(), None
    return image.convert("RGB"), None


def _in_srgb(image: Image.Image, profile: object) -> tuple[Image.Image, tuple[str, ...]]:
    if isinstance(profile, bytes) and profile:
        try:
            theirs = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            made = ImageCms.profileToProfile(image, theirs, ImageCms.createProfile("sRGB"), outputMode="RGB")
            assert made is not None
            return made, ()
        except (ImageCms.PyCMSError, OSError, ValueError):
            return image.convert("RGB"), ("its colour profile cannot be used, so its colours are taken as sRGB",)
    return image.convert("RGB"), ()
