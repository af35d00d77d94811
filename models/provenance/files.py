"""Pictures to files that carry how they were made. The same input gives the same bytes: no clock, no host.

| | all of it | the line of A1111 | the mark of IPTC |
| PNG | iTXt `triptych`, XMP | tEXt or iTXt `parameters` | XMP |
| WebP, JPEG | XMP | EXIF's user comment | XMP |
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from models.provenance.comments import MOST_UNITS, exif_with, units
from models.provenance.parameters import details, parameters, prompts
from models.provenance.texts import dumps, visible
from models.provenance.xmp import jpeg_segments, packet
from router.errors import RequestError, did_you_mean

KEYWORD = "triptych"
SHORTENED = "shortened"
"""The key of the metadata that lists what a format had no room for; the metadata themselves are always whole."""

FORMATS = {"png": "PNG", "webp": "WEBP", "jpeg": "JPEG"}


def encode_image(
    pixels: NDArray[np.uint8],
    format: str = "png",
    metadata: Mapping[str, Any] | None = None,
    compression: int | None = None,
    mark: bool = False,
) -> bytes:
    """uint8 (height, width, 3) to a file's bytes.

    metadata:    JSON-like; `prompt` also becomes the picture's description; the mark is written, too
    compression: 0..100 as in OpenAI's API, the quality of WebP and JPEG (default 100: lossless WebP, JPEG quality 95).
                 PNG is always lossless; it is ignored there.
    mark:        whether a file without metadata says that a model made the picture
    Raises `RequestError` for an unknown format or a compression out of range.
    """
    if format not in FORMATS:
        raise RequestError(f"unknown output format {format!r}{did_you_mean(format, FORMATS)}", "output_format")
    if compression is not None and not 0 <= compression <= 100:
        raise RequestError(f"output compression {compression} is outside 0..100", "output_compression")
    carried = None if metadata is None and not mark else {} if metadata is None else metadata
    return ENCODERS[format](Image.fromarray(np.ascontiguousarray(pixels)), carried, compression)


def _png(image: Image.Image, metadata: Mapping[str, Any] | None, compression: int | None) -> bytes:
    info = PngImagePlugin.PngInfo()
    if metadata:
        info.add_itxt(KEYWORD, dumps(metadata))
        info.add_text("parameters", parameters(metadata))  # tEXt if Latin-1 can hold it, as A1111 writes it
    if metadata is not None:
        info.add_itxt("XML:com.adobe.xmp", packet(metadata or None).decode())
    # Level 1 is four times as fast as the default and a tenth larger.
    return _save(image, "PNG", pnginfo=info, compress_level=1)


def _webp(image: Image.Image, metadata: Mapping[str, Any] | None, compression: int | None) -> bytes:
    carried = {} if metadata is None else {"xmp": packet(metadata or None)}
    if metadata:
        carried["exif"] = exif_with(parameters(metadata))
    return _save(image, "WEBP", **webp_options(compression), **carried)


def _jpeg(image: Image.Image, metadata: Mapping[str, Any] | None, compression: int | None) -> bytes:
    carried: dict[str, bytes] = {}
    if metadata:
        comment = parameters(metadata)
        if units(comment) > MOST_UNITS:
            comment = _shorter(metadata)
            metadata = {**metadata, SHORTENED: ["parameters"]}
        carried["exif"] = exif_with(comment)
    if metadata is not None:
        segments = jpeg_segments(metadata or None)
        carried["extra"] = b"".join(b"\xff\xe1" + (len(one) + 2).to_bytes(2, "big") + one for one in segments)
    return _save(image, "JPEG", **jpeg_options(compression), **carried)


ENCODERS = {"png": _png, "webp": _webp, "jpeg": _jpeg}


def webp_options(compression: int | None) -> dict[str, Any]:
    """Pillow's options for a compression."""
    quality = 100 if compression is None else compression
    return {"quality": quality, "lossless": quality == 100, "method": 2}


def jpeg_options(compression: int | None) -> dict[str, Any]:
    """Pillow's options for a compression."""
    quality = 95 if compression is None else max(1, compression)
    return {"quality": quality, "subsampling": 0 if quality >= 90 else 2}


def _shorter(metadata: Mapping[str, Any]) -> str:
    """The line of A1111 with as much of the prompts as a JPEG has room for; the last line is kept whole."""
    last = _cut(details(metadata), MOST_UNITS // 2)
    told = prompts(metadata)
    each = (MOST_UNITS - units(last) - 8) // len(told)
    return "\n".join([*(_cut(one, each) for one in told), last])


def _cut(text: str, most: int) -> str:
    if units(text) <= most:
        return text
    return visible(text.encode("utf-16-be")[: 2 * (most - 1)].decode("utf-16-be", "ignore")) + "…"


def _save(image: Image.Image, name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()
