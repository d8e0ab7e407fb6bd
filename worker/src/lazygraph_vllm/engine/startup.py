"""An engine's start: the plan, what is captured before ready, and what came of it.

In EngineCore's process, on the main thread.
"""

from __future__ import annotations

import logging
from typing import Any

from ..protocol.messages import PhaseSeconds, Ready, Start
from ..rank import calls as rank
from ..rules import forecast, local_fill
from ..settings import Settings
from ..timeline.report import start_phases
from ..vllm.allowed import gpu_reason, not_shown
from .headroom import some
from .lockstep import purge, slowest
from .session import Session
from .state import EngineState

logger = logging.getLogger("vllm.lazygraph")


class StartUp:
    """Once per engine, on the main thread: ``take_plan``, ``prepare``, vLLM's capture, ``finish``.

    vLLM's capture itself runs between the last two; the ranks make it capture the first set only.
    """

    def __init__(
        self, state: EngineState, session: Session, settings: Settings, vllm_version: str
    ) -> None:
        self._state = state
        self._session = session
        self._settings = settings
        self._vllm_version = vllm_version

    def identify(self, rpc: Any) -> str | None:
        """Before anything is changed: whether all ranks are as we know them; the reason if not."""
        answers = rpc(rank.identify)
        if reason := next((a["missing"] for a in answers if a["missing"]), None):
            return str(reason)
        chosen = min((what for a in answers for what in a["chosen"]), default=None)
        if chosen and not self._settings.allow_untested:
            return not_shown(chosen, self._vllm_version)
        names = sorted({a["gpu"] for a in answers})
        reasons = [gpu_reason(name, self._vllm_version) for name in names]
        new = next((reason for reason in reasons if reason), None)
        if new is None:
            return None
        if self._settings.other_gpus == "stock":
            return f"{new}, and LAZYGRAPH_OTHER_GPUS=stock"
        logger.warning("lazygraph: %s: check its answers, or set LAZYGRAPH_OTHER_GPUS=stock", new)
        return None

    def take_plan(self, rpc: Any) -> str | None:
        """Ask the ranks what they could capture; the reason if they can't alike."""
        state = self._state
        answers = rpc(rank.describe)
        reason = next((a["unsupported"] for a in answers if "unsupported" in a), None)
        if reason is None and any(a["graphs"] != answers[0]["graphs"] for a in answers):
            reason = "the ranks would capture different graphs"
        if reason is not None:
            return reason
        state.facts = answers[0] | _largest(answers)
        state.graphs = answers[0]["graphs"]
        state.ranks = tuple(a["memory"] for a in answers)
        state.phase = "capturing"
        return None

    def prepare(self, rpc: Any) -> None:
        """Hand-shake, then tell the ranks what comes first."""
        state = self._state
        start = self._session.wait_for_start()
        state.room.planned(state.facts, state.graphs, state.ranks, start)
        if start is None:
            first = state.room.first_set(state.mode, state.graphs, state.ranks)
        else:
            known = {g.id: g for g in state.graphs}
            first = [known[name] for name in start.graphs if name in known]
        names = [g.id for g in first]
        tiers, margin = state.room.prepare_options(first, state.ranks, alone=start is None)
        more, budget_seconds = self._more(start)
        rpc(
            rank.prepare,
            args=(names, self._settings.verify, tiers, margin, more, budget_seconds),
        )

    def _more(self, start: Start | None) -> tuple[tuple[str, ...], float | None]:
        """What comes before ready besides, while the budget lasts, and a controller's budget."""
        state = self._state
        if start is None:
            ladder = local_fill.first_more(state.mode, state.graphs)
            return tuple(g.id for g in ladder), None
        budget = None if start.budget_ms is None else start.budget_ms / 1000
        return start.more or (), budget

    def finish(self, rpc: Any) -> Ready | None:
        """Book what all ranks have captured of the first set; ``None``: vLLM passed us by."""
        state = self._state
        answers = rpc(rank.finish_start)
        if any("missed" in a for a in answers):
            rpc(rank.step_aside)
            state.graphs = []
            return None
        if len({a["hash"] for a in answers}) != 1:
            raise RuntimeError("lazygraph: the ranks hold different graphs after start; ending")
        state.epoch = answers[0]["epoch"]
        bad = {g: w for a in answers for g, w in a["mismatched"].items()}
        if bad:
            purge(rpc, state, {g: f"its replay differs by {w:.3g}" for g, w in bad.items()})
        if short := answers[0].get("refused"):
            logger.warning(
                "lazygraph: %d graphs were not captured before ready for want of memory, serving "
                "goes on without them: %s; the first: %s",
                len(short),
                some(list(short)),
                next(iter(short.values())),
            )
        state.captured = {c.graph: c for c in slowest(a["captured"] for a in answers)}
        for name in bad:
            state.captured.pop(name, None)
        state.ranks = tuple(a["memory"] for a in answers)
        seconds = max(a["seconds"] for a in answers)
        ready = Ready(
            capture_seconds=seconds,
            captured=tuple(state.captured.values()),
            ranks=state.ranks,
            epoch=state.epoch,
            warm_up_seconds=max(a["warm_up_seconds"] for a in answers),
            skipped=tuple(answers[0]["skipped"]) or None,
            phases=tuple(PhaseSeconds(name=n, seconds=s) for n, s in start_phases()) or None,
        )
        logger.info(
            "lazygraph: captured %d of %d graphs in %.3f s before ready (%s mode)",
            len(state.captured),
            len(state.graphs),
            seconds,
            state.mode,
        )
        return ready


def _largest(answers: list[dict[str, Any]]) -> dict[str, Any]:
    """What forecasts go by: the rank whose graphs take most, as all ranks capture the same.

    Stages of a pipeline have layers of their own, and not all as many.
    """
    return {
        "layers": max(a["layers"] for a in answers),
        "shape": forecast.largest(a["shape"] for a in answers),
    }
