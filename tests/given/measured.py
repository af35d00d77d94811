"""A process of its own that cleans bad uploads one by one and prints, as JSON, what became of each and what it took.

Run as `python -m tests.given.measured`. Its address space is bounded as well: whatever allocated beyond would fail with
another error than the one that is due.
"""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path

from PIL import Image, ImageCms

from models.given.cleaning import BYTES_PER_PIXEL, ORIENTATION, Bounds, cleaned
from router.errors import RequestError
from tests.given.bad_uploads import BAD, PNG, saved

BOUNDS = Bounds(max_bytes=2_000_000, max_pixels=1_000_000, timeout_s=5.0)
LIMIT = BYTES_PER_PIXEL * BOUNDS.max_pixels + 2 * BOUNDS.max_bytes
"""Bytes that a file within the bounds may take."""


def peak() -> int:
    """The most memory that this process had since the last `reset`, bytes."""
    (line,) = (one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def reset() -> int:
    """Forget the peak; what is in use now, bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def largest() -> dict[str, bytes]:
    """Sound pictures as large as is taken, each with the most that there is to do."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    flat = Image.new("RGBA", (1000, 1000), (90, 120, 60, 128))
    told = {"exif": exif, "icc_profile": srgb}
    return {
        "the largest PNG": saved(flat, "PNG", **told),
        "the largest WebP": saved(flat, "WEBP", lossless=True, **told),
        "the largest JPEG": saved(flat.convert("CMYK"), "JPEG", progressive=True, exif=exif),
    }


def main() -> None:
    cleaned(PNG, BOUNDS)  # decoders are loaded once
    sound = largest()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2 * LIMIT, used + 2 * LIMIT))
    found = {}
    for name, data in {**{name: data for name, (data, _) in BAD.items()}, **sound}.items():
        before, began = reset(), time.perf_counter()
        try:
            cleaned(data, BOUNDS)
            told = {"code": "", "message": "it was taken"}
        except RequestError as error:
            told = {"code": error.code, "message": error.message}
        found[name] = {**told, "bytes": peak() - before, "seconds": time.perf_counter() - began}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
