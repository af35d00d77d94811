"""Two readers of the `parameters` line, written from the grammar that their programs keep, as tests need them.

A1111's web UI (its `parse_generation_parameters`): the last line, if at least three pairs stand in it, is the settings,
`key: value` with commas between and JSON strings as values; before it, what follows a line that begins with `Negative
prompt:` is the negative prompt, the rest the prompt; lines are stripped. civitai: the first line that begins with
`Steps: ` is the settings, read letter by letter with quotation marks as brackets; what is left is divided at each
`Negative prompt:`; blank lines are dropped.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

PAIR = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')


@dataclass(frozen=True)
class Read:
    prompt: str
    negative: str
    settings: dict[str, str]


def by_a1111(text: str) -> Read:
    *lines, last = text.strip().split("\n")
    if len(PAIR.findall(last)) < 3:
        lines, last = [*lines, last], ""
    stripped = [line.strip() for line in lines]
    begin = next((i for i, line in enumerate(stripped) if line.startswith("Negative prompt:")), len(stripped))
    negative = [line.removeprefix("Negative prompt:").strip() for line in stripped[begin:]]
    settings = {key: json.loads(value) if value[:1] == '"' else value for key, value in PAIR.findall(last)}
    return Read("\n".join(stripped[:begin]), "\n".join(negative).lstrip("\n"), settings)


def by_civitai(text: str) -> Read | None:
    if "Steps: " not in text:
        return None
    lines = [line for line in text.split("\n") if line.strip()]
    details = next((line for line in lines if line.startswith("Steps: ")), "")
    if details:
        lines.remove(details)
    prompt, *negative = (part.strip() for part in "\n".join(lines).split("Negative prompt:"))
    return Read(prompt, " ".join(negative).strip(), _letter_by_letter(re.sub(r",\s*$", "", details)))


def _letter_by_letter(line: str) -> dict[str, str]:
    found: dict[str, str] = {}
    key, value, quoted = "", "", False
    for letter in line:
        if letter == '"':
            quoted = not quoted
        elif letter == ":" and not quoted:
            key, value = value.strip(), ""
        elif letter == "," and not quoted:
            found |= {key: value.strip()} if key else {}
            key, value = "", ""
        else:
            value += letter
    return {**found, key: value.strip()} if key else found
