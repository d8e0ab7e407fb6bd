"""Stands in for the engines of bench/gpu/checks.py: notes how each was started, runs nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

started: list[CheckEngine] = []


class CheckEngine:
    """In the place of ``checks.make_engine``.

    Attributes:
        env: the environment of its start.
        more: options beside its family's.
    """

    def __init__(self, family: dict[str, Any], models: Path, **more: Any) -> None:
        """Take note of it in ``started``."""
        self.env, self.more = dict(os.environ), more
        started.append(self)

    def collective_rpc(self, call: Any, args: tuple[Any, ...] = ()) -> list[Any]:
        """What every rank answers."""
        return [{"stock": True}]

    @property
    def llm_engine(self) -> Any:
        """VLLM's, and its core: both are this one."""
        return self

    engine_core = llm_engine

    def shutdown(self) -> None:
        """Nothing to end."""
