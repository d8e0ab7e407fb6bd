"""What can be expected of vLLM's sources: one class for each way in which a hook can change.

A check answers with sentences that say what was expected and what is there; none if all is as
expected. ``why`` says what of ours rests on the hook, for whoever has to port it.
"""

from __future__ import annotations

import ast
import inspect
from dataclasses import dataclass

from .code import Code, base_names, is_left_out, is_property, signature
from .patterns import first_out_of_order, places

_NOT_KEPT = "was not looked into when the archive was written: write it again"


@dataclass(frozen=True)
class Hook:
    """One thing that we rely on.

    Attributes:
        file: path in vLLM's package.
        name: dotted name in that file.
        why: what of ours rests on it.
    """

    file: str
    name: str
    why: str

    @property
    def title(self) -> str:
        """``Class.method``, or ``module.function`` for what is in no class."""
        if "." in self.name or self.name[:1].isupper():
            return self.name
        return f"{self.file.rpartition('/')[2].removesuffix('.py')}.{self.name}"

    def changes(self, code: Code) -> list[str]:
        """What is not as expected, as sentences."""
        raise NotImplementedError


@dataclass(frozen=True)
class Exists(Hook):
    """A name that we read, replace or ask for: a class, a global, an attribute, a property."""

    def changes(self, code: Code) -> list[str]:  # noqa: D102
        return [] if code.has(self.name) else ["is gone"]


@dataclass(frozen=True)
class Replaced(Hook):
    """A function that ours stands in for: every parameter counts.

    Attributes:
        parameters: as in ``def``, without annotations: ``self, num_reqs, num_ubatches=1``.
    """

    parameters: str

    def changes(self, code: Code) -> list[str]:  # noqa: D102
        function = code.function(self.name)
        if function is None:
            return ["is gone"]
        expected, found = _written(self.parameters), signature(function)
        if expected == found:
            return []
        return [f"expected the parameters {expected}, found {found}"]


@dataclass(frozen=True)
class Called(Hook):
    """A function that we call: what we pass must go on fitting, new options don't matter.

    Attributes:
        arguments: what we pass, as in a call, ``self`` included: ``self, _, args=_``.
    """

    arguments: str

    def changes(self, code: Code) -> list[str]:  # noqa: D102
        function = code.function(self.name)
        if function is None:
            return ["is gone"]
        if is_property(function):
            return ["expected a method, found a property"]
        call = ast.parse(f"f({self.arguments})", mode="eval").body
        assert isinstance(call, ast.Call)
        found = signature(function)
        try:
            found.bind(*call.args, **{k.arg or "": k.value for k in call.keywords})
        except TypeError as error:
            return [f"we call it with ({self.arguments}), and {found} takes that no more: {error}"]
        return []


@dataclass(frozen=True)
class Property(Hook):
    """An attribute that can't be assigned: where it is one for all, our tests and ours read it."""

    def changes(self, code: Code) -> list[str]:  # noqa: D102
        function = code.function(self.name)
        if function is not None and is_property(function):
            return []
        return ["expected a property, found " + ("another kind" if code.has(self.name) else "none")]


@dataclass(frozen=True)
class Bases(Hook):
    """A class whose bases decide what our patches reach.

    Attributes:
        bases: all of them, as written.
    """

    bases: tuple[str, ...]

    def changes(self, code: Code) -> list[str]:  # noqa: D102
        found = code.class_(self.name)
        if found is None:
            return ["is gone"]
        names = tuple(base_names(found))
        if names == self.bases:
            return []
        return [f"expected the bases ({', '.join(self.bases)}), found ({', '.join(names)})"]


@dataclass(frozen=True)
class Fields(Hook):
    """A dataclass that is a key of ours: a new field would make two of them look alike.

    Attributes:
        fields: name and default of each, in order: ``num_reqs`` or ``num_ubatches=1``.
    """

    fields: tuple[str, ...]

    def changes(self, code: Code) -> list[str]:  # noqa: D102
        described = code.class_(self.name)
        if described is None:
            return ["is gone"]
        if any(isinstance(s, ast.AnnAssign) and is_left_out(s) for s in described.body):
            return [_NOT_KEPT]
        found = tuple(
            s.target.id + (f"={ast.unparse(s.value)}" if s.value is not None else "")
            for s in described.body
            if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)
        )
        if found == self.fields:
            return []
        new = [f"{field} is new" for field in found if field not in self.fields]
        gone = [f"{field} is gone" for field in self.fields if field not in found]
        return [f"of its fields {', '.join(new + gone) or 'the order changed'}"]


@dataclass(frozen=True)
class Body(Hook):
    """What a function does, where a change would be silent.

    Attributes:
        order: examples (see ``patterns``) that must be found one behind the other.
        never: examples that must not be there.
        times: how often an example is there.
    """

    order: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    times: tuple[tuple[str, int], ...] = ()

    def changes(self, code: Code) -> list[str]:  # noqa: D102
        function = code.find(self.name)
        if function is None:
            return ["is gone"]
        if is_left_out(function):
            return [_NOT_KEPT]
        said = []
        missing = first_out_of_order(function, self.order)
        if missing is not None:
            behind = self.order[: self.order.index(missing)]
            where = f" behind `{behind[-1]}`" if behind else ""
            said.append(f"expected `{missing}`{where}, found none")
        said += [f"expected no `{e}`, found one" for e in self.never if places(function, e)]
        for example, times in self.times:
            if (found := len(places(function, example))) != times:
                said.append(f"expected `{example}` {times} times, found it {found} times")
        return said


def _written(parameters: str) -> inspect.Signature:
    definition = ast.parse(f"def f({parameters}): ...").body[0]
    assert isinstance(definition, ast.FunctionDef)
    return signature(definition)
