"""Golden files of plans: for each recipe what it comes to, a line for each request, so that diffs are read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path


def write(file: Path, found: Mapping[str, Mapping[str, object]]) -> None:
    """Write what each recipe comes to, by title of the request."""
    lines = [
        f'"{name}": {{\n'
        + ",\n".join(f'"{title}": {json.dumps(plan, ensure_ascii=False)}' for title, plan in of.items())
        for name, of in found.items()
    ]
    file.write_text("{\n" + "\n},\n".join(lines) + "\n}\n}\n", "utf-8")
