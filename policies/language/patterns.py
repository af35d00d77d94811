"""Regular expressions over prompts, in linear time: RE2 (https://github.com/google/re2/wiki/Syntax).

Python's own engine backtracks, so that `(a+)+$` takes years on a hostile prompt. RE2 does not, and lacks what cannot be
done without: look-around, back references, possessive repeats. Its `\\b`, `\\w` and `\\d` know ASCII only.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import re2

MAX_PATTERN = 200  # characters
MAX_TEXT = 2_000  # characters of a prompt that are looked at
MAX_PROGRAM = 128 * 1024  # bytes of a compiled pattern; the largest looks at a prompt for some ten milliseconds

_WORD_BORDER = re.compile(r"(?<!\\)(?:\\\\)*\\[bB]")
_FOREIGN = ("invalid perl operator", "invalid escape sequence", "bad repetition operator")


def check_pattern(pattern: str) -> str:
    """The pattern itself; raises `ValueError` if it is too long or too large, or RE2 does not know what it asks for."""
    if len(pattern) > MAX_PATTERN:
        raise ValueError(f"the pattern has {len(pattern)} characters; at most {MAX_PATTERN}")
    if not pattern.isascii() and _WORD_BORDER.search(pattern):
        raise ValueError(
            r"\b knows the letters a to z only and would not find the others; let a word begin with (^|\PL) "
            r"and end with (\PL|$)"
        )
    try:
        _compiled(pattern)
    except (re2.error, UnicodeEncodeError) as error:
        said = error.args[0].decode("utf-8", "replace") if isinstance(error, re2.error) else str(error)
        if said.startswith("pattern too large"):
            raise ValueError("the pattern is too large; write smaller bounds ('.{0,40}', not '.{0,900}')") from None
        hint = "; look-around, back references and possessive repeats are not supported"
        raise ValueError(f"not a regular expression: {said}{hint if said.startswith(_FOREIGN) else ''}") from None
    return pattern


def matches(pattern: str, text: str) -> bool:
    """Whether the pattern occurs in the first `MAX_TEXT` characters, upper and lower case alike."""
    return _compiled(pattern).search(text[:MAX_TEXT].encode("utf-8", "replace")) is not None


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> Any:
    options = re2.Options()
    options.case_sensitive = False
    options.never_capture = True
    options.log_errors = False
    options.max_mem = MAX_PROGRAM
    return re2.compile(pattern, options)
