"""What the GPU checks of tokens share: requests at once, and parts that end."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import checks
import pytest
from process_tree import kill_below, running


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


def test_a_part_that_fails_leaves_no_engine_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run(*_: Any) -> None:
        # In a group of its own, as a launcher's servers are, and with one below it.
        words = ["sh", "-c", "sleep 600 & echo $! > below; wait"]
        engine = subprocess.Popen(words, cwd=tmp_path, start_new_session=True)
        (tmp_path / "engine").write_text(str(engine.pid))
        while not (tmp_path / "below").exists() or not (tmp_path / "below").read_text():
            time.sleep(0.01)
        raise RuntimeError("the check failed")

    monkeypatch.setattr(checks, "run_check", run)
    part = checks.fork_engine(tmp_path / "log", tmp_path / "result", {}, "tokens", "ours", tmp_path)
    assert os.waitpid(part, 0)[1] != 0
    left = [int((tmp_path / name).read_text()) for name in ("engine", "below")]
    assert [pid for pid in left if running(pid)] == []


def test_what_is_killed_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal comes late where many processes want a core: here it is held up."""
    above = subprocess.Popen(["sh", "-c", "sleep 600 & echo $!; wait"], stdout=subprocess.PIPE)
    assert above.stdout is not None
    below = int(above.stdout.readline())
    kill = os.kill

    def late(pid: int, signum: int) -> None:
        threading.Timer(0.3, kill, (pid, signum)).start()

    monkeypatch.setattr(os, "kill", late)
    kill_below(above.pid)
    assert not running(below)
    above.communicate(timeout=300)
