"""The engine's socket against a controller on real sockets."""

from __future__ import annotations

import os
import re
import socket as socket_module
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
import zmq

from fake_controller import FakeController
from lazygraph_vllm.protocol import link as link_module
from lazygraph_vllm.protocol.dealer import Dealer
from lazygraph_vllm.protocol.handshake import Handshakes
from lazygraph_vllm.protocol.link import Link
from lazygraph_vllm.protocol.messages import (
    TEXT_CHARS_MAX,
    Capture,
    Edge,
    Freeze,
    Goodbye,
    Heartbeat,
    Hello,
    Inventory,
    Later,
    Problem,
    Refuse,
    Resync,
    Welcome,
)
from lazygraph_vllm.settings import Curve, Settings

HELLO = Hello(
    version_min=1, version_max=1, engine="e", session="s", plugin_version="0", vllm_version="0",
    model="m", host="h", pid=1, phase="loading", mode="idle", tensor_parallel=1,
    pipeline_parallel=1,
)  # fmt: skip
INVENTORY = Inventory(
    phase="serving", graphs=(), captured=(), ranks=(), cudagraph_mode="FULL", layers=1,
    max_requests=1, max_batched_tokens=1, kv_cache_tokens=1, epoch=0,
)  # fmt: skip
IDLE = Edge(state="idle", running=0, waiting=0)


def eventually(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for what the link's thread does without telling."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        threading.Event().wait(0.002)


class Engine:
    """A link and what it passed on."""

    def __init__(self, endpoint: str, inventory: Inventory | None, **settings: Any) -> None:
        self.messages: list[Any] = []
        self.link = Link(
            Settings(mode="idle", endpoint=endpoint, **settings),
            HELLO,
            on_message=self.messages.append,
            on_tick=lambda: None,
            inventory=lambda: inventory,
        )


@pytest.fixture
def connect() -> Iterator[Callable[..., Engine]]:
    engines: list[Engine] = []

    def start(endpoint: str, inventory: Inventory | None = INVENTORY, **settings: Any) -> Engine:
        engine = Engine(endpoint, inventory, **settings)
        engines.append(engine)
        engine.link.start()
        return engine

    yield start
    for engine in engines:
        engine.link.close("the test is over")


@pytest.fixture
def listen(tmp_path: Path) -> Iterator[Callable[..., FakeController]]:
    controllers: list[FakeController] = []

    def start(endpoint: str | None = None, **options: Any) -> FakeController:
        controller = FakeController(endpoint=endpoint or f"ipc://{tmp_path}/c", **options)
        controllers.append(controller)
        return controller

    yield start
    for controller in controllers:
        controller.close()


def established(engine: Engine) -> None:
    assert engine.link.established.wait(60)


def lost(engine: Engine) -> None:
    eventually(lambda: not engine.link.established.is_set())


@pytest.fixture
def pair(connect: Any, listen: Any) -> tuple[FakeController, Engine]:
    """A controller and an engine that has found it."""
    controller = listen()
    engine = connect(controller.endpoint)
    established(engine)
    return controller, engine


@pytest.fixture
def dealer(tmp_path: Path) -> Iterator[Callable[..., Dealer]]:
    """By default of an address where nobody listens."""
    pipes, dealers = [], []

    def start(endpoint: str = f"ipc://{tmp_path}/c") -> Dealer:
        pipes.extend(os.pipe())
        handshakes = Handshakes(endpoint, has_keys=False)
        dealers.append(Dealer(endpoint, None, handshakes, wake=pipes[-2], queue_max=1024))
        return dealers[-1]

    yield start
    for each in dealers:
        each.close()
    for pipe in pipes:
        os.close(pipe)


@pytest.fixture
def context() -> Iterator[zmq.Context[Any]]:
    """Its sockets are closed with it."""
    context: zmq.Context[Any] = zmq.Context()
    yield context
    context.destroy(0)


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1:*", None], ids=["tcp", "ipc"])
def test_hand_shake(connect: Any, listen: Any, endpoint: str | None) -> None:
    controller = listen(endpoint, mode="lazy")
    controller.heartbeat_ms = 100
    engine = connect(controller.endpoint)
    assert controller.wait_for(Hello) == HELLO
    assert controller.wait_for(Inventory) == INVENTORY
    established(engine)
    eventually(lambda: bool(engine.messages))
    assert isinstance(engine.messages[0], Welcome) and engine.messages[0].mode == "lazy"
    assert engine.link.incarnation == controller.incarnation
    assert engine.link.lost_since is None
    controller.send(Capture(command=7, graph="FULL:1", when_idle=True))
    eventually(lambda: engine.messages[-1] == Capture(command=7, graph="FULL:1", when_idle=True))
    assert controller.wait_for(Heartbeat)


def test_a_controller_that_comes_later_is_found(connect: Any, listen: Any, tmp_path: Path) -> None:
    engine = connect(f"ipc://{tmp_path}/c")
    assert not engine.link.established.is_set()
    listen()
    established(engine)


def test_before_there_is_an_inventory_only_hello_is_sent(connect: Any, listen: Any) -> None:
    controller = listen()
    engine = connect(controller.endpoint, None)
    established(engine)
    engine.link.send(IDLE)
    controller.wait_for(Edge)
    assert not any(isinstance(m, Inventory) for m in controller.received)


def test_the_next_hand_shake_says_what_changed(pair: Any, listen: Any) -> None:
    controller, engine = pair
    engine.link.update_hello(phase="serving", mode="lazy")
    controller.close()
    lost(engine)
    again = listen(controller.endpoint)
    hello = again.wait_for(Hello)
    assert (hello.phase, hello.mode, hello.session) == ("serving", "lazy", "s")


def test_a_controller_of_a_later_start_takes_over(pair: Any, listen: Any) -> None:
    controller, engine = pair
    controller.close()
    lost(engine)
    assert engine.link.lost_since is not None
    again = listen(controller.endpoint, incarnation=controller.incarnation + 1)
    established(engine)
    assert engine.link.incarnation == again.incarnation
    assert again.wait_for(Inventory) == INVENTORY


def test_a_controller_of_an_earlier_start_is_fenced_off(pair: Any, listen: Any) -> None:
    controller, engine = pair
    controller.close()
    lost(engine)
    older = listen(controller.endpoint, incarnation=controller.incarnation - 1)
    problem = older.wait_for(Problem)
    assert problem.code == "ERR_LAZYGRAPH_INCARNATION"
    assert str(older.incarnation) in problem.message
    assert not engine.link.established.is_set()
    assert engine.link.incarnation == controller.incarnation


def test_the_next_hand_shake_says_who_was_there(pair: Any, listen: Any) -> None:
    controller, engine = pair
    assert controller.wait_for(Hello).incarnation is None
    controller.close()
    lost(engine)
    again = listen(controller.endpoint, incarnation=controller.incarnation + 1)
    assert again.wait_for(Hello).incarnation == controller.incarnation


def test_an_engine_without_a_place_comes_in_when_there_is_one(
    connect: Any, listen: Any, caplog: pytest.LogCaptureFixture
) -> None:
    controller = listen()
    controller.later = Later(code="ERR_FULL", message="Expected two.", retry_seconds=1)
    engine = connect(controller.endpoint)
    controller.wait_for(Hello)
    eventually(lambda: len([m for m in controller.received if isinstance(m, Hello)]) >= 3)
    assert not engine.link.established.is_set()
    assert engine.link.refused is None
    assert engine.link.lost_since is not None
    controller.later = None
    established(engine)
    told = [record.message for record in caplog.records if "puts this engine off" in record.message]
    assert len(told) == 1 and "Expected two. [ERR_FULL]" in told[0]


def test_controllers_without_a_place_are_asked_when_they_say(
    connect: Any, listen: Any, tmp_path: Path
) -> None:
    pair = [listen(f"ipc://{tmp_path}/{name}") for name in "ab"]
    for controller in pair:
        controller.later = Later(code="ERR_FULL", message="Expected two.", retry_seconds=1)
    began = time.monotonic()
    connect(",".join(c.endpoint for c in pair))
    eventually(lambda: all(sum(isinstance(m, Hello) for m in c.received) > 2 for c in pair))
    assert time.monotonic() - began > 1.9


class TestStandby:
    """Several endpoints: one controller at a time, the younger start wins."""

    @pytest.fixture
    def places(self, tmp_path: Path) -> tuple[str, str]:
        return f"ipc://{tmp_path}/first", f"ipc://{tmp_path}/second"

    def test_takes_over_when_the_first_is_gone(
        self, connect: Any, listen: Any, places: Any
    ) -> None:
        first = listen(places[0])
        engine = connect(",".join(places))
        established(engine)
        first.close()
        lost(engine)
        second = listen(places[1], incarnation=first.incarnation + 1)
        assert second.wait_for(Inventory) == INVENTORY
        established(engine)
        assert engine.link.incarnation == second.incarnation

    def test_is_the_only_one_there_at_the_start(
        self, connect: Any, listen: Any, places: Any
    ) -> None:
        second = listen(places[1])
        engine = connect(",".join(places))
        established(engine)
        assert engine.link.incarnation == second.incarnation

    def test_is_not_needed_where_the_first_is_back_at_once(
        self, connect: Any, listen: Any, places: Any
    ) -> None:
        standby = listen(places[1])
        first = listen(places[0])
        engine = connect(",".join(places))
        established(engine)
        first.close()
        again = listen(places[0], incarnation=first.incarnation + 1)
        again.wait_for(Hello)
        established(engine)
        assert engine.link.incarnation == again.incarnation
        assert standby.received == []

    def test_keeps_the_engine_when_a_partition_ends(
        self,
        connect: Any,
        listen: Any,
        places: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(link_module, "HEARTBEATS_MISSED_MAX", 1)
        monkeypatch.setattr(link_module, "TURN_SECONDS", 0.2)
        first = listen(places[0])
        first.heartbeat_ms = 200
        engine = connect(",".join(places))
        established(engine)
        # The first is there, but nothing of it arrives any more.
        first.send_heartbeats = False
        first.answer_hello = False
        lost(engine)
        second = listen(places[1], incarnation=first.incarnation + 1)
        second.wait_for(Inventory)
        # It is back, and the engine stays where it is.
        first.send_heartbeats = True
        first.answer_hello = True
        heard = len(first.received)
        first.send(Freeze(reason="from the past"))
        beats = len(second.received)
        second.wait_for(Heartbeat, after=beats)
        assert engine.link.incarnation == second.incarnation
        assert not any(isinstance(message, Freeze) for message in engine.messages)
        assert not any(isinstance(message, Hello) for message in first.received[heard:])
        # Nor does it go back when the second is gone: an older start gets no engine again.
        second.close()
        problem = first.wait_for(Problem)
        assert problem.code == "ERR_LAZYGRAPH_INCARNATION"
        assert not engine.link.established.is_set()
        third = listen(places[1], incarnation=second.incarnation + 1)
        established(engine)
        assert engine.link.incarnation == third.incarnation


def test_a_silent_controller_is_noticed_by_missed_heartbeats(
    connect: Any, listen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "HEARTBEATS_MISSED_MAX", 1)
    controller = listen()
    controller.send_heartbeats = False
    controller.heartbeat_ms = 100
    engine = connect(controller.endpoint)
    established(engine)
    controller.answer_hello = False
    lost(engine)
    assert engine.link.lost_since is not None
    assert engine.link.send(IDLE) is False
    controller.answer_hello = True
    established(engine)


def test_what_kept_this_side_from_looking_is_no_silence(
    connect: Any, listen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = listen()
    controller.heartbeat_ms = 100
    wait, stalled, due = Dealer.wait, threading.Event(), threading.Event()

    def stalls_once(self: Dealer, seconds: float) -> Any:
        """As where nothing had come yet and the interpreter then had other things to do."""
        if not due.is_set() or stalled.is_set():
            return wait(self, seconds)
        threading.Event().wait(3 * link_module.HEARTBEATS_MISSED_MAX * 0.1)
        stalled.set()
        return None, False

    monkeypatch.setattr(Dealer, "wait", stalls_once)
    engine = connect(controller.endpoint)
    established(engine)
    due.set()
    eventually(stalled.is_set)
    heard = len(controller.received)
    for _ in range(3):
        controller.wait_for(Heartbeat, after=heard)
        heard = len(controller.received)
    assert engine.link.established.is_set() and engine.link.lost_since is None
    assert sum(isinstance(message, Hello) for message in controller.received) == 1
    # The control: one that is silent as long is noticed.
    controller.send_heartbeats = False
    lost(engine)


def test_what_a_controller_said_before_it_left_counts(
    connect: Any, listen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = listen()
    controller.send_heartbeats = False
    wait, due, looked, arrived = Dealer.wait, *(threading.Event() for _ in range(3))

    def late(self: Dealer, seconds: float) -> Any:
        """As on a busy host, where an order and the end of its connection are found together."""
        if due.is_set() and not arrived.is_set():
            looked.set()
            eventually(lambda: bool(self._socket.poll(10)))
            arrived.set()
            eventually(lambda: bool(self._monitor.poll(10)))
        return wait(self, seconds)

    monkeypatch.setattr(Dealer, "wait", late)
    engine = connect(controller.endpoint)
    established(engine)
    eventually(lambda: len(engine.messages) == 1)
    due.set()
    assert looked.wait(60)
    order = Freeze(reason="for the benchmark")
    controller.send(order)
    assert arrived.wait(60)
    controller.close()
    lost(engine)
    assert engine.messages[-1] == order
    assert engine.link.unknown == 0


def test_a_refusal_is_final(connect: Any, listen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "HELLO_INTERVAL_SECONDS", 0.005)
    monkeypatch.setattr(link_module, "HELLO_INTERVAL_BEFORE_FIRST_SECONDS", 0.005)
    controller = listen()
    welcome = controller.welcome
    controller.welcome = lambda: Refuse(code="ERR_LAZYGRAPH_PROTOCOL_VERSION", message="upgrade")
    engine = connect(controller.endpoint)
    eventually(lambda: engine.link.refused is not None)
    assert engine.link.refused.message == "upgrade"
    controller.welcome = welcome
    controller.send(welcome())

    def turns(count: int) -> int:
        """So many turns of the link's loop, each proven by its answer; the hellos until then."""
        for _ in range(count):
            answered = sum(isinstance(m, Problem) for m in controller.received)
            controller.send_raw(b"\xc1")
            eventually(
                lambda n=answered: sum(isinstance(m, Problem) for m in controller.received) > n
            )
        return sum(isinstance(m, Hello) for m in controller.received)

    seen = turns(1)
    assert turns(3) == seen
    assert not engine.link.established.is_set()
    assert [type(m) for m in engine.messages] == [Refuse]  # nothing after it
    controller.close()
    again = listen(controller.endpoint)
    other = connect(controller.endpoint)
    established(other)
    assert sum(isinstance(m, Hello) for m in again.received) >= 1
    assert not engine.link.established.is_set()


def test_another_protocol_version_is_not_accepted(connect: Any, listen: Any) -> None:
    controller = listen()
    controller.welcome = lambda: Welcome(version=3, incarnation=1, heartbeat_ms=100, mode="idle")
    engine = connect(controller.endpoint)
    assert controller.wait_for(Problem).code == "ERR_LAZYGRAPH_PROTOCOL_VERSION"
    assert not engine.link.established.is_set()


def test_a_broken_frame_is_answered_and_the_session_goes_on(pair: Any) -> None:
    controller, engine = pair
    controller.send_raw(b"\x81\xa4type\xa7capture")
    problem = controller.wait_for(Problem)
    assert problem.code == "ERR_LAZYGRAPH_PROTOCOL_FRAME"
    assert "expected a message of protocol 2" in problem.message
    controller.send(Freeze(reason="still there?"))
    eventually(lambda: engine.messages[-1] == Freeze(reason="still there?"))


def test_what_a_broken_frame_quotes_is_bounded(connect: Any, listen: Any) -> None:
    controller = listen()
    established(connect(controller.endpoint))
    controller.send_raw(b"\x82\xa4type\xa4mode\xa4mode\xda\xff\xff" + b"x" * 0xFFFF)
    assert len(controller.wait_for(Problem).message) <= TEXT_CHARS_MAX


def test_an_unknown_message_is_counted_and_dropped(pair: Any) -> None:
    controller, engine = pair
    controller.send_raw(b"\x81\xa4type\xa9celebrate")
    eventually(lambda: engine.link.unknown == 1)
    assert engine.link.established.is_set()
    assert {type(m) for m in engine.messages} == {Welcome}


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1:*", None], ids=["tcp", "ipc"])
def test_an_oversize_frame_costs_the_connection_and_nothing_else(
    connect: Any, listen: Any, endpoint: str | None
) -> None:
    controller = listen(endpoint)
    engine = connect(controller.endpoint)
    established(engine)
    seen = len(controller.received)
    controller.send_raw(bytes(2 << 20))
    controller.wait_for(Hello, after=seen)
    established(engine)
    assert [type(m) for m in engine.messages if not isinstance(m, Welcome)] == []


def test_a_command_before_the_hand_shake_is_not_passed_on(connect: Any, listen: Any) -> None:
    controller = listen()
    controller.welcome = lambda: Capture(command=1, graph="FULL:1", when_idle=False)
    engine = connect(controller.endpoint)
    eventually(lambda: engine.link.unknown > 0)
    assert engine.messages == []


def test_a_controller_that_forgot_us_gets_a_new_hand_shake(pair: Any) -> None:
    """It was restarted behind a proxy, or had given the engine up: it can only ask who we are."""
    controller, engine = pair
    controller.wait_for(Inventory)
    seen = len(controller.received)
    controller.send(Resync(hello=True))
    controller.wait_for(Hello, after=seen)
    controller.wait_for(Inventory, after=seen)
    established(engine)
    controller.send(Resync())
    eventually(lambda: engine.messages[-1] == Resync())


def test_nothing_is_queued_while_nobody_listens(connect: Any, listen: Any, tmp_path: Path) -> None:
    engine = connect(f"ipc://{tmp_path}/c")
    assert [engine.link.send(IDLE) for _ in range(5)] == [False] * 5
    assert engine.link.dropped == 5
    controller = listen()
    established(engine)
    assert engine.link.send(Edge(state="busy", running=1, waiting=0))
    assert controller.wait_for(Edge).state == "busy", "the five before were not kept"
    assert engine.link.dropped == 5


def test_the_outbox_is_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(link_module, "OUTBOX_MAX", 3)
    engine = Engine(f"ipc://{tmp_path}/c", INVENTORY)
    engine.link.established.set()  # as if connected; no thread sends
    assert [engine.link.send(IDLE) for _ in range(5)] == [True] * 3 + [False] * 2
    assert engine.link.dropped == 2


def test_goodbye_at_close(pair: Any) -> None:
    controller, engine = pair
    engine.link.close("the engine shut down")
    assert controller.wait_for(Goodbye).reason == "the engine shut down"
    assert not engine.link.established.is_set()
    engine.link.close("twice is fine")


def test_closing_without_a_controller_does_not_wait(connect: Any, tmp_path: Path) -> None:
    engine = connect(f"ipc://{tmp_path}/nobody")
    engine.link.close("done")
    assert not engine.link._thread.is_alive()
    Engine(f"ipc://{tmp_path}/nobody", INVENTORY).link.close("never started")


def test_two_engines_of_one_name_keep_their_own_route(connect: Any, listen: Any) -> None:
    controller = listen()
    established(connect(controller.endpoint))
    established(connect(controller.endpoint))


@pytest.mark.skipif(not zmq.has("curve"), reason="this libzmq has no CURVE")
def test_curve_keys_are_used(connect: Any, context: zmq.Context[Any]) -> None:
    server_public, server_secret = zmq.curve_keypair()
    public, secret = zmq.curve_keypair()
    socket = context.socket(zmq.ROUTER)
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt(zmq.CURVE_SECRETKEY, server_secret)
    socket.bind("tcp://127.0.0.1:*")
    endpoint = socket.getsockopt_string(zmq.LAST_ENDPOINT)
    connect(endpoint)  # without keys: it never gets through
    keys = Curve(server_public.decode(), public.decode(), secret.decode())
    connect(endpoint, curve=keys)
    peers = set()
    for _ in range(3):  # unanswered, each says hello again
        assert socket.poll(60_000)
        peers.add(socket.recv_multipart()[0])
    assert len(peers) == 1


def _said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if "ERR_LAZYGRAPH_KEYS" in r.getMessage()]


@pytest.mark.skipif(not zmq.has("curve"), reason="this libzmq has no CURVE")
@pytest.mark.parametrize(
    ("server_has", "engine_has", "sentence"),
    [
        ("keys", "none", "without CURVE keys, but it (wants them|hung up: if it wants keys)"),
        ("none", "keys", "to have CURVE keys, as this engine does, but it has none|hung up in"),
        ("keys", "other keys", "to have the public key that this engine has of it, but it hung up"),
    ],
)
def test_keys_that_dont_fit_are_said_and_tried_again(
    server_has: str,
    engine_has: str,
    sentence: str,
    connect: Any,
    context: zmq.Context[Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """libzmq gives up for good after some of these; who mends the keys finds the engine there."""
    caplog.set_level("WARNING", logger="vllm.lazygraph")
    server_public, server_secret = zmq.curve_keypair()
    other_public, other_secret = zmq.curve_keypair()
    public, secret = zmq.curve_keypair()

    def bind(endpoint: str, what: str) -> zmq.Socket[bytes]:
        socket = context.socket(zmq.ROUTER)
        if what != "none":
            secret = server_secret if what == "keys" else other_secret
            socket.setsockopt(zmq.CURVE_SERVER, 1)
            socket.setsockopt(zmq.CURVE_SECRETKEY, secret)
        eventually(lambda: _binds(socket, endpoint))
        return socket

    socket = bind("tcp://127.0.0.1:*", server_has)
    endpoint = socket.getsockopt_string(zmq.LAST_ENDPOINT)
    server_key = {"keys": server_public, "other keys": other_public}.get(engine_has)
    keys = server_key and Curve(server_key.decode(), public.decode(), secret.decode())
    connect(endpoint, curve=keys or None)
    eventually(lambda: any(re.search(sentence, said) for said in _said(caplog)))
    socket.close(0)
    # The other side is mended: the same engine joins, and no more is said.
    socket = bind(endpoint, engine_has)
    assert socket.poll(60_000)
    assert len(_said(caplog)) <= 2


@pytest.mark.skipif(not zmq.has("curve"), reason="this libzmq has no CURVE")
def test_keys_that_fit_neither_of_two_addresses_are_said_once_of_each(
    connect: Any, context: zmq.Context[Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING", logger="vllm.lazygraph")
    sockets = [context.socket(zmq.ROUTER) for _ in range(2)]
    for socket in sockets:
        socket.bind("tcp://127.0.0.1:*")
    endpoints = [socket.getsockopt_string(zmq.LAST_ENDPOINT) for socket in sockets]
    curve = Curve(*(key.decode() for key in (zmq.curve_keypair()[0], *zmq.curve_keypair())))
    turns: list[str] = []
    engine = connect(",".join(endpoints), curve=curve)
    opened = engine.link._open
    engine.link._open = lambda state: (turns.append(""), opened(state))[1]
    eventually(lambda: len(turns) >= 8)
    assert 2 <= len(_said(caplog)) <= 4


def _binds(socket: zmq.Socket[bytes], endpoint: str) -> bool:
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        assert error.errno == zmq.EADDRINUSE
        return False
    return True


def test_failed_handshakes_are_tried_ever_more_slowly_and_told_once() -> None:
    handshakes = Handshakes("tcp://c:1", has_keys=True)
    seconds, sentences = zip(*[handshakes.failed("hang-up") for _ in range(20)], strict=True)
    assert seconds[:3] == (0.05, 0.1, 0.2) and max(seconds) == seconds[-1] == 1
    assert [index for index, said in enumerate(sentences) if said] == [1]
    # Keys alone are refused; a proxy hangs up as well, while its controller is being restarted.
    refused = [handshakes.failed("refused") for _ in range(20)]
    assert refused[0][0] == 0.05 and refused[-1] == (30, None)
    assert refused[0][1] is not None  # more precise than what was told
    assert handshakes.failed("hang-up")[1] is None
    handshakes.succeeded()
    assert handshakes.failed("mechanism") == (0.05, ANY)


@pytest.mark.parametrize("host", ["[::1]", "localhost"])
def test_ipv6_and_names(host: str, connect: Any, context: zmq.Context[Any]) -> None:
    socket = context.socket(zmq.ROUTER)
    socket.setsockopt(zmq.IPV6, int("[" in host))
    socket.bind(f"tcp://{'[::1]' if '[' in host else '127.0.0.1'}:*")
    port = socket.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2]
    connect(f"tcp://{host}:{port}")
    assert socket.poll(60_000)


def test_a_message_never_waits_in_a_pipe_to_nobody(dealer: Any) -> None:
    """Else every hello of a long wait would reach the controller at once."""
    assert dealer().send(b"hello") is False


def test_a_thread_that_is_held_up_between_two_controllers_is_heard_by_the_second(
    context: zmq.Context[Any], dealer: Any, tmp_path: Path
) -> None:
    """Meanwhile libzmq connects twice, and a name of two connections may be heard on none."""
    own = dealer()
    names = set()
    for _ in range(2):
        with context.socket(zmq.ROUTER) as router:
            router.setsockopt(zmq.LINGER, 0)
            router.setsockopt(zmq.ROUTER_HANDOVER, 1)
            router.bind(f"ipc://{tmp_path}/c")
            own.reconnect_if_due(time.monotonic())
            time.sleep(0.2)
            changes = (own.wait(1.0)[0] for _ in range(30))
            assert "connected" in changes
            assert own.send(b"hello")
            assert router.poll(60_000)
            names.add(router.recv_multipart()[0])
        changes = (own.wait(1.0)[0] for _ in range(30))
        assert "disconnected" in changes
    assert len(names) == 2


def test_an_address_where_nobody_listens_is_told_apart_from_a_silent_one(dealer: Any) -> None:
    """So that the next of several addresses gets its turn at once."""
    with socket_module.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = dealer(f"tcp://127.0.0.1:{port}")
    changes = (own.wait(1.0)[0] for _ in range(30))
    assert next(change for change in changes if change is not None) == "refused"
