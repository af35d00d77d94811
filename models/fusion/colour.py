"""sRGB and linear light: what is mixed as light adds up must be mixed in linear light, or it comes out too dark."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


def to_linear(pixels: Pixels) -> Floats:
    """uint8 sRGB to float32 linear light in 0..1 (IEC 61966-2-1)."""
    return _LINEAR[pixels]


def to_srgb(linear: Floats) -> Pixels:
    """Linear light in 0..1 to uint8 sRGB, clipped."""
    share = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * np.maximum(linear, 0) ** (1 / 2.4) - 0.055)
    return clip(share * 255)


def clip(pixels: Floats) -> Pixels:
    """Rounded and confined to 0..255."""
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _table() -> Floats:
    share = np.arange(256, dtype=np.float64) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4).astype(np.float32)


_LINEAR = _table()
