"""The engine's side of a session, inside vLLM's EngineCore process.

Commands arrive on the link's thread and run on EngineCore's main thread, between two steps, by
way of its own input queue. A command that must not run now is answered, never dropped.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket as net
import threading
import time
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Any

from . import __version__, local_fill, rank
from .link import Link
from .messages import (
    COMMANDS_WAITING_MAX,
    PROTOCOL_VERSION,
    TEXT_CHARS_MAX,
    Capture,
    Captured,
    Dispatch,
    Drop,
    Dropped,
    Edge,
    Freeze,
    FromEngine,
    Graph,
    Hello,
    Inventory,
    Outcome,
    Phase,
    Problem,
    RankMemory,
    Ready,
    Refusal,
    Refuse,
    Result,
    Resync,
    SetMode,
    Start,
    Telemetry,
    ToEngine,
    Welcome,
)
from .room import Room, some
from .settings import Settings
from .support import config_reason
from .telemetry import StepReports

logger = logging.getLogger("vllm.lazygraph")

TELEMETRY_SECONDS = 0.1
RESULTS_KEPT = 256
# How long an engine waits for a controller to come back before it fills by itself.
ALONE_SECONDS = 3.0

# To ourselves: look whether there is something to fill.
LOOK_AGAIN = Resync()


@dataclass(frozen=True)
class Command:
    """Travels through EngineCore's input queue; vLLM itself ignores it there."""

    message: ToEngine
    local: bool = False


class Agent:
    """One per EngineCore process."""

    def __init__(
        self, settings: Settings, config: Any, vllm_version: str, missing: str | None = None
    ) -> None:
        """Look at the configuration; nothing starts before ``begin``.

        Args:
            settings: what the environment asks for.
            config: vLLM's ``VllmConfig``.
            vllm_version: vLLM's version.
            missing: what this vLLM lacks of our hooks, as a sentence.
        """
        self.settings = settings
        self.mode = settings.mode
        self.unsupported = missing or config_reason(config, vllm_version, settings.allow_untested)
        self.phase: Phase = "stock" if self.unsupported else "loading"
        self.graphs: list[Graph] = []
        self.captured: dict[str, Captured] = {}
        self.gone: dict[str, str] = {}  # failed or refused for good, with the reason
        self.given_up: set[str] = set()  # not tried again while alone; a controller may
        self.misses: Counter[str] = Counter()
        self.ranks: tuple[RankMemory, ...] = ()
        self.epoch = 0
        self.frozen: str | None = None
        self.room = Room(settings)
        self._config = config
        self._facts: dict[str, Any] = {}
        self._ready: Ready | None = None
        self._engine: Any = None
        self._wakeup: Any = None
        self._early: list[Command] = []
        self._early_lock = threading.Lock()
        self._start: Start | None = None
        self._start_given = threading.Event()
        self._commands_waiting = 0
        self._results: OrderedDict[tuple[int, int], Result | Dropped] = OrderedDict()
        self._telemetry = StepReports()
        self._idle = False
        self._local_pending = False
        self._has_table = False
        self._captured_since_step = False
        self.link: Link | None = None
        if settings.endpoint is not None:
            self.link = Link(
                settings,
                self._hello(vllm_version),
                on_message=self._on_message,
                on_tick=self._on_tick,
                inventory=self._inventory,
            )

    def _hello(self, vllm_version: str) -> Hello:
        parallel, model = self._config.parallel_config, self._config.model_config
        host = net.gethostname()
        name = getattr(model, "served_model_name", None) or getattr(model, "model", "unknown")
        name = name[0] if isinstance(name, (list, tuple)) else str(name)
        engine = self.settings.engine or f"{host}/{name}"
        # Engines of dense data parallelism know nothing of each other, and would share one name.
        if index := getattr(parallel, "data_parallel_index", 0):
            engine = f"{engine[:120]}#{index}"
        return Hello(
            version_min=PROTOCOL_VERSION,
            version_max=PROTOCOL_VERSION,
            engine=engine[:128],
            session=secrets.token_hex(8),
            plugin_version=__version__,
            vllm_version=vllm_version,
            model=name[:512],
            host=host[:255],
            pid=os.getpid(),
            phase=self.phase,
            mode=self.mode,
            tensor_parallel=parallel.tensor_parallel_size,
            pipeline_parallel=parallel.pipeline_parallel_size,
        )

    # -------------------------------------------------------------- start-up, main thread

    def begin(self) -> None:
        """Log where we stand and start connecting."""
        if self.unsupported:
            logger.warning("lazygraph: running as stock: %s", self.unsupported)
        if self.link is not None:
            self.link.start()

    def step_aside(self, reason: str) -> None:
        """Leave this engine to vLLM: nothing of it was changed yet."""
        self.unsupported = reason
        self.phase = "stock"
        logger.warning("lazygraph: running as stock: %s", reason)
        if self.link is not None:
            self.link.update_hello(phase="stock")
            if inventory := self._inventory():
                self.link.send(inventory)

    def before_sizing(self, rpc: Any) -> None:
        """Before vLLM sizes its KV cache: keep memory for graphs back, if somebody wants it."""
        if not self.unsupported:
            self.room.before_sizing(rpc)

    def after_sizing(self, rpc: Any) -> None:
        """After it: did vLLM take what it was told?"""
        self.room.after_sizing(rpc)

    def before_capture(self, rpc: Any) -> None:
        """Between allocating the KV cache and capturing: hand-shake, then say what comes first."""
        if self.unsupported:
            return
        answers = rpc(rank.describe)
        reason = next((a["unsupported"] for a in answers if "unsupported" in a), None)
        if reason is None and any(a["graphs"] != answers[0]["graphs"] for a in answers):
            reason = "the ranks would capture different graphs"
        if reason is not None:
            self.step_aside(reason)
            return
        self._facts = answers[0]
        self.graphs = answers[0]["graphs"]
        self.ranks = tuple(a["memory"] for a in answers)
        self.phase = "capturing"
        start = self._wait_for_start()
        self.room.planned(self._facts, self.graphs, self.ranks, start)
        if start is None:
            first = self.room.first_set(self.mode, self.graphs, self.ranks)
        else:
            known = {g.id: g for g in self.graphs}
            first = [known[name] for name in start.graphs if name in known]
        options = self.room.prepare_options(first, self.ranks, alone=start is None)
        rpc(rank.prepare, args=([g.id for g in first], self.settings.verify, *options))

    def _wait_for_start(self) -> Start | None:
        """The controller's first set; ``None`` if it didn't come within the bounded wait."""
        if self.link is not None:
            self.link.update_hello(phase=self.phase)
            if inventory := self._inventory():
                self.link.send(inventory)
            given = self._start_given.wait(self.settings.handshake_ms / 1000)
            if given and self._start is not None:
                return self._start
            logger.warning(
                "lazygraph: no answer from a controller within %d ms; starting by the defaults of "
                "%s mode",
                self.settings.handshake_ms,
                self.mode,
            )
        return None

    def after_capture(self, rpc: Any) -> None:
        """All ranks have captured the first set."""
        if self.unsupported:
            return
        answers = rpc(rank.finish_start)
        if len({a["hash"] for a in answers}) != 1:
            raise RuntimeError("lazygraph: the ranks hold different graphs after start; ending")
        self.epoch = answers[0]["epoch"]
        bad = {g: w for a in answers for g, w in a["mismatched"].items()}
        if bad:
            reasons = {g: f"its replay differs by {w:.3g}" for g, w in bad.items()}
            self._purge_everywhere(rpc, reasons)
        if short := answers[0].get("refused"):
            logger.warning(
                "lazygraph: %d graphs were not captured before ready for want of memory, serving "
                "goes on without them: %s; the first: %s",
                len(short),
                some(list(short)),
                next(iter(short.values())),
            )
        self.captured = {c.graph: c for c in _slowest(a["captured"] for a in answers)}
        for name in bad:
            self.captured.pop(name, None)
        self.ranks = tuple(a["memory"] for a in answers)
        seconds = max(a["seconds"] for a in answers)
        self._ready = Ready(
            capture_seconds=seconds,
            captured=tuple(self.captured.values()),
            ranks=self.ranks,
            epoch=self.epoch,
        )
        logger.info(
            "lazygraph: captured %d of %d graphs in %.3f s before ready (%s mode)",
            len(self.captured),
            len(self.graphs),
            seconds,
            self.mode,
        )

    def _purge_everywhere(self, rpc: Any, reasons: dict[str, str]) -> None:
        for name, reason in reasons.items():
            logger.error("lazygraph: graph %s will not serve: %s", name, reason)
            self.gone[name] = reason
            self.captured.pop(name, None)
        self.epoch = rpc(rank.purge, args=(reasons,))[0]

    # -------------------------------------------------------------- what the controller learns

    def _inventory(self) -> Inventory | None:
        if not self.graphs and not self.unsupported:
            return None  # too early: the KV cache isn't there yet
        facts = self._facts
        config = self._config
        blocks = config.cache_config.num_gpu_blocks or 0
        return Inventory(
            phase=self.phase,
            graphs=tuple(self.graphs),
            captured=tuple(self.captured.values()),
            ranks=self.ranks,
            cudagraph_mode=facts.get("cudagraph_mode", "unknown"),
            layers=facts.get("layers", 0),
            max_requests=config.scheduler_config.max_num_seqs,
            max_batched_tokens=config.scheduler_config.max_num_batched_tokens,
            kv_cache_tokens=int(
                getattr(config.cache_config, "kv_cache_size_tokens", 0)
                or blocks * (config.cache_config.block_size or 0)
            ),
            epoch=self.epoch,
            unsupported=self.unsupported[:TEXT_CHARS_MAX] if self.unsupported else None,
            reserve=self.room.reserved,
            tiers=self.room.tiers or None,
        )

    def _send(self, message: FromEngine) -> None:
        if self.link is not None:
            self.link.send(message)

    # -------------------------------------------------------------- link's thread

    def _on_message(self, message: ToEngine) -> None:
        """Take a message in; anything but bookkeeping goes to the main thread."""
        if isinstance(message, Welcome):
            self._welcomed(message)
        elif isinstance(message, Start):
            self._take_start(message)
        elif isinstance(message, Refuse):
            self._start_given.set()  # no answer will come: don't wait for one
        elif isinstance(message, Resync):
            if inventory := self._inventory():
                self._send(inventory)
        else:
            self._enqueue(Command(message))

    def _welcomed(self, message: Welcome) -> None:
        self.room.welcomed(message)
        if self._engine is None:
            self.mode = message.mode
        elif message.mode != self.mode:
            self._enqueue(Command(SetMode(mode=message.mode)))

    def _take_start(self, message: Start) -> None:
        known = {g.id for g in self.graphs}
        named = [*message.graphs, *(g for tier in message.tiers or () for g in tier)]
        unknown = next((g for g in named if g not in known), None)
        if unknown is not None:
            self._problem("ERR_LAZYGRAPH_UNKNOWN_GRAPH", f"start names unknown graph {unknown!r}")
        self._start = message
        self._start_given.set()

    def _problem(self, code: str, text: str) -> None:
        logger.warning("lazygraph: %s [%s]", text, code)
        self._send(Problem(code=code, message=text[:TEXT_CHARS_MAX]))

    def _enqueue(self, command: Command) -> None:
        with self._early_lock:
            full = self._commands_waiting >= COMMANDS_WAITING_MAX
            self._commands_waiting += not full
        if full:
            text = f"{COMMANDS_WAITING_MAX} commands are waiting already; send fewer at a time"
            self._problem("ERR_LAZYGRAPH_BUSY", text)
            return
        with self._early_lock:
            if self._engine is None:
                self._early.append(command)
                return
        self._put(command)

    def _put(self, command: Command) -> None:
        self._engine.input_queue.put_nowait((self._wakeup, command))

    # -------------------------------------------------------------- main thread, serving

    def attach(self, engine: Any, wakeup: Any) -> None:
        """The busy loop starts: the engine serves from here on.

        Args:
            engine: vLLM's ``EngineCoreProc``.
            wakeup: the request type its input queue carries for us and ignores otherwise.
        """
        self._wakeup = wakeup
        self.phase = "stock" if self.unsupported else "serving"
        if self.link is not None:
            self.link.update_hello(phase=self.phase, mode=self.mode)
        if self._ready is not None:
            self._send(self._ready)
        with self._early_lock:
            self._engine = engine
            early, self._early = self._early, []
            for command in early:  # before any that comes from now on
                self._put(command)

    def detach(self) -> None:
        """The busy loop ended."""
        self.phase = "stopping"
        if self.link is not None:
            self.link.close("the engine shut down")

    def on_idle(self, engine: Any) -> None:
        """The engine is about to wait for work."""
        if self.unsupported:
            return
        if not self._idle:
            self._idle = True
            self._report_steps(engine, wait=True)
            self._edge(engine, "idle")
        self._fill_alone()

    def on_work(self, engine: Any) -> None:
        """The loop stops waiting: the engine has work again, or shuts down."""
        if self._idle and engine.has_work():
            self._idle = False
            self._edge(engine, "busy")

    def after_step(self, engine: Any) -> None:
        """After every step: report demand from time to time, without waiting for anyone."""
        self._captured_since_step = False
        if not self.unsupported and time.monotonic() >= self._telemetry.due_at:
            self._report_steps(engine, wait=False)

    def _edge(self, engine: Any, state: Any) -> None:
        running, waiting = engine.scheduler.get_request_counts()
        self._send(Edge(state=state, running=running, waiting=waiting))

    def _report_steps(self, engine: Any, wait: bool) -> None:
        telemetry = self._telemetry
        telemetry.due_at = time.monotonic() + TELEMETRY_SECONDS
        if wait:
            telemetry.collect(engine.model_executor.collective_rpc(rank.drain_steps))
        else:
            # The answer of last time is here by now: ranks answer in order, and steps came after.
            telemetry.poll()
            if telemetry.pending is None:
                telemetry.pending = engine.model_executor.collective_rpc(
                    rank.drain_steps, non_block=True
                )
        steps, dropped = telemetry.take()
        if not steps:
            return
        for step in steps:
            if step.served == "":
                self._count_miss(step.tokens, step.requests, step.uniform, step.count)
        running, waiting = engine.scheduler.get_request_counts()
        telemetry.sequence += 1
        message = Telemetry(
            sequence=telemetry.sequence,
            dropped=dropped + (self.link.dropped if self.link else 0),
            steps=steps,
            running=running,
            waiting=waiting,
        )
        self._send(message)

    def _count_miss(self, tokens: int, requests: int, uniform: int, count: int) -> None:
        """Remember what traffic wanted, for the time without a controller."""
        fitting = [
            g
            for g in self.graphs
            if g.tokens >= tokens
            and (g.requests is None or g.requests >= requests)
            and g.uniform in (None, uniform)
        ]
        if fitting:
            self.misses[min(fitting, key=lambda g: (g.tokens, g.kind != "FULL")).id] += count

    # -------------------------------------------------------------- alone

    def _alone(self) -> bool:
        if self.link is None:
            return True
        lost = self.link.lost_since
        return lost is not None and time.monotonic() - lost > ALONE_SECONDS

    def _fill_alone(self) -> None:
        """Without a controller: ask ourselves for the next graph while there is nothing to do."""
        if self._local_pending or self.frozen is not None or not self._alone():
            return
        done = self.captured.keys() | self.gone.keys() | self.given_up
        done |= self.room.waiting_for_room()
        graph = local_fill.next_capture(self.mode, self.graphs, done, self.misses)
        if graph is not None:
            self._local_pending = True
            self._put(Command(Capture(command=0, graph=graph.id, when_idle=True), local=True))

    def _on_tick(self) -> None:
        """On the link's thread, about once a second: an idle engine can't see time pass itself."""
        if self._idle and not self._local_pending and self._engine is not None and self._alone():
            self._put(Command(LOOK_AGAIN, local=True))

    # -------------------------------------------------------------- commands, main thread

    def execute(self, engine: Any, command: Command) -> None:
        """Run one command between two steps."""
        message = command.message
        if not command.local:
            with self._early_lock:
                self._commands_waiting -= 1
        if isinstance(message, Capture):
            self._execute_capture(engine, message, command.local)
        elif isinstance(message, Drop):
            self._execute_drop(engine, message)
        elif isinstance(message, Dispatch):
            if not self.unsupported:
                answers = engine.model_executor.collective_rpc(rank.set_table, args=(message,))
                if why := next((a for a in answers if a), None):
                    self._problem("ERR_LAZYGRAPH_UNKNOWN_GRAPH", why)
                else:
                    self._has_table = True
        elif message is LOOK_AGAIN:
            if self._idle:
                self._fill_alone()
        elif isinstance(message, Freeze):
            self.frozen = message.reason or "frozen"
        elif isinstance(message, SetMode):
            self.mode, self.frozen = message.mode, None
            if self.link is not None:
                self.link.update_hello(mode=self.mode)

    def _execute_capture(self, engine: Any, message: Capture, local: bool) -> None:
        key = (self.link.incarnation if self.link else 0, message.command)
        if local:
            self._local_pending = False
            if not self._alone():
                return  # a controller came back meanwhile: it decides
        elif (earlier := self._results.get(key)) is not None:
            self._send(earlier)
            return
        result = self._capture(engine, message, local)
        if local:
            if result.refusal == "headroom":
                self.room.found_no_room(message.graph, result.reason)
            elif result.outcome in ("refused", "failed"):
                self.given_up.add(message.graph)
            if result.outcome == "captured" and self._has_table:
                # The table of the controller that is gone doesn't know this graph.
                self._has_table = False
                engine.model_executor.collective_rpc(rank.set_table, args=(None,))
            if result.outcome != "deferred":
                self._fill_alone()  # deferred: the next idle edge asks again
            return
        self._answer(key, result)

    def _answer(self, key: tuple[int, int], answer: Result | Dropped) -> None:
        if answer.outcome != "deferred":
            self._results[key] = answer
            while len(self._results) > RESULTS_KEPT:
                self._results.popitem(last=False)
        self._send(answer)

    def _execute_drop(self, engine: Any, message: Drop) -> None:
        key = (self.link.incarnation if self.link else 0, message.command)
        if (earlier := self._results.get(key)) is not None:
            self._send(earlier)
        else:
            self._answer(key, self._drop(engine, message))

    def _drop(self, engine: Any, message: Drop) -> Dropped:
        def dropped(outcome: Any, reason: str | None = None, freed: int = 0) -> Dropped:
            return Dropped(
                command=message.command,
                outcome=outcome,
                graphs=message.graphs if outcome == "dropped" else (),
                freed_bytes=freed,
                reason=reason[:TEXT_CHARS_MAX] if reason else None,
                ranks=self.ranks,
                epoch=self.epoch,
            )

        if reason := self._why_not_drop(engine, message):
            return dropped("refused", reason)
        if reason := self._why_not_touch(engine):
            return dropped("deferred", reason)
        self._quiesce(engine)
        answers = engine.model_executor.collective_rpc(rank.drop, args=(message.graphs,))
        if len({a["hash"] for a in answers}) != 1:
            raise RuntimeError("lazygraph: the ranks disagree after dropping graphs; ending")
        for name in message.graphs:
            del self.captured[name]
        self.epoch = answers[0]["epoch"]
        self.ranks = tuple(a["memory"] for a in answers)
        freed = min(a["freed"] for a in answers)
        logger.info("lazygraph: dropped %d graphs, %d MiB", len(message.graphs), freed >> 20)
        return dropped("dropped", freed=freed)

    def _why_not_drop(self, engine: Any, message: Drop) -> str | None:
        if self.unsupported:
            return f"running as stock: {self.unsupported}"
        if not engine.is_running():
            return "the engine is shutting down"
        return self.room.why_not_drop(message.graphs, self.captured)

    def _capture(self, engine: Any, message: Capture, local: bool = False) -> Result:
        started = time.perf_counter()

        def result(
            outcome: Outcome,
            reason: str | None = None,
            ms: float = 0,
            size: int = 0,
            refusal: Refusal = "other",
        ) -> Result:
            return Result(
                command=message.command,
                graph=message.graph,
                outcome=outcome,
                reason=reason[:TEXT_CHARS_MAX] if reason else None,
                refusal=refusal if outcome == "refused" else None,
                stall_ms=(time.perf_counter() - started) * 1000,
                ms=ms,
                bytes=size,
                ranks=self.ranks,
                epoch=self.epoch,
            )

        if message.graph in self.captured:
            done = self.captured[message.graph]
            return result("already", ms=done.ms, size=done.bytes)
        if reason := self._why_not(engine, message):
            return result("refused", reason)
        if reason := self._why_not_now(engine, message):
            return result("deferred", reason)
        rpc = engine.model_executor.collective_rpc
        self._quiesce(engine)
        if refused := self._preflight(rpc, message, local):
            reason, short = refused
            return result("refused", reason, refusal="headroom" if short else "other")
        self._captured_since_step = True
        answers = rpc(rank.capture, args=(message.graph,))
        return self._book(rpc, message.graph, answers, result)

    def _preflight(self, rpc: Any, message: Capture, local: bool) -> tuple[str, bool] | None:
        """Ask every rank before anything is captured; why not, and whether for want of memory.

        With ``need_bytes`` each rank holds so much until its capture begins, and gives it back
        when another one can't.
        """
        growth = self.room.growth_bytes(message.graph, self.graphs, self.captured)
        args = self.room.preflight_args(
            message.graph, message.need_bytes, growth, self.ranks, alone=local
        )
        checks = rpc(rank.preflight, args=args)
        if len({c["hash"] for c in checks}) != 1:
            raise RuntimeError("lazygraph: the ranks hold different graphs; ending the engine")
        refused = next((c for c in checks if c["reason"]), None)
        if refused is None:
            return None
        # Fresh figures of those that have no room: they say what a controller has to wait for.
        self.ranks = tuple(
            c.get("memory", known) for c, known in zip(checks, self.ranks, strict=True)
        )
        if message.need_bytes is not None:
            rpc(rank.give_back)
        rank_number = f"rank {checks.index(refused)}: " if len(checks) > 1 else ""
        return f"{rank_number}{refused['reason']}", refused.get("short", False)

    def _book(self, rpc: Any, graph: str, answers: list[dict[str, Any]], result: Any) -> Result:
        errors = [a["error"] for a in answers if "error" in a]
        if errors and len(answers) > 1:
            # The other ranks wait in a collective for one that won't come, or hold a graph that
            # this one lacks. No step after this would be right.
            raise RuntimeError(
                f"lazygraph: capturing {graph} failed on {len(errors)} of {len(answers)} ranks "
                f"({errors[0]}); no rank can go on after that, ending the engine"
            )
        if errors:
            self.epoch = answers[0]["epoch"]
            if answers[0].get("short"):
                self.ranks = tuple(a["memory"] for a in answers)
                return result("refused", f"headroom: {errors[0]}", refusal="headroom")
            self.gone[graph] = errors[0]
            return result("failed", errors[0])
        self.epoch = answers[0]["epoch"]
        self.ranks = tuple(a["memory"] for a in answers)
        if len({a["hash"] for a in answers}) != 1:
            raise RuntimeError(f"lazygraph: the ranks disagree after capturing {graph}; ending")
        mismatches = [a["mismatch"] for a in answers if a["mismatch"] is not None]
        if mismatches:
            worst = max(mismatches)
            reason = f"its replay differs from an ungraphed run by {worst:.3g}"
            self._purge_everywhere(rpc, {graph: reason})
            return result("failed", reason)
        slowest = next(iter(_slowest([a["captured"]] for a in answers)))
        self.captured[graph] = slowest
        return result("captured", ms=slowest.ms, size=slowest.bytes)

    def _why_not(self, engine: Any, message: Capture) -> str | None:
        """A reason that won't go away by itself."""
        if self.unsupported:
            return f"running as stock: {self.unsupported}"
        if message.graph not in {g.id for g in self.graphs}:
            return f"unknown graph {message.graph!r}"
        if message.graph in self.gone:
            return self.gone[message.graph]
        if self.frozen is not None:
            return f"frozen: {self.frozen}"
        if not engine.is_running():
            return "the engine is shutting down"
        return None

    def _why_not_touch(self, engine: Any) -> str | None:
        """A reason that will go away, for whatever changes the graphs."""
        if engine.model_executor.is_sleeping:
            return "the engine sleeps"
        if engine.is_scheduler_paused():
            return "the scheduler is paused"
        return None

    def _why_not_now(self, engine: Any, message: Capture) -> str | None:
        """A reason that will go away."""
        if reason := self._why_not_touch(engine):
            return reason
        if engine.has_work() or _request_waits(engine):
            if message.when_idle:
                return "the engine is busy"
            if self._captured_since_step:
                return "requests wait for no more than one capture between two steps"
        return None

    def _quiesce(self, engine: Any) -> None:
        """Wait for the step in flight; the engine takes the same, finished, future later."""
        for item in list(engine.batch_queue or ()):
            future = item[0]
            try:
                future.result()
            except Exception:
                return  # the engine meets the same error in its own step, and handles it there


def _request_waits(engine: Any) -> bool:
    """Whether anything but commands of ours is queued behind this one."""
    return any(not isinstance(request, Command) for _, request in list(engine.input_queue.queue))


def _slowest(per_rank: Any) -> list[Captured]:
    """Merge what ranks report of the same captures: the largest time and size of each."""
    merged: dict[str, Captured] = {}
    for captured in per_rank:
        for c in captured:
            seen = merged.get(c.graph)
            merged[c.graph] = (
                c
                if seen is None
                else Captured(graph=c.graph, ms=max(c.ms, seen.ms), bytes=max(c.bytes, seen.bytes))
            )
    return list(merged.values())
