"""What a start spent by phase, from the files of all its processes."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from lazygraph_vllm.timeline.recorder import process_began
from lazygraph_vllm.timeline.report import PHASES_MAX, Span, by_phase, read, start_phases


def lines(path: Path, *bodies: dict[str, object]) -> None:
    path.write_text("".join(json.dumps(body) + "\n" for body in bodies))


def test_a_moment_belongs_to_what_began_last_and_all_add_up() -> None:
    spans = [
        Span("imports", 101, 110),
        Span("engine client", 110.5, 130),
        Span("imports", 111, 119),
        Span("executor", 119, 125),
        Span("weights", 120, 123),
        Span("weights", 120.5, 124),
    ]
    found = dict(by_phase(spans, 100, 128))
    assert found == {
        "unattributed": 1.5,
        "imports": 17.0,
        "engine client": 3.5,
        "executor": 2.0,
        "weights": 4.0,
    }
    assert sum(found.values()) == 28


def test_what_began_before_this_server_is_another_starts() -> None:
    assert by_phase([Span("weights", 5, 9)], 100, 101) == (("unattributed", 1),)


def test_what_has_not_ended_ends_now(tmp_path: Path) -> None:
    lines(tmp_path / "spans-7.jsonl", {"name": "device", "begin": 1, "end": 2})
    lines(
        tmp_path / "begun-7.jsonl",
        {"name": "device", "begin": 1},
        {"name": "weights", "begin": 2.5},
    )
    # The same phase at the same moment in another process is one of its own.
    lines(tmp_path / "begun-8.jsonl", {"name": "device", "begin": 1})
    with open(tmp_path / "spans-8.jsonl", "w") as file:
        file.write('{"name":"cut o')
    assert sorted(read(tmp_path, 4.0)) == [
        Span("device", 1, 2),
        Span("device", 1, 4.0),
        Span("weights", 2.5, 4.0),
    ]


def test_phases_have_a_limit() -> None:
    spans = [Span(f"phase {n}", 100 + n, 101 + n) for n in range(2 * PHASES_MAX)]
    assert len(by_phase(spans, 100, 400)) == PHASES_MAX


def test_an_engine_tells_its_own_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAZYGRAPH_STARTUP_DIR", raising=False)
    assert start_phases() == ()
    monkeypatch.setenv("LAZYGRAPH_STARTUP_DIR", str(tmp_path))
    began, now = process_began(os.getppid()), time.monotonic()
    lines(tmp_path / "spans-7.jsonl", {"name": "weights", "begin": began, "end": now})
    found = dict(start_phases())
    assert found["weights"] == pytest.approx(now - began)
    monkeypatch.setenv("LAZYGRAPH_STARTUP_DIR", str(tmp_path / "gone"))
    assert dict(start_phases()).keys() <= {"unattributed"}
    lines(tmp_path / "spans-9.jsonl", {"name": 7})
    monkeypatch.setenv("LAZYGRAPH_STARTUP_DIR", str(tmp_path))
    assert start_phases() == ()  # a damaged file costs the figures, never the engine
