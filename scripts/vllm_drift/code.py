"""What a Python file defines, read from its syntax tree. Nothing of it is run."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator

Function = ast.FunctionDef | ast.AsyncFunctionDef
LEFT_OUT = "left out of the archive"


class Code:
    """One file: its classes, functions and names, also those inside ``if`` and ``try``."""

    def __init__(self, text: str) -> None:
        """Parse ``text``; raises ``SyntaxError``."""
        self._tree = ast.parse(text)

    def find(self, name: str) -> ast.stmt | None:
        """What ``Class.method``, ``Class`` or a module's name is bound to last, if by a statement.

        Overloads are declarations and not what runs, so they are passed over.
        """
        scope: ast.Module | ast.ClassDef = self._tree
        *owners, last = name.split(".")
        for owner in owners:
            inside = _bound_in(scope, owner)
            if not isinstance(inside, ast.ClassDef):
                return None
            scope = inside
        return _bound_in(scope, last)

    def function(self, name: str) -> Function | None:
        """A function or method by its dotted name."""
        found = self.find(name)
        return found if isinstance(found, Function) else None

    def class_(self, name: str) -> ast.ClassDef | None:
        """A class by its dotted name."""
        found = self.find(name)
        return found if isinstance(found, ast.ClassDef) else None

    def has(self, name: str) -> bool:
        """Whether the name is bound, for a class also by ``self.name = …`` or in a base here."""
        if self.find(name) is not None:
            return True
        owner, _, attribute = name.rpartition(".")
        described = self.class_(owner) if owner else None
        if described is None:
            return False
        if attribute in instance_attributes(described):
            return True
        return any(self.has(f"{base}.{attribute}") for base in base_names(described))


def _bound_in(scope: ast.Module | ast.ClassDef, name: str) -> ast.stmt | None:
    found = None
    for statement in flattened(scope.body):
        if name in names_bound(statement) and not _is_overload(statement):
            found = statement
    return found


def flattened(statements: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Those of a module or class, also those inside ``if`` and ``try``."""
    for statement in statements:
        if isinstance(statement, ast.If):
            yield from flattened(statement.body)
            yield from flattened(statement.orelse)
        elif isinstance(statement, ast.Try):
            for block in (statement.body, statement.orelse, statement.finalbody):
                yield from flattened(block)
        else:
            yield statement


def names_bound(statement: ast.stmt) -> set[str]:
    """What it gives a value or a meaning to: none for what sets no plain name."""
    if isinstance(statement, Function | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name for alias in statement.names}
    if isinstance(statement, ast.AnnAssign):
        return {statement.target.id} if isinstance(statement.target, ast.Name) else set()
    if isinstance(statement, ast.Assign):
        return {target.id for target in statement.targets if isinstance(target, ast.Name)}
    return set()


def _is_overload(statement: ast.stmt) -> bool:
    decorators = statement.decorator_list if isinstance(statement, Function) else []
    return any(isinstance(d, ast.Name) and d.id == "overload" for d in decorators)


def is_text(statement: ast.stmt, text: str | None = None) -> bool:
    """Whether it is a docstring, of whatever stands before or around it; or this one."""
    value = statement.value if isinstance(statement, ast.Expr) else None
    found = value.value if isinstance(value, ast.Constant) else None
    return isinstance(found, str) and text in (None, found)


def is_left_out(statement: ast.stmt) -> bool:
    """Whether an archive has only its name, or what it is called with: the rest isn't known."""
    if isinstance(statement, Function):
        return ast.get_docstring(statement) == LEFT_OUT
    value = statement.value if isinstance(statement, ast.Assign | ast.AnnAssign) else None
    return isinstance(value, ast.Constant) and value.value is ...


def instance_attributes(described: ast.ClassDef | Function) -> set[str]:
    """Names that a method assigns, or declares, on ``self``."""
    return {
        node.attr
        for node in ast.walk(described)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }


def base_names(described: ast.ClassDef) -> list[str]:
    """The bases as they are written, without type arguments."""
    bases = (b.value if isinstance(b, ast.Subscript) else b for b in described.bases)
    return [ast.unparse(base) for base in bases]


def is_property(function: Function) -> bool:
    """Whether it is read like an attribute."""
    names = {ast.unparse(decorator) for decorator in function.decorator_list}
    return bool(names & {"property", "cached_property", "functools.cached_property"})


def signature(function: Function) -> inspect.Signature:
    """Parameters with their kinds; an optional one's default is its text."""
    given = function.args
    kind = inspect.Parameter
    positional = [*given.posonlyargs, *given.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(given.defaults))
    parameters = []
    for index, (argument, default) in enumerate(
        zip(positional, [*defaults, *given.defaults], strict=True)
    ):
        only = index < len(given.posonlyargs)
        parameters.append(
            _parameter(
                argument, kind.POSITIONAL_ONLY if only else kind.POSITIONAL_OR_KEYWORD, default
            )
        )
    if given.vararg is not None:
        parameters.append(_parameter(given.vararg, kind.VAR_POSITIONAL, None))
    for argument, default in zip(given.kwonlyargs, given.kw_defaults, strict=True):
        parameters.append(_parameter(argument, kind.KEYWORD_ONLY, default))
    if given.kwarg is not None:
        parameters.append(_parameter(given.kwarg, kind.VAR_KEYWORD, None))
    return inspect.Signature(parameters)


def _parameter(
    argument: ast.arg, kind: inspect._ParameterKind, default: ast.expr | None
) -> inspect.Parameter:
    value = inspect.Parameter.empty if default is None else _Text(ast.unparse(default))
    return inspect.Parameter(argument.arg, kind, default=value)


class _Text(str):
    """A default that prints as it was written."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)
