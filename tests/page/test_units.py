"""What of the page needs no browser, by node's own tests."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.page.test_bundle import WEB


def test_words_requests_masks_and_styles(tmp_path: Path) -> None:
    """The claims of web/tests/units.ts hold."""
    vite = WEB / "node_modules/vite/bin/vite.js"
    if shutil.which("node") is None or not vite.exists():
        pytest.skip("there is no node, or no web/node_modules (cd web && npm ci)")
    build = ["node", str(vite), "build", "--ssr", "tests/units.ts", "--outDir", str(tmp_path), "--logLevel", "error"]
    subprocess.run(build, cwd=WEB, check=True)
    done = subprocess.run(["node", "--test", str(tmp_path / "units.js")], cwd=WEB, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "# fail 0" in done.stdout and "# pass 0" not in done.stdout
