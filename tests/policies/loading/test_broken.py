"""Every way to be wrong: the policies of broken/, each with what is to be said about it, and some too large to keep.

A file ends with a line `# expect LINE: MESSAGE` for each of its problems.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from deployments.known_names import known_of
from policies import load_policy, load_policy_text
from router.errors import PolicyError
from tests.policies.values import HEAD, QUALITY, RECIPES
from tests.router.cards import CATALOGUE

BROKEN = sorted((Path(__file__).parent / "broken").glob("*.yaml"))
EXPECTED = re.compile(rb"^# expect (\d+): (.+)$", re.MULTILINE)
KNOWN = replace(known_of(CATALOGUE, ["main"]), schedulers=("default", "dpmsolver++"))


def test_there_are_enough_of_them() -> None:
    """The corpus has at least 120 files, and each of them says what is expected."""
    assert len(BROKEN) >= 120
    assert [path.name for path in BROKEN if not EXPECTED.search(path.read_bytes())] == []


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.stem)
def test_every_mistake_is_named_with_its_line(path: Path, tmp_path: Path) -> None:
    """The file is refused with exactly the expected problems, each at its line: none is missed, nothing is added."""
    content = path.read_bytes()
    (tmp_path / "test.yaml").write_bytes(content)
    with pytest.raises(PolicyError) as caught:
        load_policy(tmp_path / "test.yaml", known=KNOWN)
    found = [problem.removeprefix(f"{tmp_path / 'test.yaml'}:").split(":", 2) for problem in caught.value.problems]
    expected = [(line.decode(), message.decode().strip()) for line, message in EXPECTED.findall(content)]
    assert [(line, message.strip()) for line, _, message in found] == expected


def refused(text: str) -> str:
    """The first problem of a text that must be refused before it costs time."""
    with pytest.raises(PolicyError) as caught:
        load_policy_text(text, "test.yaml", known=KNOWN)
    return caught.value.problems[0]


def test_large_files_are_not_read_to_the_end(tmp_path: Path) -> None:
    """A file of 5 MB is refused by its size, whatever stands in it, and a sound policy padded to 300 kB, too."""
    body = HEAD + RECIPES + QUALITY
    huge = tmp_path / "test.yaml"
    huge.write_text(body + "# " + "x" * 5_000_000)
    with pytest.raises(PolicyError, match=r"test.yaml:1:1: the file is larger than 256 kB; split the policy"):
        load_policy(huge, known=KNOWN)
    assert refused(body + "# " + "x" * 300_000) == "test.yaml:1:1: the text is larger than 256 kB; split the policy"


def test_bombs_are_refused_before_they_cost_time() -> None:
    """Nesting without end, values without number and aliases that multiply are refused by count."""
    assert "nested deeper than 24 levels" in refused(HEAD + "recipes: " + "[" * 100_000)
    assert "nested deeper than 24 levels" in refused(HEAD + "recipes: " + "{a: " * 50_000)
    assert "more than 20000 values" in refused(HEAD + "recipes: [" + "1," * 100_000 + "]")
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 40)]
    assert "more than 20000 values" in refused("\n".join(lines))
