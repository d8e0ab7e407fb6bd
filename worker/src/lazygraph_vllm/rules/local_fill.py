"""What an engine captures when nobody tells it: the defaults of its mode. Pure.

The same rules as in ``src/schedule/first-ladder.ts`` and ``first-budget.ts``, where more of their
reasons is said; ``test/golden/first-set.json.gz`` holds both sides to the same orders and sums.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, zip_longest
from typing import Any

from ..protocol.messages import Graph, Mode
from .dispatch import PAD_FLOOR_TOKENS

# A graph has to be missed this often before a lazy engine without controller captures it.
LAZY_MISSES_MIN = 3
# Captures before ready take at most this share of what stock spends on steps with, or without,
# adapters.
SHARE = 1 / 30
# What is left of a capture without its warm-up run, which stock makes for every graph: 0.55 and
# 0.63 on a Llama-3.1-8B under vLLM 0.26. Too high a share makes stock look cheaper than it is.
WITHOUT_WARM_UP = 0.65
# A kind of which only the top was captured, cold: its other graphs take at most so many times what
# the other kind's do. PIECEWISE took 1.5 times (a 30B MoE) and 2.4 times (an 8B) what FULL took.
KINDS_RATIO_MAX = 1.5
# Two graphs that spare as much but for rounding: then the larger one leads.
TIE = 1e-9


def top_graphs(graphs: Iterable[Graph]) -> list[Graph]:
    """The largest graph of each kind, uniform length and case, PIECEWISE first as in stock.

    A step of one case (adapters, longest query, microbatches) can't replay a graph of another: each
    needs its own top, or has none before ready.
    """
    tops: dict[tuple[Any, ...], Graph] = {}
    for graph in graphs:
        group = (graph.kind, graph.uniform or 0, *_case(graph))
        if group not in tops or graph.tokens > tops[group].tokens:
            tops[group] = graph
    return sorted(tops.values(), key=lambda g: (g.kind != "PIECEWISE", -g.tokens))


def first_set(mode: Mode, graphs: Sequence[Graph]) -> list[Graph]:
    """What to capture before ready, whatever it takes."""
    return list(graphs) if mode == "eager" else top_graphs(graphs)


def first_more(mode: Mode, graphs: Sequence[Graph]) -> list[Graph]:
    """What to capture before ready besides, in this order, while ``fits_budget`` says so."""
    return [] if mode == "eager" else first_ladder(graphs)


@dataclass(frozen=True)
class TimedCapture:
    """A capture before ready: of its kind, in seconds, with a warm-up run or without."""

    kind: str
    seconds: float
    warm_up: bool


def first_set_share(planned: Iterable[Graph]) -> float:
    """What comes before ready, of the seconds that stock spends on all these graphs.

    Steps with and without LoRA adapters have graphs of their own, all as many: an engine with twice
    the graphs is no more likely to meet any one of them, and whoever waits for it waits no longer.
    """
    return SHARE / max(1, len({graph.loras for graph in planned}))


def stock_seconds(
    planned: Iterable[Graph],
    captured: Sequence[TimedCapture],
    *,
    twice: bool,
    each_warm: bool = False,
) -> float:
    """Seconds that stock would spend on capturing these graphs at least, judged by ours so far.

    Args:
        planned: all graphs.
        captured: with what they took; of a kind that is not among them nothing is counted.
        twice: from vLLM 0.29 on all PIECEWISE graphs and two FULL are captured, thrown away, and
            captured again.
        each_warm: a warm-up run is in each capture of ours, as in stock's.
    """
    share = 1.0 if each_warm else WITHOUT_WARM_UP

    def cheapest(kind: str, warm_up: bool) -> float:
        alike = [c.seconds for c in captured if c.kind == kind and c.warm_up == warm_up]
        return min(alike, default=math.inf)

    warm = {kind: cheapest(kind, warm_up=False) for kind in ("PIECEWISE", "FULL")}

    def each(kind: str) -> float:
        if math.isfinite(warm[kind]):
            return warm[kind] / share
        other = warm["PIECEWISE" if kind == "FULL" else "FULL"]
        return min(cheapest(kind, warm_up=True), KINDS_RATIO_MAX * other / share)

    kinds = [graph.kind for graph in planned]
    seconds = 0.0
    for kind in ("PIECEWISE", "FULL"):
        count = kinds.count(kind)
        again = (min(2, count) if kind == "FULL" else count) if twice else 0
        if count > 0 and math.isfinite(each(kind)):
            seconds += (count + again) * each(kind)
    return seconds


def fits_budget(
    kind: str,
    planned: Sequence[Graph],
    captured: Sequence[TimedCapture],
    *,
    twice: bool,
    each_warm: bool = False,
    budget_seconds: float | None = None,
) -> bool:
    """Whether one more graph of this kind may come before ready.

    With several ranks one of them has to decide: each has its own clock, and they capture in
    lockstep.

    Args:
        kind: of the next graph.
        planned: all graphs.
        captured: all captures before ready so far.
        twice: see ``stock_seconds``.
        each_warm: as there.
        budget_seconds: of whoever knows what stock takes; else a share of ``stock_seconds``.
    """
    budget = budget_seconds
    if budget is None:
        budget = first_set_share(planned) * stock_seconds(
            planned, captured, twice=twice, each_warm=each_warm
        )
    alike = [c for c in captured if c.kind == kind]
    known = [c.seconds for c in alike if not c.warm_up] or [c.seconds for c in alike]
    # A kind that was never captured: nothing says that it would fit.
    return bool(known) and sum(c.seconds for c in captured) + max(known) <= budget


def next_capture(
    mode: Mode, graphs: Sequence[Graph], done: Collection[str], misses: Mapping[str, int]
) -> Graph | None:
    """The next graph to capture while idle; ``done`` holds captured, failed and refused ids.

    What traffic missed most, in lazy mode if that was often; in idle mode then ``fill_order``.
    """
    if mode == "eager":
        return None
    least = LAZY_MISSES_MIN if mode == "lazy" else 1
    missed = [g for g in graphs if g.id not in done and misses.get(g.id, 0) >= least]
    if missed:
        return max(missed, key=lambda g: misses[g.id])
    if mode == "lazy":
        return None
    return next((g for g in fill_order(tuple(graphs)) if g.id not in done), None)


def first_ladder(planned: Iterable[Graph]) -> list[Graph]:
    """Graphs for decode steps, the most useful first, without the largest, which come anyway.

    Where steps are of several cases (with LoRA adapters and without), each has its own order, and
    they come in turn: one case's graph serves no step of another.
    """
    return _in_turn([_ladder(graphs) for graphs in _by_case(planned)])


def _ladder(planned: Iterable[Graph]) -> list[Graph]:
    """The order of one case.

    Nothing is known of traffic or costs: steps are taken to be as likely in every octave of sizes,
    and each octave of padding as dear as the next. Up to the pad limit every step may take a graph
    of that size, and none that is larger: those sizes come first, the largest of them before all.
    """
    graphs = sorted(_decode_graphs(list(planned)), key=lambda g: g.tokens)
    if not graphs:
        return []
    top = graphs.pop()
    small = [g for g in graphs if g.tokens <= PAD_FLOOR_TOKENS]
    large = graphs[len(small) :]
    least = (graphs[0] if graphs else top).tokens / 2
    if not small:
        return _by_use(large, least, top.tokens)
    widest = small.pop()
    below = _by_use(small, least, widest.tokens)
    return [widest, *below, *_by_use(large, widest.tokens, top.tokens)]


@lru_cache(maxsize=4)
def fill_order(planned: tuple[Graph, ...]) -> tuple[Graph, ...]:
    """All graphs as an idle engine fills up: small ones for decode steps first.

    Then larger ones and PIECEWISE ones in turn, by the same rule, then what is left; of several
    cases each in turn.
    """
    return tuple(_in_turn([_fill(graphs) for graphs in _by_case(planned)]))


def _fill(planned: Sequence[Graph]) -> list[Graph]:
    ladder = _ladder(planned)
    large = [g for g in ladder if g.tokens > PAD_FLOOR_TOKENS]
    small = [g for g in ladder if g.tokens <= PAD_FLOOR_TOKENS]
    piecewise = sorted((g for g in planned if g.kind == "PIECEWISE"), key=lambda g: g.tokens)
    mixed: list[Graph] = []
    if piecewise:
        top = piecewise.pop()
        mixed = _by_use(piecewise, (piecewise[0].tokens if piecewise else 1) / 2, top.tokens)
    in_turn: list[Graph] = []
    for index in range(max(len(large), len(mixed))):
        in_turn += mixed[index : index + 1] + large[index : index + 1]
    rest = sorted(planned, key=lambda g: (-g.tokens, g.kind != "PIECEWISE"))
    return list(dict.fromkeys([*small, *in_turn, *rest]))


def _case(graph: Graph) -> tuple[int, int, int]:
    return graph.loras, graph.query_length or 0, graph.microbatches


def _by_case(planned: Iterable[Graph]) -> list[list[Graph]]:
    """The plan of each case, the case with fewer adapters first."""
    cases: dict[tuple[int, int, int], list[Graph]] = {}
    for graph in planned:
        cases.setdefault(_case(graph), []).append(graph)
    return [cases[case] for case in sorted(cases)]


def _in_turn(orders: Sequence[Sequence[Graph]]) -> list[Graph]:
    return [graph for graph in chain.from_iterable(zip_longest(*orders)) if graph is not None]


def _decode_graphs(planned: Sequence[Graph]) -> list[Graph]:
    """FULL graphs for uniform decode steps; where there are none, others that serve these."""
    decode = min((g.uniform for g in planned if g.uniform is not None), default=1)
    full = [g for g in planned if g.kind == "FULL"]
    uniform = [g for g in full if g.uniform == decode]
    mixed = [g for g in full if g.uniform is None]
    return uniform or mixed or [g for g in planned if g.kind == "PIECEWISE"]


@dataclass(frozen=True)
class _Gap:
    """Graphs between two captured sizes, by their places, and which of them spares the most."""

    start: int
    stop: int
    below: float
    above: float
    best: int
    spared: float


def _by_use(graphs: Sequence[Graph], below: float, above: float) -> list[Graph]:
    """Each next one by what it spares given those before it; by rising size, all in between."""
    sizes = [g.tokens for g in graphs]
    ordered: list[Graph] = []
    gaps = _open_gap(sizes, 0, len(sizes), below, above)
    while gaps:
        leader = gaps[0]
        for gap in gaps[1:]:
            if gap.spared < leader.spared - TIE:
                continue
            if gap.spared > leader.spared + TIE or gap.best > leader.best:
                leader = gap
        gaps.remove(leader)
        ordered.append(graphs[leader.best])
        size = sizes[leader.best]
        gaps += _open_gap(sizes, leader.start, leader.best, leader.below, size)
        gaps += _open_gap(sizes, leader.best + 1, leader.stop, size, leader.above)
    return ordered


def _open_gap(
    sizes: Sequence[int], start: int, stop: int, below: float, above: float
) -> list[_Gap]:
    """What is spared is the most at the mean in octaves: the best graph is next to it."""
    if start >= stop:
        return []

    def spared(place: int) -> float:
        return math.log2(sizes[place] / below) * math.log2(above / sizes[place])

    place = bisect_left(sizes, math.sqrt(below * above), start, stop)
    larger = min(place, stop - 1)
    smaller = max(place - 1, start)
    best = larger if spared(larger) >= spared(smaller) - TIE else smaller
    return [_Gap(start, stop, below, above, best, spared(best))]
