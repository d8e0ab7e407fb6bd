"""What a span of the timeline costs, so that its share of a start can be told.

    python3 bench/timeline_price.py [SPANS]

Prints microseconds for each call of a timed function that does nothing, less those of the function
itself. `lazygraph startup` counts the spans of a start: their number times this is what timing cost.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "worker" / "src"))

from lazygraph_vllm.timeline.install import timed  # noqa: E402
from lazygraph_vllm.timeline.phases import Phase  # noqa: E402
from lazygraph_vllm.timeline.recorder import SPANS_MAX, Recorder  # noqa: E402


def nothing() -> None:
    """The function whose timing costs more than itself."""


def main() -> None:
    """Measure and print."""
    spans = min(int(sys.argv[1]) if len(sys.argv) > 1 else 5000, SPANS_MAX)
    with tempfile.TemporaryDirectory() as folder:
        call = timed(Phase("m", "nothing", "nothing"), nothing, Recorder(folder))
        began = time.perf_counter()
        for _ in range(spans):
            nothing()
        untimed = time.perf_counter() - began
        began = time.perf_counter()
        for _ in range(spans):
            call()
        seconds = time.perf_counter() - began - untimed
    print(json.dumps({"spans": spans, "microsecondsEach": round(1e6 * seconds / spans, 1)}))


if __name__ == "__main__":
    main()
