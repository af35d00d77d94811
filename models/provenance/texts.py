"""Text as files can hold it: JSON that keeps every character, and text without what XML or a terminal takes ill."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]")
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def dumps(value: Mapping[str, Any]) -> str:
    """JSON with sorted keys, as short as it can be. What XML cannot hold is escaped, so every string comes back."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=str)
    return _NOT_IN_XML.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def loads(text: str) -> dict[str, Any]:
    """The object of `dumps`; empty if it is none. The text may come from anyone."""
    try:
        found = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def visible(text: str) -> str:
    """Without the control characters that XML 1.0 cannot hold, and lone surrogates that UTF-8 cannot."""
    return _NOT_IN_XML.sub("\ufffd", text)


def printable(text: str) -> str:
    """As a terminal may show it: control characters and those that turn the direction of writing are escaped."""
    return _CONTROLS.sub(lambda found: found.group().encode("unicode_escape", "surrogatepass").decode("ascii"), text)
