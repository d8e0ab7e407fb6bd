"""What the engine asks all of its ranks between two steps, in bounded time.

vLLM gives a step's answer a time limit, and ends the engine with a sentence when a rank hangs. A
capture that hangs on one rank would hold all requests for good otherwise, in an engine that looks
alive.

In EngineCore's process, on the main thread.
"""

from __future__ import annotations

from typing import Any

from ..vllm.limits import step_seconds


class SilentRankError(RuntimeError):
    """A rank didn't answer in time: no step after this would be right, and the engine ends."""


def ask(engine: Any, call: Any, args: tuple[Any, ...] = ()) -> list[Any]:
    """What every rank answers.

    Args:
        engine: vLLM's ``EngineCoreProc``.
        call: of ``rank.calls``.
        args: for it, after the worker.

    Raises:
        SilentRankError: one of them took longer than vLLM lets a step take.
    """
    seconds = step_seconds()
    try:
        answers: list[Any] = engine.model_executor.collective_rpc(call, timeout=seconds, args=args)
    except TimeoutError as error:
        raise SilentRankError(
            f"lazygraph: a rank didn't answer {call.__name__} within {seconds} s "
            "(VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS); ending the engine"
        ) from error
    return answers
