"""What the GPU checks of tokens share: requests at once, padded steps, and parts that end."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench" / "gpu"))

import checks  # noqa: E402

from check_engine import CheckEngine, started  # noqa: E402


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


@pytest.mark.parametrize("part", checks.PARTS["padded"])
def test_only_our_steps_are_padded(
    part: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started.clear()
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(checks, "make_engine", CheckEngine)
    monkeypatch.setattr(checks, "sequences", lambda *_, **__: ({}, {}))
    (tmp_path / "shape").mkdir()
    (tmp_path / "shape" / "config.json").write_text("{}")
    checks.run_check({"name": "any", "shape": "shape"}, "padded", part, tmp_path)
    [engine] = started
    assert engine.env.get("LAZYGRAPH_PAD_STEPS") == ("1" if part == "ours" else None)
    assert engine.env.get("LAZYGRAPH_MODE") == ("lazy" if part in ("ours", "control") else None)
    assert engine.env.get("VLLM_BATCH_INVARIANT") is None


def told(**tokens: list[int]) -> dict[str, Any]:
    return {"tokens": tokens, "ranks": [{}], "capturedInTraffic": 2, "errors": {}}


def test_padded_steps_are_stocks_and_the_control_is_not() -> None:
    stock, other = told(a=[1, 2], b=[3, 4]), told(a=[1, 2], b=[3, 5])
    parts = {"stock": stock, "again": stock, "ours": stock, "control": other}
    fine = checks.verdict("padded", parts)
    assert fine["fine"] and (fine["same"], fine["sameAgain"], fine["controlSame"]) == (2, 2, 1)
    assert not checks.verdict("padded", parts | {"ours": other})["fine"]
    assert not checks.verdict("padded", parts | {"control": stock})["fine"], "it finds nothing"
    # Where stock isn't its own either, ours needn't be.
    assert checks.verdict("padded", {**parts, "again": other, "ours": other, "control": told()})[
        "fine"
    ]


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


def running(pid: int) -> bool:
    """A zombie isn't; who inherits them may not have waited yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
