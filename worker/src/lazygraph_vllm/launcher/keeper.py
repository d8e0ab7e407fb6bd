"""The process between a client and its server: it passes signals one way and the end the other.

It is the server's parent. Without it a launcher that was killed would take the servers' exit codes
with it, and a process id could be used again while somebody still means to signal it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable

from . import refusal
from .refusal import RefusedError

TERM_SECONDS = 20.0
"""From SIGTERM to SIGKILL for a server whose client has gone."""
READY_BYTES_MAX = 4096
COMMANDS_BYTES_MAX = 4096


def keep(connection: socket.socket, become: Callable[[], None], fds: list[int]) -> bool:
    """Fork a server and see it to its end.

    Args:
        connection: its client's.
        become: turns the calling process into the server; it raises what kept it from that.
        fds: the client's files, which only the server keeps open.

    Returns:
        Whether this is the server, which has still to call its ``main``. In the keeper it doesn't
        return.
    """
    os.setsid()
    try:
        told, tell = socket.socketpair()
        pid = os.fork()
    except OSError as error:
        refused = RefusedError(
            refusal.FAILED,
            f"Expected to fork, got {error.strerror}: free memory, processes or files.",
        )
        with contextlib.suppress(OSError):
            connection.send(json.dumps(refused.answer()).encode() + b"\n")
        os._exit(1)
    if pid == 0:
        told.close()
        connection.close()
        return _be(tell, become)
    code = 1
    try:
        tell.close()
        for fd in fds:
            os.close(fd)
        _silence()
        Keeper(connection, pid, told).run()
        code = 0
    finally:
        os._exit(code)
    return False


def _be(tell: socket.socket, become: Callable[[], None]) -> bool:
    """In the server: everything that may fail comes before it is told to be there.

    It begins once its client has been told of it: a client that knows of none starts another.
    """
    try:
        become()
    except Exception as error:
        answer = RefusedError(
            refusal.FAILED,
            f"Expected what a spawned process would have, got {type(error).__name__}: {error}: "
            "this command can't be started by the launcher.",
        ).answer()
        tell.sendall(json.dumps(answer).encode())
        os._exit(1)
    try:
        tell.sendall(b"{}")
        is_known = tell.recv(1) != b""
    except OSError:
        is_known = False
    if not is_known:
        os._exit(1)  # its keeper is gone
    tell.close()
    return True


def _silence() -> None:
    """Hold neither the launcher's output open nor its input."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)


class Keeper:
    """Waits for a client's signals and for the server's end, whichever comes."""

    def __init__(self, connection: socket.socket, pid: int, told: socket.socket) -> None:
        self._connection = connection
        self._pid = pid
        self._told = told
        self._data = b""
        self._kill_at: float | None = None

    def run(self) -> None:
        """Until the server has ended and the client knows."""
        # Answers are few and short: a client that reads none is not waited for.
        self._connection.setblocking(False)
        body = json.loads(self._hear() or b'{"died": true}')
        if "error" in body:
            os.waitpid(self._pid, 0)
            self._answer(body)
            return
        if self._answer({"pid": self._pid}):
            with contextlib.suppress(OSError):  # it has ended, and is waited for
                self._told.sendall(b".")
        self._told.close()
        ended = os.pidfd_open(self._pid)
        watched: list[int | socket.socket] = [ended, self._connection]
        while True:
            readable, _, _ = select.select(watched, [], [], self._seconds())
            if ended in readable:
                break
            if self._connection in readable and not self._obey():
                watched.remove(self._connection)
                self._end()
            if self._kill_at is not None and time.monotonic() >= self._kill_at:
                self._signal_group(signal.SIGKILL)
        # As the end of a pod does: a stray rank would keep the GPU's memory. Before its leader is
        # waited for: until then nobody else can have the group's number.
        self._signal_group(signal.SIGKILL)
        _, status = os.waitpid(self._pid, 0)
        code = os.waitstatus_to_exitcode(status)
        self._answer({"code": code} if code >= 0 else {"signal": -code})

    def _hear(self) -> bytes:
        """What the server says before it begins; nothing where it has died."""
        with contextlib.suppress(OSError):
            return self._told.recv(READY_BYTES_MAX)
        return b""

    def _seconds(self) -> float | None:
        return None if self._kill_at is None else max(0.1, self._kill_at - time.monotonic())

    def _obey(self) -> bool:
        """Send the server the signals that its client got; whether there is still a client."""
        try:
            data = self._connection.recv(COMMANDS_BYTES_MAX)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._data += data
        while b"\n" in self._data:
            line, _, self._data = self._data.partition(b"\n")
            # Whatever it is, the server mustn't be left without its keeper.
            with contextlib.suppress(Exception):
                number = int(json.loads(line)["signal"])
                os.kill(self._pid, number)
                self._answer({"sent": number})
        return bool(data) and len(self._data) <= COMMANDS_BYTES_MAX

    def _end(self) -> None:
        self._kill_at = time.monotonic() + TERM_SECONDS
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGTERM)

    def _signal_group(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, number)

    def _answer(self, body: dict[str, object]) -> bool:
        """Whether there is still a client that can read it."""
        with contextlib.suppress(OSError):
            self._connection.send(json.dumps(body).encode() + b"\n")
            return True
        return False
