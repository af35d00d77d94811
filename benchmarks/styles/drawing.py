"""Pictures of the embedded SD1.5, as the studies of its styles ask for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.types import Picture, Scalar, Step, StepResult

BATCH = 20


def draw_all(engine: Any, asked: Sequence[Mapping[str, Scalar]]) -> list[NDArray[np.uint8]]:
    """A picture (height, width, 3) for each of these settings of a `generate` step, in order."""
    made = []
    for start in range(0, len(asked), BATCH):
        some = asked[start : start + BATCH]
        steps = [Step("made", "generate", "sd15", (), "image", settings) for settings in some]
        for result in engine.run_batch(steps, [()] * len(steps)):
            assert isinstance(result, StepResult) and isinstance(result.value, Picture), result
            made.append(result.value.pixels)
    return made
