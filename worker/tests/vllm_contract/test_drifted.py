"""A vLLM that nobody has tried: the engine serves as stock, and one log line says why.

Its hooks were renamed in its sources, as in a wheel to come, or it only says that it is newer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from vllm.version import __version__

import lazygraph_vllm
from lazygraph_vllm.vllm.allowed import TRIED
from vllm_facts import WARMS_UP_SEPARATELY

# Without the fixture that lets others in, which is no matter of a process of its own.
UNTOUCHED_TRIED = frozenset(TRIED)
SCRIPT = Path(__file__).with_name("doctored_engine.py")
# FULL 8, 4, 2 and 1: what vLLM captures of that kind in the tests' configuration.
ALL_FULL = 4
NEWER = {"_version.py": {"__version__ = version = '": "__version__ = version = '0.99.0' or '"}}


def engine_on(
    changes: dict[str, dict[str, str]], *arguments: str, **environment: str
) -> dict[str, Any]:
    """What an engine did on a vLLM with these changes, in idle mode."""
    source = Path(lazygraph_vllm.__file__).parents[1]
    path = os.pathsep.join([str(source), os.environ.get("PYTHONPATH", "")])
    given = {"LAZYGRAPH_MODE": "idle", "PYTHONPATH": path, **environment}
    if not changes and __version__ not in UNTOUCHED_TRIED:
        given["LAZYGRAPH_ALLOW_UNTESTED"] = "1"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), json.dumps(changes), *arguments],
        env={**os.environ, **given},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def assert_stock(answer: dict[str, Any]) -> str:
    """The engine served with all of vLLM's graphs; the one line that says why it is stock."""
    assert answer["errors"] == [] and answer["steps"] >= 3
    assert (answer["full"], answer["ours"]) == (ALL_FULL, False)
    assert len(answer["lines"]) == 1, answer["lines"]
    (line,) = answer["lines"]
    assert line.startswith("lazygraph: running as stock: ")
    return line


def test_on_a_vllm_that_was_not_touched_the_engine_is_ours() -> None:
    """Positive control: what the tests below find is due to what they change."""
    answer = engine_on({})
    assert answer["errors"] == [] and answer["steps"] >= 3
    assert (answer["ours"], answer["lines"]) == (True, [])


def test_an_unknown_future_version() -> None:
    assert "0.99.0" in assert_stock(engine_on(NEWER))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("_process_engine_step", "_process_one_step"),  # of the engine's process
        ("_capture_descs", "_planned_descs"),  # of a rank
    ],
)
def test_a_wheel_with_a_renamed_hook(old: str, new: str) -> None:
    """Renamed everywhere in vLLM, so that vLLM itself goes on working."""
    assert_stock(engine_on({"*": {old: new}}))


def test_a_future_version_that_is_let_in_untested_with_a_renamed_hook() -> None:
    changes = {**NEWER, "*": {"_process_input_queue": "_poll_input"}}
    assert_stock(engine_on(changes, LAZYGRAPH_ALLOW_UNTESTED="1"))


@pytest.mark.skipif(not WARMS_UP_SEPARATELY, reason="before 0.27 the warm-up has no name to lose")
def test_a_warm_up_that_passes_without_our_hook() -> None:
    """All that we ask for exists, and vLLM goes another way: found out before anything serves."""
    changes = {
        "v1/executor/abstract.py": {
            "    def register_failure_callback": "    def warm_up_and_capture(self):\n"
            '        self.collective_rpc("compile_or_warm_up_model")\n\n'
            "    def register_failure_callback"
        },
    }
    assert_stock(engine_on(changes, "warm_up_and_capture"))
