"""Which adapter is for which vLLM."""

from __future__ import annotations

import functools

from .adapter import Adapter
from .v26 import V26
from .v31 import V31

# Every version whose hooks an adapter knows; ``allowed.TRIED`` says what was tried on a GPU.
KNOWN: dict[str, type[Adapter]] = {
    "0.26.0": V26,
    "0.31.0": V31,
    "0.32.0": V31,
    "0.33.0": V31,
}
# Newer than all we know: who insists gets the newest, and its check of names and signatures.
NEWEST: type[Adapter] = V31


def plain(version: str) -> str:
    """The version without what a build adds to it, e.g. ``0.33.0+cu130``."""
    return version.split("+")[0]


def adapter_for(version: str) -> Adapter | None:
    """The adapter of a vLLM version; ``None`` for one whose hooks nobody has looked at."""
    known = KNOWN.get(plain(version))
    return known() if known else None


@functools.cache
def current() -> Adapter:
    """The adapter for the vLLM of this process.

    One each: its capture stream is to last. A version that nobody knows gets the newest: whether
    it may be used at all is ``allowed``'s to say, before anything is changed.
    """
    from vllm.version import __version__

    return adapter_for(__version__) or NEWEST()
