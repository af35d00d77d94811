"""Numbers of a table: the digits 0 to 9 with a decimal point, or a decimal comma where the whole table has one."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from router.errors import ArtifactError

_POINT = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+")
_MISSING = ("", "nan", "na", "n/a", "null", "none", "-", ".", "missing")


@dataclass(frozen=True)
class Decimals:
    """How the numbers of a table are written. comma: with a decimal comma"""

    comma: bool = False

    @classmethod
    def of(cls, texts: Iterable[str], delimiter: str) -> Decimals:
        """A decimal comma if it is in several numbers and a point in none. Where semicolons part the fields, one number
        will do, since that is what they are for; where commas do, none will."""
        given = [text.strip() for text in texts]
        commas = [text for text in given if _COMMA.fullmatch(text)]
        if delimiter == "," or not commas or any("." in text for text in given):
            return cls()
        if delimiter == ";":
            return cls(True)
        thousands = all(re.fullmatch(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}", text) for text in commas)
        return cls(len(commas) > 1 and not thousands)

    def number(self, text: str, name: str, column: int, where: str) -> float:
        """The number that a field holds. name, column (from 1) and where (file and line) are for the message.

        Raises `ArtifactError` for what is no number, is not finite, or may mean two numbers.
        """
        written = text.strip()
        if self.comma and _COMMA.fullmatch(written):
            written = written.replace(",", ".")
        if _POINT.fullmatch(written) and math.isfinite(value := float(written)):
            return value
        what, _, remedy = _why(text.strip(), self.comma).partition("; ")
        raise ArtifactError(f"{where}: {name} is {text[:60]!r}, {what} (column {column}); {remedy}")


def _why(text: str, comma: bool) -> str:
    if text.lower().strip("+-") in _MISSING:
        return "not a number; leave the row out if it is missing"
    if re.sub(r"^[+-]", "", text).lower() in ("inf", "infinity") or _POINT.fullmatch(text):
        return "which is not finite; leave the row out if it is missing"
    if _COMMA.fullmatch(text) and not comma:
        return "which may be a decimal comma or a typing error; write a decimal point"
    if any(c.isnumeric() and not c.isascii() for c in text):
        return "not a number in the digits 0 to 9; write it in those"
    return "not a number; write the digits 0 to 9 with a decimal point"
