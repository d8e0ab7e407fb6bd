"""What the engine asks all of its ranks between two steps, in bounded time.

vLLM gives a step's answer a time limit, and ends the engine with a sentence when a rank hangs. A
capture that hangs on one rank would hold all requests for good otherwise, in an engine that looks
alive.

In EngineCore's process, on the main thread.
"""

from __future__ import annotations

from concurrent.futures import Future
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
    executor = engine.model_executor
    try:
        answers: list[Any] = executor.collective_rpc(call, timeout=step_seconds(), args=args)
    except TimeoutError as error:
        raise _silent(call) from error
    return answers


def ask_later(engine: Any, call: Any) -> Future[Any]:
    """What every rank will answer; for ``answers_to``, once it is done.

    Whoever waits for a later answer takes this one in first, in vLLM's executor: without a limit of
    its own it would be waited for without end, and the limit of the step behind it never reached.
    """
    asked: Future[Any] = engine.model_executor.collective_rpc(
        call, timeout=step_seconds(), non_block=True
    )
    return asked


def answers_to(call: Any, asked: Future[Any]) -> list[Any]:
    """What every rank answered.

    Raises:
        SilentRankError: as ``ask``.
    """
    try:
        answers: list[Any] = asked.result()
    except TimeoutError as error:
        raise _silent(call) from error
    return answers


def _silent(call: Any) -> SilentRankError:
    return SilentRankError(
        f"lazygraph: a rank didn't answer {call.__name__} within {step_seconds()} s "
        "(VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS); ending the engine"
    )
