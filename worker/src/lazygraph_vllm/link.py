"""The engine's socket: one DEALER, one thread, its own ZeroMQ context.

The thread parses messages and hands them on; it never touches CUDA and never blocks anybody.
Nothing is queued for a controller that isn't there: IMMEDIATE keeps messages out of a pipe that is
not connected, telemetry is dropped and counted, and what the controller must know after a gap it
gets by a new hand-shake.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable

import msgspec
import zmq
from zmq.utils.monitor import recv_monitor_message

from .messages import (
    PROTOCOL_VERSION,
    TEXT_CHARS_MAX,
    FrameError,
    FromEngine,
    Goodbye,
    Heartbeat,
    Hello,
    Inventory,
    Mode,
    Phase,
    Problem,
    Refuse,
    Resync,
    ToEngine,
    Welcome,
    decode_to_engine,
    encode,
)
from .settings import Settings

logger = logging.getLogger("vllm.lazygraph")

OUTBOX_MAX = 1024
HEARTBEATS_MISSED_MAX = 5
HELLO_INTERVAL_SECONDS = 1.0
HELLO_INTERVAL_BEFORE_FIRST_SECONDS = 0.1


class Link:
    """Keeps the session with the controller; thread-safe from outside."""

    def __init__(
        self,
        settings: Settings,
        hello: Hello,
        *,
        on_message: Callable[[ToEngine], None],
        on_tick: Callable[[], None],
        inventory: Callable[[], Inventory | None],
    ) -> None:
        """Prepare a link; nothing starts before ``start``.

        Args:
            settings: endpoint and keys.
            hello: what the hand-shake says; see ``update_hello``.
            on_message: called on the link's thread with each message of an established session.
            on_tick: called on the link's thread, about once a second.
            inventory: what to send after each hand-shake; called on the link's thread.
        """
        assert settings.endpoint is not None
        self._settings = settings
        self._hello = hello
        self._on_message = on_message
        self._lock = threading.Lock()
        self._outbox: deque[FromEngine] = deque()
        self._on_tick = on_tick
        self._inventory = inventory
        self._closing = threading.Event()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        os.set_blocking(self._wake_read, False)
        self._thread = threading.Thread(target=self._run, name="lazygraph-link", daemon=True)
        self.established = threading.Event()
        self.refused: Refuse | None = None
        self.lost_since: float | None = time.monotonic()
        self.incarnation = 0
        self.dropped = 0
        self.unknown = 0

    # -------------------------------------------------------------- from other threads

    def start(self) -> None:
        """Start connecting in the background."""
        self._thread.start()

    def update_hello(self, *, phase: Phase | None = None, mode: Mode | None = None) -> None:
        """Change what the next hand-shake says."""
        with self._lock:
            changes = {k: v for k, v in (("phase", phase), ("mode", mode)) if v is not None}
            self._hello = msgspec.structs.replace(self._hello, **changes)

    def send(self, message: FromEngine) -> bool:
        """Queue a message if the controller is there; else drop and count it."""
        if not self.established.is_set():
            self.dropped += 1
            return False
        with self._lock:
            if len(self._outbox) >= OUTBOX_MAX:
                self.dropped += 1
                return False
            self._outbox.append(message)
        self._wake()
        return True

    def close(self, reason: str) -> None:
        """Say goodbye and stop; waits at most a second."""
        if not self._thread.is_alive():
            return
        self.send(Goodbye(reason=reason))
        self._closing.set()
        self._wake()
        self._thread.join(timeout=1.0)

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full: the thread is awake already
            os.write(self._wake_write, b"x")

    # -------------------------------------------------------------- the thread

    def _run(self) -> None:
        try:
            self._serve()
        except Exception:
            logger.exception("lazygraph: the link to the controller ended; serving goes on")
        finally:
            self.established.clear()

    def _socket(self, context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
        socket = context.socket(zmq.DEALER)
        # Random per process: two engines of one name would steal each other's route.
        socket.setsockopt(zmq.ROUTING_ID, b"e" + secrets.token_bytes(15))
        for option, value in (
            (zmq.IMMEDIATE, 1),
            (zmq.LINGER, 200),
            (zmq.SNDTIMEO, 0),
            (zmq.SNDHWM, OUTBOX_MAX),
            (zmq.RCVHWM, OUTBOX_MAX),
            (zmq.MAXMSGSIZE, 1 << 20),
            (zmq.RECONNECT_IVL, 50),
            (zmq.RECONNECT_IVL_MAX, 1000),
        ):
            socket.setsockopt(option, value)
        if curve := self._settings.curve:
            socket.setsockopt(zmq.CURVE_SERVERKEY, curve.server_key.encode())
            socket.setsockopt(zmq.CURVE_PUBLICKEY, curve.public_key.encode())
            socket.setsockopt(zmq.CURVE_SECRETKEY, curve.secret_key.encode())
        return socket

    def _serve(self) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        socket = self._socket(context)
        monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        assert self._settings.endpoint is not None
        socket.connect(self._settings.endpoint)
        poller = zmq.Poller()
        for source in (socket, monitor, self._wake_read):
            poller.register(source, zmq.POLLIN)
        state = _State()
        try:
            while not self._closing.is_set():
                self._tick(socket, state)
                ready = dict(poller.poll(max(1, int(state.wait_seconds() * 1000))))
                if self._wake_read in ready:
                    os.read(self._wake_read, 4096)
                if monitor in ready:
                    self._on_monitor(monitor, state)
                if socket in ready:
                    self._receive(socket, state)
                self._flush(socket)
            self._flush(socket)
        finally:
            socket.disable_monitor()
            monitor.close(0)
            socket.close(200)
            context.destroy(200)

    def _tick(self, socket: zmq.Socket[bytes], state: _State) -> None:
        """Say hello or send a heartbeat when it is time; notice a silent controller."""
        now = time.monotonic()
        if now >= state.next_tick_at:
            state.next_tick_at = now + 1.0
            self._on_tick()
        if self.refused is not None:
            return
        if state.reconnect_at is not None and now >= state.reconnect_at:
            self._reconnect(socket, state)
        if self.established.is_set():
            if now - state.heard_at > HEARTBEATS_MISSED_MAX * state.heartbeat_seconds:
                logger.warning("lazygraph: the controller fell silent; serving with what there is")
                self._lose(state)
            elif now >= state.next_heartbeat_at:
                state.next_heartbeat_at = now + state.heartbeat_seconds
                self._put(socket, Heartbeat())
            return
        if now >= state.next_hello_at:
            state.next_hello_at = now + (
                HELLO_INTERVAL_BEFORE_FIRST_SECONDS
                if self.incarnation == 0
                else HELLO_INTERVAL_SECONDS
            )
            with self._lock:
                hello = self._hello
            self._put(socket, hello)

    def _on_monitor(self, monitor: zmq.Socket[bytes], state: _State) -> None:
        event = recv_monitor_message(monitor)["event"]
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            state.next_hello_at = 0.0
        elif event == zmq.EVENT_DISCONNECTED:
            if self.established.is_set():
                logger.warning("lazygraph: lost the controller; serving goes on with what there is")
                self._lose(state)
            if state.reconnect_at is None:
                state.reconnect_at = max(time.monotonic(), state.reconnected_at + 1.0)

    def _reconnect(self, socket: zmq.Socket[bytes], state: _State) -> None:
        """Connect anew: ZeroMQ does by itself, but not after a frame beyond MAXMSGSIZE."""
        state.reconnect_at, state.reconnected_at = None, time.monotonic()
        assert self._settings.endpoint is not None
        with contextlib.suppress(zmq.ZMQError):
            socket.disconnect(self._settings.endpoint)
        socket.connect(self._settings.endpoint)

    def _lose(self, state: _State) -> None:
        self.established.clear()
        self.lost_since = time.monotonic()
        state.next_hello_at = 0.0
        with self._lock:
            self.dropped += len(self._outbox)
            self._outbox.clear()

    def _receive(self, socket: zmq.Socket[bytes], state: _State) -> None:
        for _ in range(64):  # a bound per turn, so that sending gets its turn too
            try:
                frames = socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            state.heard_at = time.monotonic()
            try:
                if len(frames) != 1:
                    raise FrameError(f"expected one frame a message, got {len(frames)}")
                message = decode_to_engine(frames[0])
            except FrameError as error:
                text = str(error)[:TEXT_CHARS_MAX]  # it may quote what came
                self._put(socket, Problem(code="ERR_LAZYGRAPH_PROTOCOL_FRAME", message=text))
                continue
            if message is None:
                self.unknown += 1
                continue
            self._handle(socket, state, message)

    def _handle(self, socket: zmq.Socket[bytes], state: _State, message: ToEngine) -> None:
        if isinstance(message, Heartbeat):
            return
        if self.refused is not None:
            self.unknown += 1  # a refusal is final, whatever follows it
        elif isinstance(message, Welcome):
            self._welcome(socket, state, message)
        elif isinstance(message, Refuse):
            self.refused = message
            self._lose(state)
            logger.warning(
                "lazygraph: the controller refused this engine: %s [%s]; it serves without one",
                message.message,
                message.code,
            )
            self._on_message(message)
        elif isinstance(message, Resync) and message.hello:
            # The controller was restarted behind the same connection: it doesn't know us.
            if self.established.is_set():
                self._lose(state)
        elif not self.established.is_set():
            self.unknown += 1  # a command before the hand-shake has no session to belong to
        else:
            self._on_message(message)

    def _welcome(self, socket: zmq.Socket[bytes], state: _State, message: Welcome) -> None:
        if message.incarnation < self.incarnation:
            text = f"an older controller ({message.incarnation} < {self.incarnation}) is fenced off"
            self._put(socket, Problem(code="ERR_LAZYGRAPH_INCARNATION", message=text))
            return
        if message.version != PROTOCOL_VERSION:
            text = f"expected protocol {PROTOCOL_VERSION} in welcome, got {message.version}"
            self._put(socket, Problem(code="ERR_LAZYGRAPH_PROTOCOL_VERSION", message=text))
            return
        again = self.incarnation != 0
        self.incarnation = message.incarnation
        state.heartbeat_seconds = message.heartbeat_ms / 1000
        state.next_heartbeat_at = time.monotonic() + state.heartbeat_seconds
        self.lost_since = None
        self.established.set()
        logger.info("lazygraph: %s the controller", "back with" if again else "connected to")
        self._on_message(message)
        inventory = self._inventory()
        if inventory is not None:
            self._put(socket, inventory)

    def _flush(self, socket: zmq.Socket[bytes]) -> None:
        while True:
            with self._lock:
                if not self._outbox or not self.established.is_set():
                    return
                message = self._outbox.popleft()
            self._put(socket, message)

    def _put(self, socket: zmq.Socket[bytes], message: FromEngine) -> None:
        try:
            socket.send(encode(message), zmq.NOBLOCK)
        except zmq.Again:
            if not isinstance(message, Hello):
                self.dropped += 1


class _State:
    """Timers of the link's thread."""

    def __init__(self) -> None:
        self.heartbeat_seconds = 1.0
        self.heard_at = time.monotonic()
        self.next_heartbeat_at = 0.0
        self.next_hello_at = 0.0
        self.next_tick_at = 0.0
        self.reconnect_at: float | None = None
        self.reconnected_at = 0.0

    def wait_seconds(self) -> float:
        """Until the next thing to do, at most a second."""
        now = time.monotonic()
        due = (self.next_heartbeat_at, self.next_hello_at, self.reconnect_at or 0.0)
        times = [t - now for t in due if t > now]
        return max(0.001, min([*times, 1.0]))
