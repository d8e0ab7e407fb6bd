"""The GPU checks ask for all their requests before an engine's next step."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench" / "gpu"))

import checks  # noqa: E402


class Engine:
    """Does one thing after the other, as an engine's core does."""

    def __init__(self) -> None:
        self.busy = threading.Lock()

    def collective_rpc(self, call: Any, args: tuple[Any, ...]) -> None:
        with self.busy:
            call(None, *args)


def test_an_engine_is_busy_while_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "HELD_SECONDS", 2.0)
    engine = Engine()
    with checks.held(engine):
        assert engine.busy.locked()
    assert not engine.busy.locked()


def test_requests_that_came_too_late_are_no_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "HELD_SECONDS", 0.04)
    engine = Engine()
    with pytest.raises(RuntimeError, match="expected all requests within 0.04 s"):
        ask_late(engine)


def ask_late(engine: Engine) -> None:
    with checks.held(engine):
        time.sleep(1)


def test_an_engine_that_cannot_be_held_is_told() -> None:
    class Gone:
        def collective_rpc(self, call: Any, args: tuple[Any, ...]) -> None:
            raise ConnectionError("the engine is gone")

    with pytest.raises(ConnectionError, match="is gone"), checks.held(Gone()):
        pass
