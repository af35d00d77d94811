"""Mistakes that one makes in Python, one at a time: a flipped comparison, another operator or constant, `min` for
`max`, `and` for `or`, a dropped `not`, statement, lock or `finally`.

What no test can be expected to notice is left alone: annotations, docstrings, messages of errors, logging, how values
are shown and stored, how many results a cache keeps (`maxsize`), and `strict` of a `zip`, which only asserts that two
things are equally long that are so by construction.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Edit = Callable[[ast.AST, ast.AST], None]
"""Changes a node of a tree, which it is given, too."""

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
}  # fmt: skip
CALLS = {"min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True)
class Mistake:
    """node, change: its place among the nodes of the tree, and among the changes of the node;   lines: first and last
    of what must run for it to be noticed;   what: in words"""

    node: int
    change: int
    line: int
    lines: tuple[int, int]
    what: str


def mistakes(source: str) -> Iterator[Mistake]:
    """Every mistake that can be put into a source, in order."""
    tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    quiet = {id(child) for node in nodes for child in _unlooked(node)}
    runs = _lines(tree)
    for number, node in enumerate(nodes):
        if id(node) in quiet:
            continue
        line = getattr(node, "lineno", 0)
        for place, (what, _) in enumerate(_changes(node)):
            yield Mistake(number, place, line, runs[id(node)], what)


def made(source: str, mistake: Mistake) -> ast.Module:
    """The tree of a source with a mistake, at the lines of the source."""
    tree = ast.parse(source)
    node = list(ast.walk(tree))[mistake.node]
    _, edit = list(_changes(node))[mistake.change]
    edit(node, tree)
    return ast.fix_missing_locations(tree)


def _lines(tree: ast.Module) -> dict[int, tuple[int, int]]:
    """The first and the last line of each node's own statement: of a compound one, of its head."""
    lines: dict[int, tuple[int, int]] = {}

    def visit(node: ast.AST, within: tuple[int, int]) -> None:
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            within = node.lineno, body[0].lineno if isinstance(body, list) and body else node.end_lineno or node.lineno
        lines[id(node)] = within
        for child in ast.iter_child_nodes(node):
            visit(child, within)

    visit(tree, (0, 0))
    return lines


def _unlooked(node: ast.AST) -> Iterator[ast.AST]:
    for field in ("annotation", "returns"):
        if (inner := getattr(node, field, None)) is not None:
            yield from ast.walk(inner)
    if isinstance(node, ast.keyword) and node.arg in ("repr", "slots", "maxsize"):
        yield from ast.walk(node)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "zip":
        for keyword in node.keywords:
            yield from ast.walk(keyword)
    if isinstance(node, ast.JoinedStr | ast.Raise):
        yield from ast.walk(node)
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        yield from ast.walk(node)
    if isinstance(node, ast.Expr) and "logger" in ast.dump(node)[:200]:
        yield from ast.walk(node)
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
        yield from ast.walk(node)


def _changes(node: ast.AST) -> Iterator[tuple[str, Edit]]:
    """(in words, the edit) of every mistake that can be made at one node."""
    if isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            if (other := COMPARISONS.get(type(operator))) is not None:
                words = f"{type(operator).__name__} -> {other.__name__}"
                yield words, _put(lambda n, p=place, o=other: n.ops.__setitem__(p, o()))
    elif isinstance(node, ast.BinOp | ast.AugAssign) and (swap := OPERATORS.get(type(node.op))) is not None:
        yield f"{type(node.op).__name__} -> {swap.__name__}", _put(lambda n: setattr(n, "op", swap()))
    elif isinstance(node, ast.BoolOp):
        word = ast.Or if isinstance(node.op, ast.And) else ast.And
        yield f"{type(node.op).__name__} -> {word.__name__}", _put(lambda n: setattr(n, "op", word()))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not):
        yield f"{type(node.op).__name__} dropped", _replaced(lambda n: n.operand)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLS:
        yield f"{node.func.id} -> {CALLS[node.func.id]}", _put(lambda n: setattr(n.func, "id", CALLS[n.func.id]))
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float, bool):
        new = (not node.value) if isinstance(node.value, bool) else node.value + 1  # type: ignore[operator]
        yield f"{node.value!r} -> {new!r}", _put(lambda n: setattr(n, "value", new))
    elif isinstance(node, ast.IfExp):
        yield "branches swapped", _put(lambda n: n.__dict__.update(body=n.orelse, orelse=n.body))
    elif isinstance(node, ast.If) and not _negated_inside(node.test):
        yield "condition negated", _put(lambda n: setattr(n, "test", ast.UnaryOp(ast.Not(), n.test)))
    if isinstance(node, ast.Expr | ast.AugAssign | ast.Continue | ast.Break):
        yield "statement dropped", _replaced(lambda n: ast.Pass())
    if isinstance(node, ast.With) and "lock" in ast.dump(node.items[0]):
        yield "lock dropped", _replaced(lambda n: ast.If(ast.Constant(True), n.body, []))
    if isinstance(node, ast.Try) and node.finalbody:
        yield "finally dropped", _put(lambda n: setattr(n, "finalbody", [ast.Pass()]))


def _negated_inside(test: ast.expr) -> bool:
    """Whether a mistake inside a condition already negates it."""
    if isinstance(test, ast.Compare) and len(test.ops) == 1:
        return not isinstance(test.ops[0], ast.Lt | ast.LtE | ast.Gt | ast.GtE)
    return isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)


def _put(edit: Callable) -> Edit:
    return lambda node, tree: edit(node)


def _replaced(make: Callable) -> Edit:
    """An edit that puts another node in the place of this one."""

    def edit(node: ast.AST, tree: ast.AST) -> None:
        for parent in ast.walk(tree):
            for field, value in ast.iter_fields(parent):
                if value is node:
                    setattr(parent, field, make(node))
                elif isinstance(value, list) and any(item is node for item in value):
                    value[[item is node for item in value].index(True)] = make(node)

    return edit
