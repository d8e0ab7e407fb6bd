"""The session with the controller: who this engine is, what it has, what it is told.

Without an endpoint there is no controller, and nothing of this reaches anybody. In EngineCore's
process: what it tells on either thread, what it is told on the link's.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket as net
import threading
import time
from collections.abc import Callable
from typing import Any

from .. import __version__
from ..protocol.graph import version_for
from ..protocol.key_proof import prove_key
from ..protocol.link import Link
from ..protocol.messages import (
    COMMANDS_WAITING_MAX,
    PROTOCOL_VERSION,
    PROTOCOL_VERSION_MIN,
    Freeze,
    FromEngine,
    Heartbeat,
    Hello,
    Inventory,
    Mode,
    Orders,
    Phase,
    Problem,
    Refuse,
    Resync,
    SetMode,
    Start,
    ToEngine,
    Welcome,
)
from ..protocol.texts import ID_CHARS_MAX, shortened
from ..settings import Settings
from .inbox import Command, Inbox
from .state import EngineState

logger = logging.getLogger("vllm.lazygraph")

# How long an engine waits for a controller to come back before it fills by itself.
ALONE_SECONDS = 3.0


class Session:
    """One per engine; the link under it makes the hand-shakes anew as often as it must."""

    def __init__(
        self,
        settings: Settings,
        config: Any,
        vllm_version: str,
        state: EngineState,
        inbox: Inbox,
        *,
        on_tick: Callable[[], None],
    ) -> None:
        """Prepare a session; nothing starts before ``connect``.

        Args:
            settings: endpoint, keys, name and the longest wait for a first set.
            config: vLLM's ``VllmConfig``.
            vllm_version: vLLM's version.
            state: what the engine is and holds.
            inbox: where commands go.
            on_tick: called on the link's thread, about once a second.
        """
        self._settings = settings
        self._config = config
        self._state = state
        self._inbox = inbox
        self._start: Start | None = None
        self._start_given = threading.Event()
        self.link: Link | None = None
        if settings.endpoint is not None:
            self.link = Link(
                settings,
                self.hello(vllm_version),
                on_message=self.receive,
                on_tick=on_tick,
                inventory=self.inventory,
                heartbeat=self.heartbeat,
            )

    # -------------------------------------------------------------- what it tells

    def hello(self, vllm_version: str) -> Hello:
        """Who this engine is."""
        parallel, model = self._config.parallel_config, self._config.model_config
        host = net.gethostname()
        name = getattr(model, "served_model_name", None) or getattr(model, "model", "unknown")
        name = name[0] if isinstance(name, (list, tuple)) else str(name)
        name = name.encode(errors="replace").decode()  # a path's bytes may be no UTF-8
        engine = self._settings.engine or f"{host}/{name}"
        # Engines of dense data parallelism know nothing of each other, and would share one name.
        if index := getattr(parallel, "data_parallel_index", 0):
            engine = f"{shortened(engine, ID_CHARS_MAX - 8)}#{index}"
        engine, session = shortened(engine, ID_CHARS_MAX), secrets.token_hex(8)
        curve = self._settings.curve
        return Hello(
            version_min=PROTOCOL_VERSION_MIN,
            version_max=PROTOCOL_VERSION,
            engine=engine,
            session=session,
            plugin_version=__version__,
            vllm_version=vllm_version,
            model=name[:512],
            host=host[:255],
            pid=os.getpid(),
            phase=self._state.phase,
            mode=self._state.mode,
            tensor_parallel=parallel.tensor_parallel_size,
            pipeline_parallel=parallel.pipeline_parallel_size,
            adapter=self._state.adapter,
            sleeps=True if self.sleeps else None,
            proof=prove_key(curve, engine, session) if curve else None,
        )

    @property
    def sleeps(self) -> bool:
        """Whether the engine can be told to sleep: by vLLM's sleep mode, where it has tags."""
        enabled = getattr(self._config.model_config, "enable_sleep_mode", False)
        return bool(enabled) and self._state.adapter == "v31"

    def inventory(self) -> Inventory | None:
        """All that the engine has; ``None`` while it has nothing to tell yet."""
        state = self._state
        if not state.graphs and not state.unsupported:
            return None  # too early: the KV cache isn't there yet
        facts = state.facts
        config = self._config
        blocks = config.cache_config.num_gpu_blocks or 0
        began = state.settling_at
        return Inventory(
            phase=state.phase,
            graphs=tuple(state.graphs),
            captured=tuple(state.captured.values()),
            ranks=state.ranks,
            cudagraph_mode=facts.get("cudagraph_mode", "unknown"),
            layers=facts.get("layers", 0),
            latent=True if "shape" in facts and facts["shape"].latent > 0 else None,
            max_requests=config.scheduler_config.max_num_seqs,
            max_batched_tokens=config.scheduler_config.max_num_batched_tokens,
            kv_cache_tokens=int(
                getattr(config.cache_config, "kv_cache_size_tokens", 0)
                or blocks * (config.cache_config.block_size or 0)
            ),
            epoch=state.epoch,
            unsupported=shortened(state.unsupported) if state.unsupported else None,
            reserve=state.room.reserved,
            tiers=state.room.tiers or None,
            asleep=state.asleep or None,
            frozen=shortened(state.frozen) if state.frozen else None,
            settling_seconds=None if began is None else max(0.0, time.monotonic() - began),
        )

    def heartbeat(self) -> Heartbeat:
        """How the engine stands, in a few words."""
        state = self._state
        return Heartbeat(
            phase=state.phase,
            mode=state.mode,
            epoch=state.epoch,
            captured=len(state.captured),
            state="idle" if state.idle else "busy",
            orders=state.orders.serial,
            frozen=state.frozen is not None,
            asleep=bool(state.asleep),
        )

    def connect(self) -> None:
        """Start connecting in the background."""
        if self.link is not None:
            self.link.start()

    def update_hello(
        self,
        *,
        phase: Phase | None = None,
        mode: Mode | None = None,
        orders: Orders | None = None,
    ) -> None:
        """Change what the next hand-shake says."""
        if self.link is not None:
            self.link.update_hello(phase=phase, mode=mode, orders=orders)

    def send(self, message: FromEngine) -> None:
        """Tell the controller, if it is there."""
        if self.link is not None:
            self.link.send(message)

    def tell_inventory(self) -> None:
        """Tell the controller all that there is, unasked."""
        if self.link is not None and (inventory := self.inventory()):
            self.link.send(inventory)

    def problem(self, code: str, text: str, error: Exception | None = None) -> None:
        """Log what is wrong, with the traceback of what was raised, and tell the controller."""
        logger.warning("lazygraph: %s [%s]", text, code, exc_info=error)
        self.send(Problem(code=code, message=shortened(text)))

    def close(self, reason: str) -> None:
        """Say goodbye."""
        if self.link is not None:
            self.link.close(reason)

    # -------------------------------------------------------------- what it knows of the other side

    def wait_for_start(self) -> Start | None:
        """The controller's first set; ``None`` if it didn't come within the bounded wait."""
        if self.link is not None:
            self.update_hello(phase=self._state.phase)
            self.link.require_version(version_for(self._state.graphs))
            self.tell_inventory()
            given = self._start_given.wait(self._settings.handshake_ms / 1000)
            if given and self._start is not None:
                return self._start
            if self.link.refused is not None:
                return None  # it has been logged why
            logger.warning(
                "lazygraph: no answer from a controller within %d ms; starting by the defaults of "
                "%s mode",
                self._settings.handshake_ms,
                self._state.mode,
            )
        return None

    def alone(self) -> bool:
        """Whether there is no controller, or none has come back in time."""
        if self.link is None:
            return True
        lost = self.link.lost_since
        return lost is not None and time.monotonic() - lost > ALONE_SECONDS

    @property
    def incarnation(self) -> int:
        """The controller's, by which its commands' ids are told from another one's; 0: none yet."""
        return self.link.incarnation if self.link else 0

    @property
    def dropped(self) -> int:
        """How many messages nobody was there for."""
        return self.link.dropped if self.link else 0

    # -------------------------------------------------------------- what it is told, link's thread

    def receive(self, message: ToEngine) -> None:
        """Take a message in; anything but bookkeeping goes to the main thread."""
        if isinstance(message, Welcome):
            self._welcomed(message)
        elif isinstance(message, Start):
            self._take_start(message)
        elif isinstance(message, Refuse):
            self._start_given.set()  # no answer will come: don't wait for one
        elif isinstance(message, Resync):
            self.tell_inventory()
        else:
            if isinstance(message, Freeze | SetMode):
                self._ordered(message.orders)
            self._pass_on(message)

    def _ordered(self, orders: Orders | None) -> None:
        """Keep what was ordered, for the next controller; one that says nothing leaves it."""
        if orders is not None:
            self._state.orders = orders
            self.update_hello(orders=orders)

    def _welcomed(self, message: Welcome) -> None:
        self._state.room.welcomed(message)
        self._ordered(message.orders)
        if not self._inbox.is_open:
            self._state.mode = message.mode
        elif message.mode != self._state.mode:
            self._pass_on(SetMode(mode=message.mode))

    def _take_start(self, message: Start) -> None:
        known = {g.id for g in self._state.graphs}
        tiers = (g for tier in message.tiers or () for g in tier)
        named = [*message.graphs, *(message.more or ()), *tiers, *(message.exclude or ())]
        unknown = next((g for g in named if g not in known), None)
        if unknown is not None:
            self.problem("ERR_LAZYGRAPH_UNKNOWN_GRAPH", f"start names unknown graph {unknown!r}")
        # Too late for a first set or not: what the user excluded stays so without a controller.
        self._state.excluded = frozenset(message.exclude or ())
        self._state.graphs_max = message.graphs_max
        self._start = message
        self._start_given.set()

    def _pass_on(self, message: ToEngine) -> None:
        if not self._inbox.accept(Command(message, incarnation=self.incarnation)):
            text = f"{COMMANDS_WAITING_MAX} commands are waiting already; send fewer at a time"
            self.problem("ERR_LAZYGRAPH_BUSY", text)
