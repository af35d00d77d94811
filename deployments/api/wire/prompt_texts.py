"""Prompts as people paste them: invisible characters go; styles that they name are taken out; syntax of other
programs, which is mere text here, is named.

Nothing is done in silence: the functions say in words what a client should know.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping

from router.errors import RequestError

# Blank although Unicode counts them as letters, marks or symbols: fillers, joiners of glyphs, the empty Braille cell.
BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180e\u180f\u2800\u3164\uffa0")
JOINERS = frozenset("\u200c\u200d")  # between letters of scripts that join, and in emoji, they carry meaning
_JOINED_AFTER = frozenset(("Lo", "Mn", "Mc", "So", "Sk"))
_JOINED_BEFORE = frozenset(("Lo", "Mn", "Mc", "So"))
_SHOWN = 4  # characters that a warning names

_FLAGS = (
    "ar|aspect|v|version|niji|no|s|stylize|style|q|quality|seed|chaos|c|iw|tile|weird|w|stop|raw|sref|cref|cw|sw|p|hd|"
    "uplight|repeat|r|steps|cfg|neg|negative|W|H|n|video|turbo|fast|relax"
)
_NETWORKS = r"<(?:lora|lyco|hypernet|embedding|ti):[^<>\n]{1,200}>"
_WEIGHT = r"[(\[][^()\[\]\n]{0,200}[^\W\d][^()\[\]\n\d]{0,20}:\s?-?\d{0,2}(?:\.\d+)?(?<=\d)\s?[)\]]"
_SIGNS = r"(?:\b[a-z]{2,}\+{2,}|\)(?:\++|-+))(?=[\s,.;)]|$)|::-?\d+(?:\.\d+)?"  # a C++ is none
_BRACKETS = r"\(\([^()\n]{1,200}\)\)|\[\[[^\[\]\n]{1,200}\]\]|\{\{[^{}\n]{1,200}\}\}"
_CHOICE = r"\{[^{}\n|]{1,80}\|[^{}\n]{1,80}\}|\b__[\w/\-]{1,60}__\b"
_PARAMETER = rf"(?:(?<=\s)|^)(?:--|—)(?:{_FLAGS})\b(?:[ =]?[^\s\-]\S*)?"

NAMED = re.compile(r"<(?:lora|lyco):([^<>:\n]{1,64})(?::([^<>\n]{0,64}))?>", re.IGNORECASE)
"""A style in a prompt, as A1111 writes a LoRA: `<lora:film:0.7>`; without a weight it is 1."""

_UNWEIGHTED = "words have no weights"
_ONE_TEXT = "a prompt is one text"
_FIELDS = "parameters are fields of the request, such as size, seed and negative_prompt"
FOREIGN: tuple[tuple[str, re.Pattern[str], str], ...] = (
    ("an extra network", re.compile(_NETWORKS, re.IGNORECASE), "networks are not loaded from a prompt"),
    ("an embedding", re.compile(r"\bembedding:[\w.\-/\\]{1,100}"), "embeddings are not loaded from a prompt"),
    ("a weight", re.compile(_WEIGHT), _UNWEIGHTED),
    ("a weight", re.compile(_SIGNS), _UNWEIGHTED),
    ("a weight", re.compile(_BRACKETS), _UNWEIGHTED),
    ("alternating words", re.compile(r"\[[^\[\]\n|]{1,80}\|[^\[\]\n]{1,80}\]"), "words stay from step to step"),
    ("a choice of words", re.compile(_CHOICE), "wildcards are not filled in"),
    ("a break between chunks", re.compile(r"\bBREAK\b"), _ONE_TEXT),
    ("a combination of prompts", re.compile(r"(?<=[a-z,)] )AND(?= [a-z(])"), _ONE_TEXT),
    ("a parameter", re.compile(_PARAMETER), _FIELDS),
)
"""(what it is, pattern, why it does nothing here) of what Stable Diffusion's web UIs, ComfyUI and Midjourney read."""


def cleaned(text: str, field: str) -> tuple[str, list[str]]:
    """The text in Unicode's composed form (NFC) without what nobody sees, and warnings that say what was done.

    Out go control characters (but tab and line breaks), zero-width characters, byte order marks, direction marks, tags,
    and blank letters; a joiner stays between letters or emoji that it joins. A text of nothing visible becomes "".
    """
    if text.isascii() and text.isprintable():
        return text, []
    out = [k for k, character in enumerate(text) if _invisible(text, k, character)]
    gone = [text[k] for k in out]
    left = frozenset(out)
    kept = "".join(" " if ch in "\u2028\u2029\x85" else ch for k, ch in enumerate(text) if k not in left)
    composed = unicodedata.normalize("NFC", kept)
    warnings = []
    if gone:
        names = list(dict.fromkeys(f"U+{ord(character):04X}" for character in gone))
        more = f" and {len(names) - _SHOWN} more kinds" if len(names) > _SHOWN else ""
        count = f"{len(gone)} invisible character{'s' if len(gone) > 1 else ''}"
        verb = "were" if len(gone) > 1 else "was"
        warnings.append(f"{field}: {count} {verb} left out ({', '.join(names[:_SHOWN])}{more})")
    if composed != kept:
        warnings.append(f"{field}: letters and their accents were put together (Unicode's NFC)")
    return (composed if any(map(_visible, composed)) else ""), warnings


def styles_named(text: str, known: Mapping[str, bool]) -> tuple[str, dict[str, float], list[str]]:
    """The prompt without the styles that it wears, those with their weights, and warnings about what stays text.

    known: styles by id, and whether a prompt may name them. As soon as it may name one, a name that is not known is
    taken out, too, and refused where those of the field `style` are.
    Raises `RequestError` for a weight that is no number, and for a name that is given twice.
    """
    worn: dict[str, float] = {}
    warnings: list[str] = []
    left, at = "", 0
    for match in NAMED.finditer(text):
        name = match[1].strip()
        if not known.get(name, any(known.values())):
            if name in known:
                warnings.append(
                    f"prompt: {_short(match[0])!r} stays text, since the card of the style {name!r} does not say that "
                    'prompts may name it (in_prompts); ask for it by the field "style"'
                )
            continue
        if name in worn:
            raise RequestError(f"prompt: the style {name!r} is named twice; name it once", "prompt", "invalid_value")
        try:
            worn[name] = 1.0 if match[2] is None else float(match[2])
        except ValueError:
            raise RequestError(
                f"prompt: {_short(match[0])!r} is not <lora:NAME:WEIGHT> with one number, such as <lora:{name}:0.7>",
                "prompt",
                "invalid_value",
            ) from None
        left, at = _closed_up(left, text[at : match.start()]) if at else text[: match.start()], match.end()
    return _closed_up(left, text[at:]) if worn else text, worn, warnings


def _closed_up(before: str, after: str) -> str:
    """Two parts of a prompt between which something was taken out, with one space or comma where there were two."""
    before, after = before.rstrip(), after.lstrip()
    if not before or before.endswith(","):
        after = after.removeprefix(",").lstrip()
    if not after:
        return before.removesuffix(",").rstrip()
    return before + (" " if before and after[0] not in ",.;" else "") + after


def foreign_syntax(text: str, field: str, known: Collection[str] = ()) -> list[str]:
    """A warning for each syntax of other programs that the text holds. Models read all of it as mere letters.

    known: styles, of whose names in the text `styles_named` has spoken
    """
    text = NAMED.sub(lambda match: " " if match[1].strip() in known else match[0], text)
    found: dict[str, str] = {}
    for what, pattern, why in FOREIGN:
        if (match := pattern.search(text)) is not None and what not in found:
            found[what] = f"{field}: {_short(match.group().strip())!r} looks like {what} of another program; {why} here"
    return [f"{warning}, so the model reads it as letters" for warning in found.values()]


def _invisible(text: str, k: int, character: str) -> bool:
    if character in BLANK:
        return True
    category = unicodedata.category(character)
    if category == "Cc":
        return character not in "\t\n\r\x85\0"  # a NUL is refused
    if category != "Cf":
        return False
    if character in JOINERS and 0 < k < len(text) - 1:
        before, after = unicodedata.category(text[k - 1]), unicodedata.category(text[k + 1])
        return not (before in _JOINED_AFTER and after in _JOINED_BEFORE)
    return True


def _visible(character: str) -> bool:
    category = unicodedata.category(character)
    return not character.isspace() and (category[0] in "LNPS" or category in ("Cs", "Cc"))  # which are refused


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."
