"""Safety at load: endpoints that there are, checks that can be made here, names that are told apart."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from policies.language.schema_safety import ImageCheckSpec, SafetySpec, TextCheckSpec
from policies.language.source import Path
from router.errors import did_you_mean


def check_safety(
    safety: SafetySpec | None, moderators: Collection[str] | None, missing: Mapping[str, str]
) -> Iterator[tuple[Path, str]]:
    """Everything wrong with the checks. moderators None: not looked at; missing: checks that cannot be made -> why"""
    if safety is None:
        return
    stages: list[tuple[str, Sequence[TextCheckSpec | ImageCheckSpec]]] = [
        ("text", safety.text or ()),
        ("image", safety.image or ()),
    ]
    for stage, checks in stages:
        seen: dict[str, int] = {}
        for index, check in enumerate(checks):
            path: Path = ("safety", stage, index)
            if check.label in seen:
                yield (
                    (*path, "name") if check.name else (*path, "check"),
                    f"checks {seen[check.label] + 1} and {index + 1} are both named {check.label!r}; give one a name",
                )
            seen.setdefault(check.label, index)
            if check.kind in missing:
                yield (*path, "check"), f"{check.kind!r} cannot be made here: {missing[check.kind]}"
            if check.moderator is not None and moderators is not None and check.moderator not in moderators:
                hint = did_you_mean(check.moderator, moderators) or "; the config has none under safety.moderators"
                yield (*path, "moderator"), f"unknown moderator {check.moderator!r}{hint}"
