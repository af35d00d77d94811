"""Regular expressions over prompts that cannot run for long.

Python's engine backtracks, so a pattern like `(a+)+$` takes years on a hostile prompt. A pattern is therefore weighed
before it is accepted: an upper bound of the ways in which it can match from one place, times the places.
"""

from __future__ import annotations

import re
from functools import lru_cache
from re import _constants as ops  # type: ignore[attr-defined]  # the standard library's own parser, without a stub
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

MAX_PATTERN = 200  # characters
MAX_TEXT = 2_000  # characters of a prompt that are looked at
MAX_WORK = 1e7  # tries; well under a second

_REPEATS = {ops.MAX_REPEAT, ops.MIN_REPEAT, ops.POSSESSIVE_REPEAT}


def check_pattern(pattern: str) -> str:
    """The pattern itself; raises `ValueError` if it is too long, malformed or could take too long."""
    if len(pattern) > MAX_PATTERN:
        raise ValueError(f"the pattern has {len(pattern)} characters; at most {MAX_PATTERN}")
    try:
        parsed = parser.parse(pattern, re.IGNORECASE)
        re.compile(pattern, re.IGNORECASE)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"not a regular expression: {error}") from None
    if _ways(parsed) * MAX_TEXT > MAX_WORK:
        raise ValueError(
            "the pattern could take too long on a hostile prompt; bound its repeats ('.{0,40}' instead of '.*') "
            "and do not repeat a group that contains repeats or alternatives"
        )
    return pattern


def matches(pattern: str, text: str) -> bool:
    """Whether the pattern occurs in the first `MAX_TEXT` characters, upper and lower case alike."""
    return _compiled(pattern).search(text[:MAX_TEXT]) is not None


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


def _ways(parsed: Any) -> float:
    """Upper bound of the ways in which a parsed pattern can match from one place of a text of `MAX_TEXT`."""
    ways = 1.0
    for op, argument in parsed:
        if op in _REPEATS:
            _, most, body = argument
            times, inner = min(int(most), MAX_TEXT), _ways(body)
            ways *= times + 1 if inner == 1 else (inner + 1) ** min(times, 64)
        elif op is ops.BRANCH:
            ways *= sum(_ways(branch) for branch in argument[1])
        elif op in (ops.SUBPATTERN, ops.ASSERT, ops.ASSERT_NOT):
            ways *= _ways(argument[-1])
        elif op is ops.ATOMIC_GROUP:
            ways *= _ways(argument)
        elif op not in (ops.LITERAL, ops.NOT_LITERAL, ops.ANY, ops.IN, ops.AT, ops.CATEGORY):
            raise ValueError("back references and conditions on groups are not supported in patterns")
    return ways
