"""What the engine asks all of its ranks between two steps, in bounded time.

vLLM gives a step's answer a time limit, and ends the engine with a sentence when a rank hangs. A
capture that hangs on one rank would hold all requests for good otherwise, in an engine that looks
alive.

In EngineCore's process, on the main thread.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

from ..rank.calls import Failure
from ..vllm.limits import step_seconds


class EndEngineError(RuntimeError):
    """With several ranks no step after this would be right: the engine ends. Else it serves."""


class SilentRankError(EndEngineError):
    """A rank didn't answer in time."""


@contextlib.contextmanager
def fatal(what: str) -> Iterator[None]:
    """Inside, ranks are asked, or change graphs: half of that would be wrong answers or tokens."""
    try:
        yield
    except EndEngineError:
        raise
    except TimeoutError as error:
        raise SilentRankError(
            f"lazygraph: a rank didn't answer {what} within {step_seconds()} s "
            "(VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS); ending the engine"
        ) from error
    except Exception as error:
        text = f"lazygraph: {what} failed ({type(error).__name__}: {error}); ending the engine"
        raise EndEngineError(text) from error


def ask(engine: Any, call: Any, args: tuple[Any, ...] = ()) -> list[Any]:
    """What every rank answers.

    Args:
        engine: vLLM's ``EngineCoreProc``.
        call: of ``rank.calls``.
        args: for it, after the worker.

    Raises:
        SilentRankError: one took longer than vLLM lets a step take.
        EndEngineError: vLLM raised, and whoever asks next may get other ranks' answers to this.
        RuntimeError: one could not answer what changes nothing; all go on.
    """
    executor = engine.model_executor
    with fatal(call.__name__):
        answers: list[Any] = executor.collective_rpc(call, timeout=step_seconds(), args=args)
    return _whole(answers)


def ask_later(engine: Any, call: Any) -> Future[Any]:
    """What every rank will answer; for ``answers_to``, once done.

    In vLLM's executor, whoever waits for a later answer takes this one in first: without a limit of
    its own, the limit of the step behind it would never be reached.
    """
    asked: Future[Any] = engine.model_executor.collective_rpc(
        call, timeout=step_seconds(), non_block=True
    )
    return asked


def answers_to(call: Any, asked: Future[Any]) -> list[Any]:
    """What every rank answered.

    Raises:
        SilentRankError, EndEngineError, RuntimeError: as ``ask``.
    """
    with fatal(call.__name__):
        answers: list[Any] = asked.result()
    return _whole(answers)


def require_same(answers: list[Any], after: str) -> None:
    """After a change all ranks hold the same graphs.

    Raises:
        EndEngineError: they don't.
    """
    if len({answer["hash"] for answer in answers}) != 1:
        raise EndEngineError(f"lazygraph: the ranks disagree after {after}; ending")


def _whole(answers: list[Any]) -> list[Any]:
    failed = next((a for a in answers if isinstance(a, Failure)), None)
    if failed is not None:
        raise RuntimeError(f"rank {answers.index(failed)}: {failed.reason}")
    return answers
