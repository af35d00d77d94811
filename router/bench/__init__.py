"""A kit for routers of one's own. A router is any object with `score(prompts)`, which gives a matrix, prompts by
recipes; the higher, the better the recipe is expected to be. Any table of ratings judges it, beside what needs no
learning.

    crossed      learns from parts of a table and scores the others
    left_out     learns from other sets of ratings and scores one that it never saw
    judge        area under the curve of quality over expensive calls, with intervals; `difference` of two, paired
"""

from router.bench.baselines import HandRule, Length, Nearest, Ridge, Trained, pooled_gains
from router.bench.figures import Figure, Judged, difference, judge, mean_of
from router.bench.tasks import Carry, Learn, Router, Task, crossed, left_out

__all__ = [
    "Carry", "Figure", "HandRule", "Judged", "Learn", "Length", "Nearest", "Ridge", "Router", "Task", "Trained",
    "crossed", "difference", "judge", "left_out", "mean_of", "pooled_gains",
]  # fmt: skip
