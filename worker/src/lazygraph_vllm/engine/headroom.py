"""What an engine knows of memory: what it reserved, which pools there are, what still fits.

In EngineCore's process: changed on the main thread, and by ``welcomed`` on the link's.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from ..protocol.messages import Graph, Mode, RankMemory, Reserved, Start, Welcome
from ..rank import sizing
from ..rules import forecast, local_fill
from ..settings import Settings

logger = logging.getLogger("vllm.lazygraph")

# Free memory that a capture must leave on every rank, besides its own size.
MARGIN_BYTES = 64 << 20
# Each graph before ready is checked when all of them may need more than this share of the room.
GUARD_FROM_SHARE = 0.67
# Without a controller, a graph that found no memory is looked at again after so long.
ALONE_RETRY_SECONDS = 30.0
REMEDY = "Lower --gpu-memory-utilization or set LAZYGRAPH_RESERVE=plan"


class Headroom:
    """One per engine; knows no GPU, only what the ranks and the controller say."""

    def __init__(self, settings: Settings) -> None:
        self.reserved: Reserved | None = None
        self.tiers: tuple[tuple[str, ...], ...] = ()
        self.margin_bytes: int | None = None  # a controller's; none: ours
        self._reserve: tuple[str, int | None] = (settings.reserve, None)
        # The mode that vLLM was told: a welcome during its profile run comes too late to change it.
        self._offered: str | None = None
        self._shape = forecast.Shape(layers=32)
        # What torch held at first for all but graphs, by rank.
        self._serving_at_first: dict[int, int] = {}
        self._short: set[str] = set()
        self._short_until = 0.0

    # -------------------------------------------------------------- start-up

    def welcomed(self, message: Welcome) -> None:
        """Take over what the controller wants, on the link's thread.

        The reservation is read when vLLM sizes its KV cache: what comes later changes nothing.
        """
        if message.reserve is not None:
            self._reserve = (message.reserve, message.reserve_bytes)
        if message.margin_bytes is not None:
            self.margin_bytes = message.margin_bytes

    def before_sizing(self, rpc: Callable[..., Any]) -> None:
        """Offer vLLM what to keep back from the KV cache, if somebody wants it.

        In every mode: where vLLM would find that number by capturing all graphs once more, it must
        not.
        """
        mode, known_bytes = self._reserve
        answers = rpc(sizing.reserve, args=(mode, known_bytes, self.margin_bytes))
        if mode == "none":
            return
        if why := next((why for why in answers if why), None):
            _keeps_nothing(mode, why)
            if not all(answers):
                rpc(sizing.withdraw)
            return
        self._offered = mode

    def after_sizing(self, rpc: Callable[..., Any]) -> None:
        """What did vLLM take of it, now that its KV cache is sized?"""
        mode = self._offered
        if mode is None:
            return
        answers = rpc(sizing.reserved)
        if not all(answers):
            why = "vLLM did not profile its memory here, a start-up plan gave the KV cache's size"
            _keeps_nothing(mode, why)
            return
        if mode == "least" and not any(a["bytes"] + a["serving_bytes"] for a in answers):
            return  # enough is left outside vLLM's share
        self.reserved = Reserved(
            mode=mode,  # type: ignore[arg-type]
            bytes=max(a["bytes"] for a in answers),
            serving_bytes=max(a["serving_bytes"] for a in answers),
            kv_tokens=max(a["kv_tokens"] for a in answers),
        )
        logger.info(
            "lazygraph: reserve=%s: %d graphs have %d MiB of each GPU, and %d MiB are kept for "
            "what serving takes beyond vLLM's budget, which leaves %d MiB uncounted: %d tokens "
            "less in the KV cache",
            mode,
            answers[0]["graphs"],
            self.reserved.bytes >> 20,
            self.reserved.serving_bytes >> 20,
            max(a["uncounted_bytes"] for a in answers) >> 20,
            self.reserved.kv_tokens,
        )

    def planned(
        self,
        facts: dict[str, Any],
        graphs: Sequence[Graph],
        ranks: Iterable[RankMemory],
        start: Start | None,
    ) -> None:
        """Take over the model's shape, what the ranks hold now, and the controller's tiers."""
        self._serving_at_first = {m.rank: m.reserved_bytes - m.pool_bytes for m in ranks}
        self._shape = facts.get("shape") or forecast.Shape(layers=facts.get("layers", 32))
        known = {g.id for g in graphs}
        tiers = [tuple(g for g in t if g in known) for t in (start.tiers if start else None) or ()]
        self.tiers = tuple(tier for tier in tiers if tier)

    def first_set(
        self, mode: Mode, graphs: Sequence[Graph], ranks: Sequence[RankMemory]
    ) -> list[Graph]:
        """What the mode starts with; where it doesn't fit, with smaller tops."""
        wanted = local_fill.first_set(mode, graphs)
        room = self.room_bytes(ranks, self.allowance(ranks))
        if forecast.forecast_bytes([wanted], self._shape) <= GUARD_FROM_SHARE * room:
            return wanted
        chosen = forecast.fitting(graphs, mode != "eager", room, self._shape)
        kept = {g.id for g in chosen}
        if left := [g.id for g in wanted if g.id not in kept]:
            logger.warning(
                "lazygraph: %d of %d graphs don't fit before ready and are left out, the largest "
                "first: %s. %s",
                len(left),
                len(wanted),
                some(left),
                REMEDY,
            )
        return chosen

    def prepare_options(
        self, first: Sequence[Graph], ranks: Sequence[RankMemory], alone: bool
    ) -> tuple[tuple[tuple[str, ...], ...], int | None]:
        """Tiers and the guard's margin for ``rank.prepare``; none where memory is plentiful.

        Args:
            first: what is captured before ready.
            ranks: their memory.
            alone: no controller has looked whether it fits.
        """
        pools: dict[int, list[Graph]] = {}
        for graph in first:
            pools.setdefault(self.tier_of(graph.id), []).append(graph)
        need = forecast.forecast_bytes(pools.values(), self._shape)
        margin = self.allowance(ranks) if alone else self.margin()
        room = self.room_bytes(ranks, margin)
        if need <= GUARD_FROM_SHARE * room:
            return self.tiers, None
        logger.warning(
            "lazygraph: memory is tight: %d graphs before ready will take about %d MiB, %d MiB are "
            "free besides what serving needs; each is checked first. %s",
            len(first),
            need >> 20,
            room >> 20,
            REMEDY,
        )
        return self.tiers, margin

    # -------------------------------------------------------------- what fits

    def margin(self) -> int:
        """What a capture that nobody reserved for must leave free."""
        return MARGIN_BYTES if self.margin_bytes is None else self.margin_bytes

    def allowance(self, ranks: Iterable[RankMemory]) -> int:
        """What to leave free, besides the activation peak, when no controller decides."""
        if self.margin_bytes is not None:
            return self.margin_bytes
        return max(self._allowance(memory) for memory in ranks)

    def _allowance(self, memory: RankMemory) -> int:
        peak = memory.activation_peak_bytes
        whole = forecast.allowance_bytes(peak)
        serving = memory.reserved_bytes - memory.pool_bytes
        grown = serving - self._serving_at_first.get(memory.rank, serving)
        return max(MARGIN_BYTES, whole - max(0, grown - peak))

    def room_bytes(self, ranks: Iterable[RankMemory], margin: int) -> int:
        """What captures may take on the tightest rank: free, less serving's need and the margin."""
        free = min(
            m.free_bytes - max(0, m.activation_peak_bytes - (m.activation_held_bytes or 0))
            for m in ranks
        )
        return max(0, free - margin)

    def tier_of(self, graph: str) -> int:
        """The tier of a graph; -1 for the default pool."""
        return next((i for i, tier in enumerate(self.tiers) if graph in tier), -1)

    def growth_bytes(self, name: str, graphs: Sequence[Graph], captured: Collection[str]) -> int:
        """What a capture will take by our own forecast."""
        tier = self.tier_of(name)
        mates = [g for g in graphs if g.id in captured and self.tier_of(g.id) == tier]
        graph = next(g for g in graphs if g.id == name)
        return forecast.need_bytes(graph, mates, self._shape)

    def preflight_args(
        self,
        name: str,
        need: int | None,
        growth: int,
        ranks: Sequence[RankMemory],
        alone: bool,
    ) -> tuple[Any, ...]:
        """Arguments of ``rank.preflight`` for a capture.

        Args:
            name: the graph.
            need: what the controller reserved; ``None``: nothing, our forecast counts.
            growth: our forecast.
            ranks: their memory.
            alone: nobody else looks at the headroom, so that we do.
        """
        # With its cache emptied serving has taken nothing yet: all of the allowance is to come.
        whole = self.margin_bytes
        if whole is None:
            peaks = (m.activation_peak_bytes for m in ranks)
            whole = forecast.allowance_bytes(max(peaks, default=0))
        if need is not None:
            return (name, 0, need + (self.margin_bytes or 0), need, need + whole)
        headroom = self.allowance(ranks) + growth if alone else 0
        return (name, self.margin() + growth, headroom, 0, growth + whole)

    def why_not_drop(self, graphs: Sequence[str], captured: Collection[str]) -> str | None:
        """Why these can't be dropped: a pool gives its memory back only as a whole."""
        named = set(graphs)
        for name in graphs:
            if name not in captured:
                return f"{name} is not captured"
            tier = self.tier_of(name)
            if tier < 0:
                return f"{name} is in no tier, and the default pool stays"
            mates = (g for g in self.tiers[tier] if g in captured and g not in named)
            if (mate := next(mates, None)) is not None:
                return f"{mate} shares the pool of {name} and is not named"
        return None

    # -------------------------------------------------------------- alone

    def found_no_room(self, graph: str, reason: str | None) -> None:
        """A capture of our own was refused: said once, and not asked again for a while."""
        if not self._short:
            self._short_until = time.monotonic() + ALONE_RETRY_SECONDS
            logger.warning("lazygraph: no memory for %s: %s", graph, reason)
        self._short.add(graph)

    def waiting_for_room(self) -> set[str]:
        """What is not to be asked for yet."""
        if self._short and time.monotonic() >= self._short_until:
            self._short = set()
        return self._short


def _keeps_nothing(mode: str, why: str) -> None:
    """Say so, aloud where somebody asked for a reservation."""
    level = logging.DEBUG if mode == "least" else logging.WARNING
    logger.log(level, "lazygraph: reserve=%s keeps nothing back: %s", mode, why)


def some(names: Sequence[str]) -> str:
    """Names for a log line."""
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
