"""Holds one vLLM's sources against a table of hooks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from .code import Code
from .hooks import Hook
from .sources import Sources


@dataclass(frozen=True)
class Change:
    """A hook that isn't as expected.

    Attributes:
        hook: its name, as ``Class.method`` or ``module.function``.
        what: what was expected and what is there.
        file: where, in vLLM's package.
        why: what of ours rests on it.
    """

    hook: str
    what: str
    file: str
    why: str


def changes(sources: Sources, hooks: Iterable[Hook]) -> list[Change]:
    """Everything that isn't as expected, in the table's order; each thing once."""
    codes: dict[str, Code | str] = {}
    found: list[Change] = []
    said: set[tuple[str, str]] = set()
    for hook in hooks:
        if hook.file not in codes:
            codes[hook.file] = _parsed(sources.read(hook.file))
        code = codes[hook.file]
        for what in (code,) if isinstance(code, str) else _changes(hook, code):
            # What is gone is gone for every table line about it, and a missing file is one thing.
            title = hook.file if isinstance(code, str) else hook.title
            if (title, what) not in said:
                said.add((title, what))
                found.append(Change(title, what, hook.file, hook.why))
    return found


# Most files of two versions are the same: each is parsed and held against a hook once.
@cache
def _changes(hook: Hook, code: Code) -> tuple[str, ...]:
    return tuple(hook.changes(code))


@cache
def _parsed(text: str | None) -> Code | str:
    if text is None:
        return "is gone"
    try:
        return Code(text)
    except SyntaxError as error:
        return f"can't be parsed by this Python: {error.msg} in line {error.lineno}"
