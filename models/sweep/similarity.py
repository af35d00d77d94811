"""How like another picture a picture is: PSNR and SSIM, both higher for the more alike."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

SAME_DB = 100.0
"""PSNR of pictures that are the same to the last bit, for which it is not defined."""


def psnr(one: Pixels, other: Pixels) -> float:
    """Peak signal to noise ratio in dB, of uint8 (H, W, 3)."""
    error = float(np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2))
    return SAME_DB if error == 0 else min(SAME_DB, 10 * math.log10(255**2 / error))


def ssim(one: Pixels, other: Pixels) -> float:
    """Structural similarity of the luminance, up to 1 (Wang et al. 2004, https://doi.org/10.1109/TIP.2003.819861):
    means, variances and covariance under a Gaussian of 1.5 pixels, with the paper's constants."""
    x, y = (cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float64) for picture in (one, other))

    def mean(of: NDArray[np.float64]) -> NDArray[np.float64]:
        return cv2.GaussianBlur(of, (11, 11), 1.5)

    mean_x, mean_y = mean(x), mean(y)
    var_x, var_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
    both = mean(x * y) - mean_x * mean_y
    low, high = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    found = (2 * mean_x * mean_y + low) * (2 * both + high)
    found /= (mean_x**2 + mean_y**2 + low) * (var_x + var_y + high)
    return float(found.mean())
