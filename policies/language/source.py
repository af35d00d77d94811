"""The text of a policy file -> plain data that remembers where each value stood.

A small, closed reading of YAML: the scalars of YAML 1.2 (so `no` is a word and `1e-4` a number), no tags, no merge
keys, and bounds on size, nesting and count, so that no file can make the reader work for long.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

MAX_BYTES = 256 * 1024
MAX_NODES = 20_000
MAX_DEPTH = 24
MAX_NUMBER = 40  # characters
MAX_PROBLEMS = 100  # that are looked for; finding the nearest name for each takes a while

Path = tuple[str | int, ...]


@dataclass(frozen=True, order=True, slots=True)
class Problem:
    """One thing that is wrong with a file; line and column count from 1."""

    line: int
    column: int
    message: str

    def render(self, origin: str) -> str:
        return f"{origin}:{self.line}:{self.column}: {self.message}"


@dataclass(frozen=True)
class Source:
    """`data` as builtins (None if it could not be read), and the problems met while reading.

    values, keys: (line, column) of the value, and of the key, that a path leads to
    """

    data: Any
    problems: tuple[Problem, ...] = ()
    values: Mapping[Path, tuple[int, int]] = field(default_factory=dict, repr=False)
    keys: Mapping[Path, tuple[int, int]] = field(default_factory=dict, repr=False)

    def problem(self, path: Path, message: str, at_key: bool = False) -> Problem:
        """A problem at `path`, or at the nearest place around it that the file has."""
        if at_key and path in self.keys:
            return Problem(*self.keys[path], message)
        while path and path not in self.values:
            path = path[:-1]
        return Problem(*self.values.get(path, (1, 1)), message)


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2's core schema and no others."""

    yaml_implicit_resolvers = {}  # noqa: RUF012  (the name and type are PyYAML's)


_TAG = "tag:yaml.org,2002:"
for _kind, _pattern, _first in (
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^[-+]?[0-9]+$", list("-+0123456789")),
    (
        "float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        list("-+.0123456789"),
    ),
):
    _Loader.add_implicit_resolver(_TAG + _kind, re.compile(_pattern), _first)

_SCALARS: dict[str, Callable[[str], Any]] = {
    _TAG + "null": lambda text: None,
    _TAG + "bool": lambda text: text.lower() == "true",
    _TAG + "int": int,
    _TAG + "float": lambda text: float(re.sub(r"\.(?=inf|nan)", "", text.lower())),
    _TAG + "str": str,
}


def decode(content: bytes) -> Source | str:
    """The text of a file, or the reason why it is not text."""
    if len(content) > MAX_BYTES:
        return Source(None, (Problem(1, 1, f"the file is larger than {MAX_BYTES // 1024} kB; split the policy"),))
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8", "replace")
        byte = content[error.start]
        return Source(None, (_at(before, len(before), f"byte 0x{byte:02x} is not UTF-8; save the file as UTF-8"),))


def read(text: str) -> Source:
    """Read YAML into data with positions. Never raises: what is wrong stands in `problems`."""
    if len(text) > MAX_BYTES:
        return Source(None, (Problem(1, 1, f"the text is larger than {MAX_BYTES // 1024} kB; split the policy"),))
    try:
        _check_bounds(text)
        node = yaml.compose(text, Loader=_Loader)
    except _TooMuchError as error:
        return Source(None, (error.problem,))
    except yaml.reader.ReaderError as error:
        return Source(
            None, (_at(text, error.position, f"the character {_shown(error.character)} is not allowed in YAML"),)
        )
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = " ".join(part for part in (error.problem, error.context) if part)
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        return Source(None, (Problem(line, column, f"not valid YAML: {what}"),))
    if node is None:
        return Source(None, (Problem(1, 1, "the file is empty; it needs at least version, name and recipes"),))
    return _Builder().build(node)


def _shown(character: int | str) -> str:
    return f"U+{character if isinstance(character, int) else ord(character):04X}"


def _at(text: str, position: int, message: str) -> Problem:
    line = text.count("\n", 0, position) + 1
    return Problem(line, position - (text.rfind("\n", 0, position) + 1) + 1, message)


class _TooMuchError(Exception):
    def __init__(self, mark: Any, message: str) -> None:
        super().__init__(message)
        self.problem = Problem(mark.line + 1, mark.column + 1, message)


_TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels"
_TOO_MANY = f"more than {MAX_NODES} values (anchors counted as often as they are used)"


def _check_bounds(text: str) -> None:
    """Walk the events, which needs no recursion, before anything that recurses sees the text."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=_Loader)):
        opens = isinstance(event, yaml.CollectionStartEvent)
        depth += opens - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise _TooMuchError(event.start_mark, _TOO_DEEP)
        if count > 2 * MAX_NODES:
            raise _TooMuchError(event.start_mark, _TOO_MANY)


class _Builder:
    """Turns the node graph into data; counts every node as often as aliases repeat it."""

    def __init__(self) -> None:
        self.values: dict[Path, tuple[int, int]] = {}
        self.keys: dict[Path, tuple[int, int]] = {}
        self.problems: list[Problem] = []
        self.count = 0

    def build(self, node: yaml.Node) -> Source:
        try:
            data = self.value(node, ())
        except _TooMuchError as error:
            return Source(None, (error.problem,))
        return Source(data, tuple(self.problems), self.values, self.keys)

    def value(self, node: yaml.Node, path: Path) -> Any:
        self.count += 1
        if self.count > MAX_NODES:
            raise _TooMuchError(node.start_mark, _TOO_MANY)
        if len(path) > MAX_DEPTH:
            raise _TooMuchError(node.start_mark, _TOO_DEEP)
        self.values[path] = _position(node)
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and node.tag in _SCALARS:
            return self.scalar(node)
        self.complain(node, f"the tag {node.tag.replace(_TAG, '!!')} is not allowed; write the plain value")
        return None

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != _TAG + "str":
                self.complain(key_node, "a key must be text; put it in quotes")
                continue
            key = key_node.value
            if key in data:
                line = self.keys[(*path, key)][0]
                self.complain(key_node, f"the key {key!r} stands here a second time (first in line {line})")
                continue
            self.keys[(*path, key)] = _position(key_node)
            data[key] = self.value(value_node, (*path, key))
        return data

    def scalar(self, node: yaml.ScalarNode) -> Any:
        if node.tag in (_TAG + "int", _TAG + "float") and len(node.value) > MAX_NUMBER:
            self.complain(node, f"a number of {len(node.value)} characters; at most {MAX_NUMBER}")
            return 0
        try:
            return _SCALARS[node.tag](node.value)
        except ValueError:  # an explicit tag that does not fit, as in `!!int twelve`
            self.complain(node, f"{node.value!r} does not fit its tag {node.tag.replace(_TAG, '!!')}")
            return None

    def complain(self, node: yaml.Node, message: str) -> None:
        self.problems.append(Problem(*_position(node), message))


def _position(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1
