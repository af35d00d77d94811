"""Which steps can be made in one call of their model, and how many at once it pays to make."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence

from router.cost.model import CostModel
from router.types import Latents, Mask, Picture, Step, Value

ENOUGH = 3  # measured batches of a size before it is judged
PAYS = 0.95  # twice as many at once pay if one picture then takes less than this of its seconds
LOOK_AGAIN = 50  # turns after which a size that did not pay is tried once more, since machines and loads change

OF_ITS_OWN = ("prompt", "negative_prompt", "seed")  # settings that may differ within a batch


def batch_key(step: Step, inputs: Sequence[Value]) -> Hashable | None:
    """Steps with the same key can be made in one call; those with None only alone.

    Everything must agree but prompt and seed: model, size, steps, guidance, scheduler, the shapes of what is continued,
    and whether there is a negative prompt at all. Tiles are made one after the other anyway, and a pipeline
    draws after one reference.
    """
    if step.model is None or "tiles" in step.settings or "reference" in step.settings:
        return None
    settings = tuple(sorted((key, value) for key, value in step.settings.items() if key not in OF_ITS_OWN))
    shapes = len(inputs) if step.kind == "score" else tuple(_shape(value) for value in inputs)
    return step.model, step.kind, step.produces, bool(step.settings.get("negative_prompt")), settings, shapes


def _shape(value: Value) -> Hashable:
    if isinstance(value, Picture):
        return value.pixels.shape
    if isinstance(value, Mask):
        return value.data.shape
    if isinstance(value, Latents):
        return value.space, value.data.shape, value.denoised
    return len(value.values)


class BatchSizes:
    """How many pictures of a step to make at once: from 1 upward by twice as many as long as that pays, by what `costs`
    has measured of such steps. Safe to use from several threads.

    most: never more than so many, by model
    """

    def __init__(self, costs: CostModel, most: Callable[[str], int]) -> None:
        self._costs = costs
        self._most = most
        self._too_many: dict[str, int] = {}
        self._turns: dict[str, int] = {}
        self._lock = threading.Lock()

    def best(self, step: Step) -> int:
        """The size to go for now: the best of those measured, or one about which too little is known."""
        law, costs = self._costs.law(step), self._costs
        with self._lock:
            limit = min(self._most(str(step.model)), self._too_many.get(law, 1 << 30) - 1)
            size = 1
            while 2 * size <= limit and costs.measured(step, size) >= ENOUGH:
                if costs.measured(step, 2 * size) < ENOUGH:
                    return 2 * size
                if costs.seconds(step, batch=2 * size) > PAYS * costs.seconds(step, batch=size):
                    self._turns[law] = self._turns.get(law, 0) + 1
                    return 2 * size if self._turns[law] % LOOK_AGAIN == 0 else size
                size *= 2
            return size

    def ran_out_of_memory(self, step: Step, size: int) -> None:
        """So many pictures of steps like this one are too many for the memory: never again."""
        with self._lock:
            law = self._costs.law(step)
            self._too_many[law] = max(2, min(size, self._too_many.get(law, size)))
