"""Two policies on the prompts of a file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deployments.offline.rehearsal import Rehearsal
from deployments.operating.differences import Difference
from policies import Policy
from router.errors import NoRecipeError, OverloadedError, RequestError
from router.types import Estimate


def read_bodies(path: Path) -> list[dict[str, Any]]:
    """Request bodies: a line is a prompt, or a JSON object as over the wire; empty lines and `#` lines are left out.

    Raises `RequestError` with file and line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    bodies = []
    for number, line in enumerate((line.strip() for line in lines), start=1):
        if line.startswith("{"):
            try:
                bodies.append(json.loads(line))
            except ValueError as error:
                raise RequestError(f"{path}:{number}: not valid JSON: {error}") from None
        elif line and not line.startswith("#"):
            bodies.append({"prompt": line})
    if not bodies:
        raise RequestError(f"{path}: there is no prompt in it")
    return bodies


def differences(
    before: Policy, after: Policy, bodies: Sequence[Mapping[str, Any]], rehearsal: Rehearsal
) -> list[Difference]:
    """Both decisions on every request."""

    def chosen(policy: Policy, body: Mapping[str, Any]) -> Estimate | None:
        try:
            route = rehearsal.route(policy, body)
        except (NoRecipeError, OverloadedError):
            return None
        return route.estimates[route.decision.recipe]

    return [Difference(str(body.get("prompt")), chosen(before, body), chosen(after, body)) for body in bodies]
