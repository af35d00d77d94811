"""What a picture's file says, read so that no file can do harm: bounded bytes, pixels and text, and no XML parser."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from models.provenance.comments import EXIF_IFD, USER_COMMENT, comment_of
from models.provenance.files import FORMATS, KEYWORD
from models.provenance.texts import loads
from models.provenance.xmp import extended, metadata_in, source_type_in
from router.errors import RequestError

MOST_BYTES = 256 * 2**20
"""Of a file."""
MOST_PIXELS = 100_000_000
"""Of a picture that is decoded: 300 MB in memory."""
NAMES = {name: ours for ours, name in FORMATS.items()}


@dataclass(frozen=True)
class PictureFile:
    """What a file says, besides its pixels.

    texts:       of PNG, by keyword, and of others what EXIF's user comment has, as `parameters`
    xmp:         the packet and its extension, as they stand
    frames:      more than one if it is an animation;   metadata: ours; empty if there is nothing of ours
    source_type: IPTC's digital source type, "" if there is none
    """

    format: str
    width: int
    height: int
    frames: int = 1
    texts: Mapping[str, str] = field(default_factory=dict)
    xmp: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    source_type: str = ""


def read_metadata(data: bytes) -> dict[str, Any]:
    """What `encode_image` wrote into a file; empty if there is nothing of ours. `RequestError` if it is no picture."""
    return dict(read_file(data).metadata)


def read_file(data: bytes) -> PictureFile:
    """All that a file says. Raises `RequestError` if it is no picture, is cut off, or is larger than is read."""
    with opened(data) as image:
        frames = int(getattr(image, "n_frames", 1))
        texts = _texts(image)
        xmp = _packets(image)
        width, height = image.size
        name = NAMES[str(image.format)]
    metadata = loads(texts.get(KEYWORD) or metadata_in(xmp))
    source_type = next(filter(None, map(source_type_in, xmp)), "")
    return PictureFile(name, width, height, frames, texts, xmp, metadata, source_type)


def read_pixels(data: bytes) -> NDArray[np.uint8]:
    """uint8 (height, width, 3). Raises `RequestError` as `read_file` does, and for an animation."""
    with opened(data) as image:
        if (frames := int(getattr(image, "n_frames", 1))) > 1:
            raise RequestError(f"it is an animation of {frames} frames; only a single picture can be compared", "image")
        return np.asarray(image.convert("RGB"))


@contextmanager
def opened(data: bytes) -> Iterator[Image.Image]:
    """The picture in a file; whatever goes wrong with it inside is a `RequestError`."""
    if len(data) > MOST_BYTES:
        raise RequestError(f"it has more than {MOST_BYTES >> 20} MiB; that much is not read", "image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the bound below is ours
            with Image.open(io.BytesIO(data), formats=list(NAMES)) as image:
                width, height = image.size
                if width * height > MOST_PIXELS:
                    raise RequestError(f"it has {width}x{height} pixels; at most {MOST_PIXELS:,} are read", "image")
                yield image
    except UnidentifiedImageError:
        raise RequestError("it is not a PNG, WebP or JPEG picture", "image") from None
    except Image.DecompressionBombError:
        raise RequestError(f"it has too many pixels; at most {MOST_PIXELS:,} are read", "image") from None
    except (OSError, ValueError, SyntaxError, EOFError, KeyError, IndexError, TypeError, OverflowError) as error:
        raise RequestError(f"it is damaged or cut off: {error}", "image") from None
    except Exception as error:  # struct.error, zlib.error: of the decoders' own
        if type(error).__module__ not in ("struct", "zlib"):
            raise
        raise RequestError(f"it is damaged or cut off: {error}", "image") from None


def _texts(image: Image.Image) -> dict[str, str]:
    if image.format == "PNG":
        # The property reads on to the end of the file: programs may write their texts behind the pixels.
        found: Mapping[Any, Any] = image.text  # type: ignore[attr-defined]
        return {str(key): str(value) for key, value in found.items()}
    comment = comment_of(image.getexif().get_ifd(EXIF_IFD).get(USER_COMMENT))
    return {"parameters": comment} if comment else {}


def _packets(image: Image.Image) -> tuple[str, ...]:
    raw = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    main = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw or "")
    if not main:
        return ()
    segments = [data for name, data in getattr(image, "applist", ()) if name == "APP1"]
    rest = extended(main, segments)
    return (main, rest) if rest else (main,)
