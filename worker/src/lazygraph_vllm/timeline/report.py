"""What a start spent by phase so far, from what all of its processes have written.

By the same rule as ``lazygraph startup``: a moment belongs to what began last, in any process.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from .install import FOLDER
from .recorder import KINDS, process_began

FILES_MAX = 256
SPANS_MAX = 2000
PHASES_MAX = 64
UNATTRIBUTED = "unattributed"


class Span(NamedTuple):
    """A stretch of a phase, in seconds of the monotonic clock."""

    name: str
    begin: float
    end: float


def start_phases() -> tuple[tuple[str, float], ...]:
    """This server's, from its first process on; empty where nobody asked for the timeline.

    Called by the EngineCore, whose parent is the server's first process. A folder may hold earlier
    starts, as where a container was restarted: what began before that process is not of this one.
    """
    folder = os.environ.get(FOLDER, "").strip()
    if not folder:
        return ()
    try:
        since, now = process_began(os.getppid()), time.monotonic()
        return by_phase(read(Path(folder), now), since, now)
    except (OSError, ValueError, KeyError, TypeError):
        return ()  # The figures are lost, never the engine.


def read(folder: Path, now: float) -> list[Span]:
    """Everything in a folder; what hasn't ended ends now."""
    lines: dict[str, list[tuple[str, dict[str, Any]]]] = {kind: [] for kind in KINDS}
    for kind, found in lines.items():
        for file in sorted(folder.glob(f"{kind}-*.jsonl"))[:FILES_MAX]:
            for text in file.read_text().splitlines():
                try:
                    body = json.loads(text)
                    found.append((file.stem.partition("-")[2], body))
                except ValueError:
                    continue  # the last line of a process that is writing it
    spans = [Span(body["name"], body["begin"], body["end"]) for _, body in lines["spans"]]
    over = {(pid, body["name"], body["begin"]) for pid, body in lines["spans"]}
    for pid, body in lines["begun"]:
        if (pid, body["name"], body["begin"]) not in over:
            spans.append(Span(body["name"], body["begin"], now))
    return spans


def by_phase(spans: Iterable[Span], since: float, until: float) -> tuple[tuple[str, float], ...]:
    """Seconds by phase, in the order in which phases first appear; they add up to the whole."""
    inside = sorted(
        Span(name, max(begin, since), min(end, until))
        for name, begin, end in spans
        if end > since and begin < until
    )[:SPANS_MAX]
    inside.sort(key=lambda span: (span.begin, -span.end))
    moments = sorted({since, until, *(at for span in inside for at in span[1:])})
    seconds: dict[str, float] = {}
    active: list[Span] = []
    following = 0
    for begin, end in zip(moments, moments[1:], strict=False):
        active = [span for span in active if span.end > begin]
        while following < len(inside) and inside[following].begin <= begin:
            if inside[following].end > begin:
                active.append(inside[following])
            following += 1
        name = active[-1].name if active else UNATTRIBUTED
        seconds[name] = seconds.get(name, 0.0) + end - begin
    return tuple(seconds.items())[:PHASES_MAX]
