"""The link to the controller: hand-shake, heartbeats, and messages both ways.

In EngineCore's process, on a thread of its own: it parses messages and hands them on; it never
touches CUDA or blocks anybody. Nothing is queued for a controller that isn't there: telemetry is
dropped and counted, and what the controller must know after a gap it gets by a new hand-shake. The
socket under it is ``dealer``'s, one controller at a time: while none of them has welcomed the
engine, the next address of the list gets its turn. What tells an old controller from the one that
took over is its incarnation, not the order of the list.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable

import msgspec

from ..settings import Settings
from .dealer import Change, Dealer
from .handshake import Handshakes
from .messages import (
    FrameError,
    FromEngine,
    Goodbye,
    Heartbeat,
    Hello,
    Inventory,
    Later,
    Mode,
    Orders,
    Phase,
    Problem,
    Refuse,
    Resync,
    ToEngine,
    Welcome,
    decode_to_engine,
    encode,
)
from .texts import shortened

logger = logging.getLogger("vllm.lazygraph")

# What ZeroMQ holds, each way.
OUTBOX_MAX = 1024
# So that sending gets its turn too.
MESSAGES_A_TURN = 64
HEARTBEATS_MISSED_MAX = 5
HELLO_INTERVAL_SECONDS = 1.0
# How long one of several addresses has to let us in, and then to answer, before the next one is
# tried; and how long one where nobody listens.
CONNECT_SECONDS = 0.5
REFUSED_SECONDS = 0.25
TURN_SECONDS = 1.0
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
        heartbeat: Callable[[], Heartbeat] = Heartbeat,
    ) -> None:
        """Prepare a link; nothing starts before ``start``. Callbacks run on the link's thread.

        Args:
            settings: endpoints and keys.
            hello: what the hand-shake says; see ``update_hello``.
            on_message: called with each message of an established session.
            on_tick: called about once a second.
            inventory: what to send after each hand-shake.
            heartbeat: says how the engine stands.
        """
        assert settings.endpoints
        self._settings = settings
        self._hello = hello
        self._on_message = on_message
        self._lock = threading.Lock()
        self._outbox: deque[FromEngine] = deque()
        self._on_tick = on_tick
        self._inventory = inventory
        self._heartbeat = heartbeat
        self._closing = threading.Event()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        os.set_blocking(self._wake_read, False)
        self._thread = threading.Thread(target=self._run, name="lazygraph-link", daemon=True)
        self.established = threading.Event()
        self.refused: Refuse | None = None
        self.lost_since: float | None = time.monotonic()
        self.incarnation = 0
        self.version = 0  # the one that is spoken; 0: none yet
        self._hello_anew = threading.Event()
        self.dropped = 0
        self.unknown = 0

    # -------------------------------------------------------------- from other threads

    def start(self) -> None:
        """Start connecting in the background."""
        self._thread.start()

    def update_hello(
        self,
        *,
        phase: Phase | None = None,
        mode: Mode | None = None,
        orders: Orders | None = None,
    ) -> None:
        """Change what the next hand-shake says."""
        given = (("phase", phase), ("mode", mode), ("orders", orders))
        with self._lock:
            changes = {k: v for k, v in given if v is not None}
            self._hello = msgspec.structs.replace(self._hello, **changes)

    def require_version(self, version: int) -> None:
        """Speak no older protocol version from now on; ends a session that does.

        The next hand-shake says so, and a controller that is too old refuses it with the sentence
        that says which side to upgrade.
        """
        with self._lock:
            if version <= self._hello.version_min:
                return
            self._hello = msgspec.structs.replace(self._hello, version_min=version)
            if self.version >= version:
                return
            # At once, so that nothing is sent in the old session by whoever called.
            self.established.clear()
        self._hello_anew.set()
        self._wake()

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

    def _serve(self) -> None:
        state = _State()
        dealer = self._open(state)
        try:
            while not self._closing.is_set():
                if self._is_next_turn(state):
                    # Closed, and not just disconnected: nothing of the other one's may come late.
                    dealer.close()
                    dealer = self._open(state)
                self._tick(dealer, state)
                change, is_message = dealer.wait(state.wait_seconds())
                if change == "disconnected":
                    # What it said last, an order before it closed, came in its session.
                    self._receive(dealer, state, OUTBOX_MAX)
                elif is_message:
                    self._receive(dealer, state, MESSAGES_A_TURN)
                if change is not None:
                    self._on_change(change, state)
                self._flush(dealer)
            self._flush(dealer)
        finally:
            dealer.close()

    def _open(self, state: _State) -> Dealer:
        """Connect to the address whose turn it is."""
        endpoints = self._settings.endpoints
        endpoint = endpoints[state.turn % len(endpoints)]
        state.turn_began_at = time.monotonic()
        state.turn_ends_at = state.turn_began_at + CONNECT_SECONDS
        state.next_hello_at = 0.0
        curve = self._settings.curve
        # Kept over turns: what was told of an address is told once.
        handshakes = state.handshakes.setdefault(endpoint, Handshakes(endpoint, curve is not None))
        return Dealer(endpoint, curve, handshakes, wake=self._wake_read, queue_max=OUTBOX_MAX)

    def _is_next_turn(self, state: _State) -> bool:
        """Whether another address is to be tried now; if so, it is its turn."""
        if self.established.is_set() or self.refused is not None:
            return False
        if len(self._settings.endpoints) == 1 or time.monotonic() < state.turn_ends_at:
            return False
        state.turn += 1
        return True

    def _tick(self, dealer: Dealer, state: _State) -> None:
        """Say hello or send a heartbeat when it is time; notice a silent controller."""
        now = time.monotonic()
        state.look(now)
        if now >= state.next_tick_at:
            state.next_tick_at = now + 1.0
            self._on_tick()
        if self.refused is not None:
            return
        if self._hello_anew.is_set():
            self._hello_anew.clear()
            self._lose(state)
        dealer.reconnect_if_due(now)
        if self.established.is_set():
            if now - state.heard_at > HEARTBEATS_MISSED_MAX * state.heartbeat_seconds:
                logger.warning("lazygraph: the controller fell silent; serving with what there is")
                self._lose(state)
            elif now >= state.next_heartbeat_at:
                state.next_heartbeat_at = now + state.heartbeat_seconds
                self._put(dealer, self._heartbeat())
            return
        if now >= state.next_hello_at:
            state.next_hello_at = now + (
                HELLO_INTERVAL_BEFORE_FIRST_SECONDS
                if self.incarnation == 0
                else HELLO_INTERVAL_SECONDS
            )
            with self._lock:
                hello = msgspec.structs.replace(self._hello, incarnation=self.incarnation or None)
            self._put(dealer, hello)

    def _on_change(self, change: Change, state: _State) -> None:
        if change == "connected":
            state.next_hello_at = 0.0
            state.turn_ends_at = time.monotonic() + TURN_SECONDS
        elif change == "refused":
            state.turn_ends_at = min(state.turn_ends_at, state.turn_began_at + REFUSED_SECONDS)
        elif self.established.is_set():
            logger.warning("lazygraph: lost the controller; serving goes on with what there is")
            self._lose(state)

    def _lose(self, state: _State) -> None:
        self.established.clear()
        self.lost_since = time.monotonic()
        state.next_hello_at = 0.0
        # Where it was may be back at once, as after a restart: then nobody has to take over.
        state.turn_began_at = self.lost_since
        state.turn_ends_at = self.lost_since + TURN_SECONDS
        with self._lock:
            self.dropped += len(self._outbox)
            self._outbox.clear()

    def _receive(self, dealer: Dealer, state: _State, messages_max: int) -> None:
        for _ in range(messages_max):
            frames = dealer.receive()
            if frames is None:
                return
            state.heard_at = time.monotonic()
            try:
                if len(frames) != 1:
                    raise FrameError(f"expected one frame a message, got {len(frames)}")
                message = decode_to_engine(frames[0])
            except FrameError as error:
                text = shortened(str(error))  # it may quote what came
                self._put(dealer, Problem(code="ERR_LAZYGRAPH_PROTOCOL_FRAME", message=text))
                continue
            if message is None:
                self.unknown += 1
                continue
            self._handle(dealer, state, message)

    def _handle(self, dealer: Dealer, state: _State, message: ToEngine) -> None:
        if isinstance(message, Heartbeat):
            return
        if self.refused is not None:
            self.unknown += 1  # a refusal is final, whatever follows it
        elif isinstance(message, Welcome):
            self._welcome(dealer, state, message)
        elif isinstance(message, Refuse):
            self.refused = message
            self._lose(state)
            logger.warning(
                "lazygraph: the controller refused this engine: %s [%s]; it serves without one",
                message.message,
                message.code,
            )
            self._on_message(message)
        elif isinstance(message, Later):
            self._put_off(state, message)
        elif isinstance(message, Resync) and message.hello:
            # The controller was restarted behind the same connection: it doesn't know us.
            if self.established.is_set():
                self._lose(state)
        elif not self.established.is_set():
            self.unknown += 1  # a command before the hand-shake has no session to belong to
        else:
            self._on_message(message)

    def _put_off(self, state: _State, message: Later) -> None:
        """No place here now, or not by this name: try elsewhere, or here again later."""
        if self.established.is_set():
            self._lose(state)
        now, addresses = time.monotonic(), len(self._settings.endpoints)
        state.next_hello_at = now + message.retry_seconds
        state.put_off_until[state.turn % addresses] = state.next_hello_at
        # With one address it stays the only one to ask; where all are full each is asked so rarely.
        state.turn_ends_at = max(now, state.put_off_until.get((state.turn + 1) % addresses, now))
        if state.put_off_by != message.code:
            state.put_off_by = message.code
            logger.warning(
                "lazygraph: the controller puts this engine off: %s [%s]; it serves without one, "
                "and asks again",
                message.message,
                message.code,
            )

    def _welcome(self, dealer: Dealer, state: _State, message: Welcome) -> None:
        if message.incarnation < self.incarnation:
            text = f"an older controller ({message.incarnation} < {self.incarnation}) is fenced off"
            self._put(dealer, Problem(code="ERR_LAZYGRAPH_INCARNATION", message=text))
            return
        with self._lock:
            oldest, newest = self._hello.version_min, self._hello.version_max
            spoken = oldest <= message.version <= newest
            again = self.incarnation != 0
            if spoken:
                self.version, self.incarnation = message.version, message.incarnation
                self.lost_since = None
                self.established.set()
        if not spoken:
            text = f"expected protocol {oldest} to {newest} in welcome, got {message.version}"
            self._put(dealer, Problem(code="ERR_LAZYGRAPH_PROTOCOL_VERSION", message=text))
            return
        state.put_off_by = None
        state.heartbeat_seconds = message.heartbeat_ms / 1000
        state.next_heartbeat_at = time.monotonic() + state.heartbeat_seconds
        logger.info("lazygraph: %s the controller", "back with" if again else "connected to")
        self._on_message(message)
        inventory = self._inventory()
        if inventory is not None:
            self._put(dealer, inventory)

    def _flush(self, dealer: Dealer) -> None:
        while True:
            with self._lock:
                if not self._outbox or not self.established.is_set():
                    return
                message = self._outbox.popleft()
            self._put(dealer, message)

    def _put(self, dealer: Dealer, message: FromEngine) -> None:
        if not dealer.send(encode(message)) and not isinstance(message, Hello):
            self.dropped += 1


class _State:
    """Timers of the link's thread."""

    def __init__(self) -> None:
        self.heartbeat_seconds = 1.0
        self.heard_at = time.monotonic()
        self.looked_at = self.heard_at
        self.next_heartbeat_at = 0.0
        self.next_hello_at = 0.0
        self.next_tick_at = 0.0
        self.turn = 0
        self.handshakes: dict[str, Handshakes] = {}
        self.turn_began_at = 0.0
        self.turn_ends_at = 0.0
        self.put_off_by: str | None = None  # told once, however often it is said
        self.put_off_until: dict[int, float] = {}  # by the address's place

    def look(self, now: float) -> None:
        """Once a turn. A turn that came late is no silence of the controller's.

        A busy interpreter or a stopped process keeps this thread from what lies in the socket.
        """
        late = now - self.looked_at - self.heartbeat_seconds
        self.looked_at = now
        if late > 0:
            self.heard_at += late

    def wait_seconds(self) -> float:
        """Until the next thing to do, at most a second."""
        now = time.monotonic()
        due = (self.next_heartbeat_at, self.next_hello_at, self.turn_ends_at)
        times = [t - now for t in due if t > now]
        return max(0.001, min([*times, 1.0]))
