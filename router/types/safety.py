"""What a policy's `safety` found of a request: of its prompt, and of what was made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Stage = Literal["text", "image"]
Action = Literal["block", "blur", "flag"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found. check: its name in the policy;   found: words, or categories;   score: 0..1, if it has one
    index: of the picture, None: it is about the prompt"""

    check: str
    stage: Stage
    action: Action
    found: tuple[str, ...] = ()
    score: float | None = None
    index: int | None = None

    def __str__(self) -> str:
        what = ", ".join(self.found) or "it"
        score = "" if self.score is None else f" {self.score:.2f}"
        where = "the prompt" if self.index is None else f"picture {self.index + 1}"
        return f"safety: {self.check} found {what}{score} in {where} ({self.action})"


@dataclass(frozen=True, slots=True)
class SafetyReport:
    """checked, skipped: `stage:check` of those that were made, and of those that a request may ask to leave out
    findings: in the order of the checks;   notes: checks that could not be made, where the policy allows that"""

    checked: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
