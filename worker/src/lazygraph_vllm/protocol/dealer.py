"""The ZeroMQ socket to one controller: a DEALER in a context of its own.

In EngineCore's process, opened and used on the link's thread alone. It knows frames and
connections, no messages; what a connection that comes or goes means is the link's.

Frames are kept out of a pipe to nobody here, and not by ZMQ_IMMEDIATE: with that, libzmq throws
away what has come and was not read yet as soon as the connection ends, an order of a controller
that then closed among it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import socket as net
import time
from typing import Literal

import zmq
from zmq.utils.monitor import recv_monitor_message

from ..settings import Curve
from .handshake import Failure, Handshakes

logger = logging.getLogger("vllm.lazygraph")

Change = Literal["connected", "disconnected", "refused"]


class Dealer:
    """Connects, and connects again; sends and receives without waiting."""

    def __init__(
        self,
        endpoint: str,
        curve: Curve | None,
        handshakes: Handshakes,
        *,
        wake: int,
        queue_max: int,
    ) -> None:
        """Open the socket and start connecting.

        Args:
            endpoint: the controller's address.
            curve: keys; ``None`` for a plain connection.
            handshakes: those with this address so far.
            wake: file descriptor of a pipe; what is written into it ends a ``wait``.
            queue_max: frames that ZeroMQ holds, each way.
        """
        self._endpoint = endpoint
        self._wake = wake
        self._connected = False
        self._reconnect_at: float | None = None
        self._reconnected_at = 0.0
        self._handshakes = handshakes
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = _make_socket(self._context, endpoint, curve, queue_max)
        self._monitor = self._socket.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED | _FAILED
        )
        self._connect()
        self._poller = zmq.Poller()
        for source in (self._socket, self._monitor, wake):
            self._poller.register(source, zmq.POLLIN)

    def wait(self, seconds: float) -> tuple[Change | None, bool]:
        """Wait so long at most; what the connection did, and whether a frame is there.

        Of one that has ended, what came before is to be received before the next turn.
        """
        if self._reconnect_at is not None and (left := self._reconnect_at - time.monotonic()) > 0:
            seconds = min(seconds, left)
        ready = dict(self._poller.poll(max(1, int(seconds * 1000))))
        if self._wake in ready:
            os.read(self._wake, 4096)
        change = self._take_change() if self._monitor in ready else None
        return change, self._socket in ready

    def _take_change(self) -> Change | None:
        event = recv_monitor_message(self._monitor)["event"]
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._handshakes.succeeded()
            self._connected = True
            return "connected"
        if event & _FAILED:
            self._begin_again(_FAILURES[event])
            return None
        if event == zmq.EVENT_CLOSED:  # of an attempt; one that was connected is disconnected
            return "refused"
        if event != zmq.EVENT_DISCONNECTED:
            return None
        self._connected = False
        if self._reconnect_at is None:
            self._reconnect_at = max(time.monotonic(), self._reconnected_at + 1.0)
        return "disconnected"

    def _begin_again(self, failure: Failure) -> None:
        seconds, sentence = self._handshakes.failed(failure)
        if sentence is not None:
            logger.warning("lazygraph: %s", sentence)
        self._reconnect_at = time.monotonic() + seconds
        # Else libzmq would go on by itself, every 50 ms, or give up.
        with contextlib.suppress(zmq.ZMQError):
            self._socket.disconnect(self._endpoint)

    def reconnect_if_due(self, now: float) -> None:
        """Connect anew: ZeroMQ does by itself, but not after a frame beyond MAXMSGSIZE.

        It would also deliver to the next controller what it had queued for the one that left.
        """
        if self._reconnect_at is None:
            return
        with contextlib.suppress(zmq.ZMQError):  # it has given the address up by itself
            self._socket.disconnect(self._endpoint)
        if now < self._reconnect_at:
            return
        self._reconnect_at, self._reconnected_at = None, time.monotonic()
        self._connect()

    def _connect(self) -> None:
        """Each time by another name, which is random: two engines would steal each other's route.

        An old connection ends only once libzmq has had its turn on this thread. Where that is held
        up it connects again beside the new one, and a ROUTER would hear the name on one of the two.
        """
        self._socket.setsockopt(zmq.ROUTING_ID, b"e" + secrets.token_bytes(15))
        self._socket.connect(self._endpoint)

    def receive(self) -> list[bytes] | None:
        """The frames of the next message; ``None`` if there is none."""
        try:
            return self._socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None

    def send(self, frame: bytes) -> bool:
        """Send one frame; ``False`` if there is no room or nobody to take it."""
        if not self._connected:
            return False
        try:
            self._socket.send(frame, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def close(self) -> None:
        """Close; what was sent gets 200 ms to leave."""
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(200)
        self._context.destroy(200)


_FAILURES: dict[int, Failure] = {
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "mechanism",
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "refused",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "hang-up",
}
_FAILED = sum(_FAILURES)


def _wants_ipv6(endpoint: str) -> bool:
    """Whether it is an IPv6 address, or a name that has no other.

    For a name with both libzmq would take IPv6 alone, where a controller may listen on IPv4 only.
    """
    if "[" in endpoint:
        return True
    host = re.fullmatch(r"tcp://([^\s/;]+):\d+", endpoint)
    if host is None or re.fullmatch(r"[\d.]+", host[1]):
        return False
    try:
        found = {family for family, *_ in net.getaddrinfo(host[1], None, type=net.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return False
    return net.AF_INET6 in found and net.AF_INET not in found


def _make_socket(
    context: zmq.Context[zmq.Socket[bytes]], endpoint: str, curve: Curve | None, queue_max: int
) -> zmq.Socket[bytes]:
    socket = context.socket(zmq.DEALER)
    for option, value in (
        (zmq.IPV6, int(_wants_ipv6(endpoint))),
        (zmq.LINGER, 200),
        (zmq.SNDTIMEO, 0),
        (zmq.SNDHWM, queue_max),
        (zmq.RCVHWM, queue_max),
        (zmq.MAXMSGSIZE, 1 << 20),
        (zmq.RECONNECT_IVL, 50),
        (zmq.RECONNECT_IVL_MAX, 1000),
    ):
        socket.setsockopt(option, value)
    if curve:
        socket.setsockopt(zmq.CURVE_SERVERKEY, curve.server_key.encode())
        socket.setsockopt(zmq.CURVE_PUBLICKEY, curve.public_key.encode())
        socket.setsockopt(zmq.CURVE_SECRETKEY, curve.secret_key.encode())
    return socket
