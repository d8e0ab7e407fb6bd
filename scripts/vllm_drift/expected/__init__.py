"""What each generation of the plugin's adapters expects of vLLM, one table for each."""

from __future__ import annotations

from dataclasses import dataclass

from ..hooks import Body, Fields, Hook
from . import breakable, configuration, connectors, drafts, stages, v26, v31


@dataclass(frozen=True)
class Generation:
    """An adapter and versions that it is for: those of one adapter may keep things elsewhere.

    Attributes:
        name: the adapter's.
        series: minor versions that it belongs to, as ``0.31``.
        hooks: what it relies on.
    """

    name: str
    series: tuple[str, ...]
    hooks: tuple[Hook, ...]


_V31 = (*v31.HOOKS, *breakable.BREAKABLE, *connectors.CONNECTORS, *stages.STAGES)
_V32 = (*_V31, *drafts.TARGET_DEPENDENT, *breakable.INSIDE)
GENERATIONS = (
    Generation("v26", ("0.26",), v26.HOOKS),
    Generation("v31", ("0.31",), (*_V31, *drafts.AUTOREGRESSIVE)),
    Generation("v31", ("0.32",), _V32),
    Generation("v31", ("0.33",), (*_V32, *configuration.KIMI_LINEAR)),
)


def files() -> frozenset[str]:
    """Every file of vLLM that some table looks at."""
    return frozenset(hook.file for generation in GENERATIONS for hook in generation.hooks)


def bodies() -> dict[str, frozenset[str]]:
    """By file what some table looks into: functions, and classes with all their fields."""
    every = [hook for generation in GENERATIONS for hook in generation.hooks]
    hooks = [hook for hook in every if isinstance(hook, Body | Fields)]
    return {file: frozenset(h.name for h in hooks if h.file == file) for file in files()}


def named() -> dict[str, frozenset[str]]:
    """By file every part of a dotted name that some table has of it."""
    every = [hook for generation in GENERATIONS for hook in generation.hooks]
    return {
        file: frozenset(part for h in every if h.file == file for part in h.name.split("."))
        for file in files()
    }


def generation_of(version: str) -> Generation | None:
    """The generation that a version belongs to; ``None`` if no adapter is for it."""
    series = ".".join(version.split(".")[:2])
    return next((g for g in GENERATIONS if series in g.series), None)


def generation_named(name: str) -> Generation | None:
    """The newest generation of this name."""
    return next((g for g in reversed(GENERATIONS) if g.name == name), None)
