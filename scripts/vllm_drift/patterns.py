"""Finds an expression or statement in a function's body by an example of it.

In an example ``_`` stands for any expression, and ``...`` as the last argument of a call for any
further ones: ``self.collective_rpc("compile_or_warm_up_model", ...)``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable

WILD = "_"
Place = tuple[int, int]


def places(body: ast.AST, example: str) -> list[Place]:
    """Line and column of each match in ``body``, in the order of the text."""
    wanted: ast.AST = ast.parse(example).body[0]
    if isinstance(wanted, ast.Expr):
        wanted = wanted.value
    found = [
        (node.lineno, node.col_offset)
        for node in ast.walk(body)
        if isinstance(node, ast.expr | ast.stmt) and _matches(node, wanted)
    ]
    return sorted(found)


def first_out_of_order(body: ast.AST, examples: Iterable[str]) -> str | None:
    """The first example that isn't found behind those before it; ``None`` if all are."""
    after: Place = (0, -1)
    for example in examples:
        later = [place for place in places(body, example) if place > after]
        if not later:
            return example
        after = later[0]
    return None


def _matches(node: object, wanted: object) -> bool:
    if isinstance(wanted, ast.Name) and wanted.id == WILD and isinstance(node, ast.expr):
        return True
    if isinstance(wanted, ast.Call) and isinstance(node, ast.Call):
        return _call_matches(node, wanted)
    if isinstance(wanted, ast.AST):
        return type(node) is type(wanted) and all(
            _matches(getattr(node, field, None), getattr(wanted, field, None))
            for field in wanted._fields
            if field not in ("ctx", "type_comment")
        )
    if isinstance(wanted, list):
        return (
            isinstance(node, list)
            and len(node) == len(wanted)
            and all(_matches(a, b) for a, b in zip(node, wanted, strict=True))
        )
    return node == wanted


def _call_matches(node: ast.Call, wanted: ast.Call) -> bool:
    if not _matches(node.func, wanted.func):
        return False
    given = list(wanted.args)
    is_open = bool(given) and isinstance(given[-1], ast.Constant) and given[-1].value is ...
    if is_open:
        given.pop()
        keywords = {k.arg: k.value for k in node.keywords}
        return len(node.args) >= len(given) and (
            all(_matches(a, b) for a, b in zip(node.args, given, strict=False))
            and all(
                k.arg in keywords and _matches(keywords[k.arg], k.value) for k in wanted.keywords
            )
        )
    return _matches(node.args, given) and _matches(node.keywords, wanted.keywords)
