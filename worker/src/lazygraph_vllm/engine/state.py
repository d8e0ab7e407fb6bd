"""What one engine is and holds: what its start, its commands and its session share. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..protocol.messages import Captured, Graph, Mode, Orders, Phase, RankMemory
from .headroom import Headroom


@dataclass
class EngineState:
    """One per EngineCore process.

    Written on EngineCore's main thread and read on the link's. The link's thread writes what a
    welcome says: to ``room``, and to ``mode`` as long as the busy loop hasn't started; of a start
    what it may capture without its controller; and ``orders``.

    Attributes:
        mode: when graphs are captured.
        unsupported: why this engine runs as stock; ``None`` if it doesn't.
        phase: where the engine stands.
        room: what it knows of memory.
        adapter: which of ours to vLLM is used; ``None`` for a vLLM that no adapter knows.
        facts: what rank 0 told of its model and graphs; of its shape, the largest of any rank's.
        graphs: the plan.
        captured: what serves, with its cost, by id.
        gone: failed or refused for good, with the reason.
        ranks: each rank's memory when it was last told.
        epoch: counts changes of the captured graphs, the same on all ranks.
        excluded: never captured by itself, by the latest start's word.
        graphs_max: captures nothing by itself where it holds so many; ``None``: no limit.
        frozen: why no more is captured; ``None`` if it may be.
        orders: what its operator ordered, by the latest controller's word.
        settling_at: monotonic seconds at which the time for captures began; ``None`` until then.
        idle: the engine waits for work.
        asleep: what of the engine sleeps, such as its weights; nothing: it is awake.
    """

    mode: Mode
    unsupported: str | None
    phase: Phase
    room: Headroom
    adapter: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    graphs: list[Graph] = field(default_factory=list)
    captured: dict[str, Captured] = field(default_factory=dict)
    gone: dict[str, str] = field(default_factory=dict)
    ranks: tuple[RankMemory, ...] = ()
    epoch: int = 0
    excluded: frozenset[str] = frozenset()
    graphs_max: int | None = None
    frozen: str | None = None
    orders: Orders = field(default_factory=Orders)
    settling_at: float | None = None
    idle: bool = False
    asleep: tuple[str, ...] = ()
