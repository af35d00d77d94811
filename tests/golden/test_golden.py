"""The golden files: what was decided and drawn before, is decided and drawn now."""

from __future__ import annotations

import gzip
import io
import json

import numpy as np
import pytest
from PIL import Image

from tests.golden import record
from tests.golden.requests import PRESETS, bodies

TOLERANCE = 1e-9


def test_decisions_are_those_of_before() -> None:
    """Five hundred requests under five presets get the recipe, estimates (within 1e-9), reasons and plans of before."""
    before = json.loads(gzip.decompress(record.DECISIONS.read_bytes()))
    asked = [(body["prompt"], policy) for body in bodies() for policy in PRESETS]
    now = json.loads(json.dumps(record.decisions(record.embedder())))
    assert len(now) == len(before) == len(asked)
    different = [
        (which, _difference(a, b)) for which, a, b in zip(asked, before, now, strict=True) if _difference(a, b)
    ]
    assert not different, f"{len(different)} of {len(asked)} differ, the first: {different[0]}"


def _difference(before: object, now: object, where: str = "") -> str:
    """Where two records differ first, and how; "" if they do not."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in before.keys() | now.keys():
            if found := _difference(before.get(key), now.get(key), f"{where}.{key}"):
                return found
        return ""
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        pairs = enumerate(zip(before, now, strict=True))
        return next((found for k, (a, b) in pairs if (found := _difference(a, b, f"{where}[{k}]"))), "")
    if isinstance(before, float) and isinstance(now, float | int):
        return "" if abs(before - now) <= TOLERANCE * max(1.0, abs(before)) else f"{where}: {before!r}, now {now!r}"
    return "" if before == now else f"{where}: {before!r}, now {now!r}"


@pytest.mark.shipped_weights
def test_pictures_are_those_of_before() -> None:
    """A request for each kind of recipe gives the same pixels; on another processor, all but the same."""
    before = json.loads(record.DRAWN.read_text())
    now = record.drawn()
    assert set(now) == set(before["pictures"])
    sheet = np.asarray(Image.open(record.SHEET).convert("RGB"), np.int16)
    same_machine = record.machine() == before["machine"]
    for k, (name, (png, _)) in enumerate(now.items()):
        pixels = np.asarray(Image.open(io.BytesIO(png)), np.int16)
        height, width = pixels.shape[:2]
        if same_machine:
            assert record._pixels_digest(png) == before["pictures"][name]["pixels"], name
        assert np.abs(pixels - sheet[:height, 128 * k : 128 * k + width]).mean() < 2, name
