"""A small controller for tests: answers the hand-shake, sends what it is told."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from typing import Any

import zmq

from lazygraph_vllm.protocol.messages import (
    PROTOCOL_VERSION,
    PROTOCOL_VERSION_MIN,
    ROW_GRAPHS_MAX,
    Dispatch,
    DispatchRow,
    Heartbeat,
    Hello,
    Inventory,
    Later,
    Refuse,
    Start,
    ToEngine,
    Welcome,
    decode_from_engine,
    encode,
)


class FakeController:
    """Binds a ROUTER; keeps messages; ``send`` reaches the newest engine."""

    def __init__(
        self,
        mode: str = "idle",
        endpoint: str = "tcp://127.0.0.1:*",
        first: list[str] | None = None,
        versions: tuple[int, int] = (PROTOCOL_VERSION_MIN, PROTOCOL_VERSION),
        incarnation: int | None = None,
    ) -> None:
        self.mode = mode
        self.first = first
        self.versions = versions
        self.spoken = 0
        self.tiers: tuple[tuple[str, ...], ...] | None = None
        self.incarnation = int(time.time() * 1000) if incarnation is None else incarnation
        self.received: list[Any] = []
        self.answer_hello = True
        self.later: Later | None = None  # instead of a welcome
        self.send_heartbeats = True
        self.heartbeat_ms = 1000  # it sends five times as many: a loaded host is no silence
        self._out: deque[tuple[bytes | None, bytes]] = deque()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.ROUTER_HANDOVER, 1)  # as the real one
        self._socket.bind(endpoint)
        self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self.peer: bytes | None = None
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(5)
        self._context.destroy(0)

    def send(self, message: ToEngine) -> None:
        self._out.append((None, encode(message)))

    def send_raw(self, frame: bytes) -> None:
        self._out.append((None, frame))

    def wait_for(self, kind: type, seconds: float = 60.0, where: Any = None, after: int = 0) -> Any:
        """The first message of ``kind`` from index ``after`` on that ``where`` accepts."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while True:
                for message in self.received[after:]:
                    if isinstance(message, kind) and (where is None or where(message)):
                        return message
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    raise AssertionError(
                        f"no {kind.__name__} within {seconds} s; got {self.received[after:][-5:]}"
                    )

    def _run(self) -> None:
        beat = 0.0
        while not self._stop.is_set():
            while self._out:
                peer, frame = self._out.popleft()
                self._put(peer or self.peer, frame)
            if self.peer and self.send_heartbeats and time.monotonic() > beat:
                beat = time.monotonic() + 0.2
                self._put(self.peer, encode(Heartbeat()))
            if not self._socket.poll(10):
                continue
            peer, frame = self._socket.recv_multipart()
            message = decode_from_engine(frame)
            answer: ToEngine | None = None
            if isinstance(message, Hello) and self.answer_hello:
                self.peer = peer
                answer = self.later or self.refusal(message) or self.welcome()
            if isinstance(message, Inventory) and message.phase == "capturing":
                first = self.first if self.first is not None else top_ids(message)
                answer = Start(graphs=tuple(first), tiers=self.tiers)
            # Before the answer: whoever sees its effect finds the message here.
            with self._changed:
                self.received.append(message)
                self._changed.notify_all()
            if answer is not None:
                self._put(peer, encode(answer))

    def refusal(self, hello: Hello) -> Refuse | None:
        """As controllers of these versions refuse; else the version is ``spoken``."""
        oldest, newest = self.versions
        self.spoken = min(newest, hello.version_max)
        if self.spoken >= max(oldest, hello.version_min):
            return None
        too_old = hello.version_min > newest
        side = "lazygraph, the controller" if too_old else "lazygraph-vllm, the plugin"
        ours, theirs = (
            f"version {a}" if a == b else f"versions {a} to {b}"
            for a, b in (self.versions, (hello.version_min, hello.version_max))
        )
        return Refuse(
            code="ERR_LAZYGRAPH_PROTOCOL_VERSION",
            message=(
                f"Expected engine {hello.engine} to speak protocol {ours}, got {theirs}: "
                f"upgrade {side}."
            ),
        )

    def welcome(self) -> Welcome:
        return Welcome(
            version=self.spoken,
            incarnation=self.incarnation,
            heartbeat_ms=self.heartbeat_ms,
            mode=self.mode,
        )

    def _put(self, peer: bytes | None, frame: bytes) -> None:
        if peer is None:
            return
        with contextlib.suppress(zmq.ZMQError):
            self._socket.send_multipart([peer, frame], zmq.NOBLOCK)


def top_ids(inventory: Inventory) -> list[str]:
    from lazygraph_vllm.rules.local_fill import top_graphs

    return [g.id for g in top_graphs(inventory.graphs)]


def next_size_table(inventory: Inventory, captured: set[str]) -> Dispatch:
    """Every step to the next captured size, however far: for tests of dispatch."""

    def rows(uniform: bool) -> tuple[DispatchRow, ...]:
        graphs = sorted(
            (g for g in inventory.graphs if g.id in captured and (uniform or g.uniform is None)),
            key=lambda g: (g.tokens, g.kind != "FULL"),
        )
        sizes = sorted({g.tokens for g in graphs})
        return tuple(
            DispatchRow(
                up_to=n, graphs=tuple(g.id for g in graphs if g.tokens >= n)[:ROW_GRAPHS_MAX]
            )
            for n in sizes
        )

    return Dispatch(uniform=rows(True), mixed=rows(False))
