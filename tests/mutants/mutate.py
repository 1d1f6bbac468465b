"""Small wrongs in a module's source, one at a time: what a test should notice (`python -m mutants`, `make audit`).

Comparisons become their opposites and their neighbours, `and` becomes `or` or loses a part, conditions are negated,
numbers move by one, bytes and compared texts change, statements and returned values go. Annotations, types' names,
docstrings and what is said to people (a finding's words, an error's message, the words for nothing in `found or "no
flag"`) stay as they are: they decide nothing.
Leaves out: running tests on them (__main__.py).
"""

from __future__ import annotations

import ast
import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.FloorDiv: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
_FUNCTIONS = {"all": "any", "any": "all", "min": "max", "max": "min", "sorted": "list"}
# Arguments that are words for people.
_WORDS = {"expected", "found", "why", "hint", "reason", "otherwise", "what", "source", "name"}
_MOST_SHOWN = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One wrong.

    Attributes:
        module: its dotted name.
        line: in the file as it is.
        where: the qualified name of the class or function around it, empty at the top.
        what: the changed expression or statement, before and after.
        source: the whole file with the wrong in it.
    """

    module: str
    line: int
    where: str
    what: str
    source: str

    @property
    def name(self) -> str:
        """What a table of mutants calls it: not by line, which moves, but by function, which has few alike."""
        return f"{self.module}:{self.where}: {self.what}"


def mutants_of(source: str, module: str) -> Iterator[Mutant]:
    """Every mutant of a file; two that read the same are one."""
    tree = ast.parse(source)
    said, around = _said_to_people(tree) | _names(tree), _around(tree)
    seen = set()
    for parent, field, at in _places(tree):
        node = _get(parent, field, at)
        if id(node) in said:
            continue
        for changed in _changes(node):
            _set(parent, field, at, changed)
            text = ast.unparse(ast.fix_missing_locations(tree))
            _set(parent, field, at, node)
            if text not in seen:
                seen.add(text)
                what = f"{_shown(node)} -> {_shown(changed)}"
                yield Mutant(module=module, line=node.lineno, where=around[id(node)], what=what, source=text)


def _around(tree: ast.AST, where: str = "") -> dict[int, str]:
    """By node, the qualified name of the class or function in which it stands."""
    found = {}
    for node in ast.iter_child_nodes(tree):
        found[id(node)] = where
        inside = f"{where}.{node.name}" if isinstance(node, ast.ClassDef | ast.FunctionDef) else where
        found |= _around(node, inside.removeprefix("."))
    return found


def _places(tree: ast.AST) -> Iterator[tuple[ast.AST, str, int | None]]:
    """Where expressions and statements stand: a parent, its field, and the place if that is a list."""
    for parent in ast.walk(tree):
        for field, value in ast.iter_fields(parent):
            if isinstance(value, ast.expr | ast.stmt):
                yield parent, field, None
            elif isinstance(value, list):
                yield from ((parent, field, at) for at, one in enumerate(value) if isinstance(one, ast.expr | ast.stmt))


def _get(parent: ast.AST, field: str, at: int | None) -> ast.expr | ast.stmt:
    value = getattr(parent, field)
    found: ast.expr | ast.stmt = value if at is None else value[at]
    return found


def _set(parent: ast.AST, field: str, at: int | None, node: ast.AST) -> None:
    if at is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[at] = node


def _said_to_people(tree: ast.AST) -> set[int]:
    """The nodes inside what is about types, and inside docstrings, words of findings, and messages of errors."""
    roots = [root for node in ast.walk(tree) for root in (*_about_types(node), *_told(node))]
    return {id(inside) for root in roots if root is not None for inside in ast.walk(root)}


def _about_types(node: ast.AST) -> list[ast.AST | None]:
    match node:
        case ast.AnnAssign():
            return [node.annotation]
        case ast.FunctionDef():
            return [node.returns, *(argument.annotation for argument in _arguments(node)), *node.decorator_list]
        case ast.ClassDef():
            return [*node.decorator_list, *node.bases]
        case ast.Assign(targets=[ast.Name(id=name)]) if _is_type(name):
            return [node.value]
        case ast.If(test=ast.Name(id="TYPE_CHECKING")) | ast.ImportFrom():
            return [node]
    return []


def _told(node: ast.AST) -> list[ast.AST | None]:
    match node:
        case ast.Expr(value=ast.Constant()) | ast.JoinedStr():
            return [node]
        case ast.Raise(exc=ast.Call(args=words)):
            return [*words]
        case ast.keyword(arg=str(word)) if word in _WORDS:
            return [node.value]
        case ast.BoolOp(op=ast.Or(), values=[*_, last]) if _is_words(last):
            return [node]
        case ast.Call():  # what is read, in words: `reader.take(4, "the magic")`
            return [one for one in node.args if isinstance(one, ast.Constant) and " " in str(one.value)]
    return []


def _is_words(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _is_type(name: str) -> bool:
    """Whether a name is a type's, such as `Chain`, which only annotations use, and not a constant's."""
    return name.lstrip("_")[:1].isupper() and not name.isupper()


def _names(tree: ast.AST) -> set[int]:
    """Texts that are compared with nothing: names of members and of checks, which tests spell out anyway."""
    texts = {id(node) for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    compared = (node for node in ast.walk(tree) if isinstance(node, ast.Compare))
    return texts - {id(inside) for node in compared for inside in ast.walk(node)}


def _arguments(function: ast.FunctionDef) -> list[ast.arg]:
    arguments = function.args
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    yield from _changed_statements(node) if isinstance(node, ast.stmt) else _changed_expressions(node)


def _changed_statements(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.If() | ast.While():
            yield _copy(node, test=ast.UnaryOp(op=ast.Not(), operand=node.test))
        case ast.Return(value=ast.expr()) if not isinstance(node.value, ast.Constant):
            yield _copy(node, value=ast.Constant(value=None))
        case ast.Raise() | ast.Expr() | ast.Continue() | ast.AugAssign():
            yield ast.Pass()


def _changed_expressions(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Compare():
            yield from _comparisons(node)
        case ast.BoolOp():
            yield _copy(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
            yield from (_without(node, at) for at in range(len(node.values)))
        case ast.UnaryOp(op=ast.Not()):
            yield node.operand
        case ast.BinOp(op=operator) if type(operator) in _OPERATORS:
            yield _copy(node, op=_OPERATORS[type(operator)]())
        case ast.Call(func=ast.Name(id=name)) if name in _FUNCTIONS:
            yield _copy(node, func=ast.Name(id=_FUNCTIONS[name], ctx=ast.Load()))
        case ast.IfExp():
            yield _copy(node, test=ast.UnaryOp(op=ast.Not(), operand=node.test))
        case ast.Constant():
            yield from _constants(node)


def _comparisons(node: ast.Compare) -> Iterator[ast.AST]:
    first, *more = node.ops
    for other in _COMPARISONS[type(first)]:
        yield _copy(node, ops=[other(), *more])
    if more:  # a chain: without its last part, too
        yield _copy(node, ops=node.ops[:-1], comparators=node.comparators[:-1])


def _copy(node: ast.AST, **fields: object) -> ast.AST:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def _without(node: ast.BoolOp, at: int) -> ast.AST:
    values = [*node.values[:at], *node.values[at + 1 :]]
    return values[0] if len(values) == 1 else _copy(node, values=values)


def _constants(node: ast.Constant) -> Iterator[ast.AST]:
    match node.value:
        case bool():
            yield ast.Constant(value=not node.value)
        case int():
            yield from (ast.Constant(value=node.value + step) for step in (1, -1))
        case str():
            yield ast.Constant(value=f"{node.value}x")
        case bytes():
            yield ast.Constant(value=node.value + b"x")


def _shown(node: ast.AST) -> str:
    text = " ".join(ast.unparse(ast.fix_missing_locations(node)).split())
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"
