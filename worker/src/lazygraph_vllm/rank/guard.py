"""Looks at each graph before ready, where memory is tight; and what all ranks agree on.

On each rank, on the thread that runs the model, at every graph on all ranks alike.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from ..protocol.messages import Graph
from ..rules import forecast
from ..vllm.adapter import Adapter
from . import memory


@dataclass(frozen=True)
class StartGuard:
    """What may be captured on one rank without taking it from serving or from the margin."""

    device: Any
    shape: forecast.Shape
    margin_bytes: int
    # What serving still needs and the allocator doesn't hold.
    activation_bytes: Callable[[], int]
    # True if it is true on every rank; the same question is asked on all of them at once.
    everywhere: Callable[[bool], bool]
    reservation: memory.Reservation = field(default_factory=memory.Reservation)

    def shortage(self, graph: Graph, captured: Iterable[Graph]) -> str | None:
        """Why ``graph`` doesn't fit on every rank; ``None`` if it does.

        Args:
            graph: whose turn it is.
            captured: what its pool holds already.
        """
        need = forecast.need_bytes(graph, captured, self.shape)
        need = int(need * forecast.SAFETY_SHARE) + forecast.DRIVER_STEP_BYTES
        if self.everywhere(self._has_room(need)):
            return None
        return (
            f"{need / forecast.MIB:.0f} MiB more than serving and the margin of "
            f"{self.margin_bytes / forecast.MIB:.0f} MiB need aren't free on every rank"
        )

    def _has_room(self, need: int) -> bool:
        """Figures first, then the proof: the device gives it, and gets it back at once."""
        import torch

        free = torch.cuda.mem_get_info(self.device)[0]
        if free - self.activation_bytes() - self.margin_bytes < need:
            return False
        taken = self.reservation.take(need)
        self.reservation.give_back()
        return taken

    def can_run(self, tokens: int) -> bool:
        """Whether every rank can run so many tokens ungraphed, outside a capture."""
        import torch

        need = forecast.pool_bytes({"FULL": tokens, "PIECEWISE": tokens}, self.shape)
        cached = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return self.everywhere(torch.cuda.mem_get_info(self.device)[0] + cached >= need)


class RankFailedError(RuntimeError):
    """Another rank failed where this one did not; its own error is in vLLM's log."""


# What a rank says when all are asked: the least of all answers counts.
FAILED, NO, YES = -1, 0, 1


def everywhere(adapter: Adapter, fine: bool) -> bool:
    """Whether it is fine on all ranks; asked on all of them at the same point of their work.

    Raises:
        RankFailedError: another rank has failed meanwhile and asks nothing any more.
    """
    least = _least(adapter, YES if fine else NO)
    if least == FAILED:
        raise RankFailedError("another rank failed in its captures: vLLM's log has its error")
    return least == YES


def tell_failure(adapter: Adapter) -> None:
    """Answer the next question of the others in the place of this rank, which has failed.

    They would wait for it until the group's time limit, half an hour by default, and the engine for
    them: it takes its ranks' answers in their order. Only where another question is certain to
    come.
    """
    with contextlib.suppress(Exception):  # the failure itself is what is to be told
        _least(adapter, FAILED)


def _least(adapter: Adapter, answer: int) -> int:
    import torch

    ranks, group = adapter.cpu_group()
    if ranks == 1:
        return answer
    # On the CPU, outside CUDA: a capture context may be open around it.
    least = torch.tensor([answer])
    torch.distributed.all_reduce(least, torch.distributed.ReduceOp.MIN, group=group)
    return int(least.item())
