"""The launcher's own loop: takes requests, answers or forks, and counts who is still there."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import selectors
import signal
import socket
import stat
import struct
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from . import refusal
from .installation import Installation
from .keeper import keep
from .refusal import RefusedError
from .request import BYTES_MAX, Own, Request, check, parse
from .server import become

CONNECTIONS_MAX = 32
REQUEST_SECONDS = 10.0
"""For a whole request."""
OUT_OF_FILES_SECONDS = 0.1
LOCK_SECONDS = 5.0
"""For others that bind in the same folder, each in milliseconds."""
LOCK_POLL_SECONDS = 0.01
DESCRIPTORS = 3
CREDENTIALS = struct.Struct("3i")


@dataclass
class Peer:
    """A connection whose request hasn't arrived in full."""

    connection: socket.socket
    until: float
    data: bytes = b""
    fds: list[int] = field(default_factory=list)


def bind(path: str) -> socket.socket:
    """A listening socket for this user alone.

    Raises:
        RefusedError: the path can't be bound, or another launcher listens there.
    """
    try:
        with _alone(path):
            _clear(path)
            listening = socket.socket(socket.AF_UNIX)
            mask = os.umask(0o177)
            try:
                listening.bind(path)
            finally:
                os.umask(mask)
            listening.listen(CONNECTIONS_MAX)
    except OSError as error:
        raise RefusedError(
            refusal.FAILED,
            f"Expected to bind {path}, got {error.strerror or error}: give another --socket.",
        ) from error
    listening.setblocking(False)
    return listening


@contextlib.contextmanager
def _alone(path: str) -> Iterator[None]:
    """Let no other launcher clear or bind this path.

    Of two that find a dead socket the second would remove what the first has bound since, and
    before it listens a live one looks dead. The folder is locked: a file would have to stay.
    """
    folder = os.path.dirname(path) or "."
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        until = time.monotonic() + LOCK_SECONDS
        while not _lock(held):
            if time.monotonic() >= until:
                raise RefusedError(
                    refusal.FAILED,
                    f"Expected to lock {folder} within {LOCK_SECONDS:.0f} s to bind {path}, got "
                    "another process that holds it: give a --socket in a folder of your own.",
                )
            time.sleep(LOCK_POLL_SECONDS)
        yield
    finally:
        os.close(held)


def _lock(folder: int) -> bool:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # A file system whose folders can't be locked, such as NFS: without.
    return True


def _clear(path: str) -> None:
    """Remove a socket that nobody listens at."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.setblocking(False)
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)
                return
            except BlockingIOError:
                pass  # It is there, stopped or busy, and as many wait as can.
        raise RefusedError(
            refusal.ADDRESS_IN_USE,
            f"Expected {path} to be free, got a launcher that listens there: use that one, or "
            "give another --socket.",
        )


class Listener:
    """One thread without locks: a fork is safe at any time."""

    def __init__(
        self,
        path: str,
        listening: socket.socket,
        own: Own,
        changed: dict[str, str | None],
        facts: dict[str, Any],
        children_max: int,
        parent: int | None = None,
        folders: Sequence[str] = (),
    ) -> None:
        """Take over a bound socket.

        Args:
            path: where it is bound.
            listening: it.
            own: what requests are held against.
            changed: what imports do to a process's variables.
            facts: what a status tells besides.
            children_max: how many servers may run at once.
            parent: whose end is this one's as well.
            folders: what was loaded from them is loaded anew when they change.
        """
        self._path = path
        self._socket = listening
        self._inode = os.stat(path).st_ino
        self._own = own
        self._changed = changed
        self._facts = facts
        self._children_max = children_max
        self._parent = parent
        self._installation = Installation(folders)
        self._peers: dict[socket.socket, Peer] = {}
        self._keepers = _children()
        self._stopping = self.restart = False
        self._selector = selectors.DefaultSelector()
        self._wake, self._waker = socket.socketpair()
        for end in (self._wake, self._waker):
            end.setblocking(False)
        for readable in (self._socket, self._wake):
            self._selector.register(readable, selectors.EVENT_READ)

    def serve(self) -> bool:
        """Serve until SIGTERM, SIGINT or another installation.

        Returns:
            Whether this is a server, forked here, whose ``main`` is to be called.
        """
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        while not (self._stopping or self.restart):
            for key, _ in self._selector.select(timeout=1.0):
                if key.fileobj is self._wake:
                    with contextlib.suppress(BlockingIOError):
                        self._wake.recv(4096)
                elif key.fileobj is self._socket:
                    self._accept()
                elif isinstance(key.fileobj, socket.socket):
                    # One that an earlier event has closed is listed too.
                    peer = self._peers.get(key.fileobj)
                    if peer is not None and self._receive(peer):
                        return True
            self._reap()
            self._drop_late()
            if self._parent not in (None, os.getppid()):
                self._stopping = True
        self._leave()
        if self.restart:
            _end_by_signals()
        # Whoever has ended it while it was about to begin anew has ended it.
        self.restart = self.restart and not self._stopping
        return False

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _leave(self) -> None:
        for peer in list(self._peers.values()):
            self._forget(peer)
        with contextlib.suppress(FileNotFoundError):
            if os.stat(self._path).st_ino == self._inode:
                os.unlink(self._path)
        self._close()

    def _close(self) -> None:
        signal.set_wakeup_fd(-1)
        self._selector.close()
        for peer in self._peers.values():
            peer.connection.close()
            # A server that kept them would keep another client's output open to its own end.
            for fd in peer.fds:
                os.close(fd)
        for end in (self._socket, self._wake, self._waker):
            end.close()

    def _accept(self) -> None:
        try:
            connection, _ = self._socket.accept()
        except BlockingIOError:
            return
        except OSError:
            # No descriptor is left until peers are served, or dropped as too late.
            time.sleep(OUT_OF_FILES_SECONDS)
            return
        connection.setblocking(False)
        if _user(connection) != os.getuid():
            connection.close()
            return
        if len(self._peers) == 2 * CONNECTIONS_MAX:
            self._forget(list(self._peers.values())[CONNECTIONS_MAX])
        self._peers[connection] = Peer(connection, time.monotonic() + REQUEST_SECONDS)
        self._selector.register(connection, selectors.EVENT_READ)

    def _receive(self, peer: Peer) -> bool:
        try:
            data, fds, _, _ = socket.recv_fds(peer.connection, 65536, DESCRIPTORS)
        except BlockingIOError:
            return False
        except OSError:
            data, fds = b"", []
        peer.fds += fds
        peer.data += data
        if not data or len(peer.fds) > DESCRIPTORS:
            self._forget(peer)
            return False
        try:
            # Not before it speaks: who can't send its words reads no answer.
            if peer in list(self._peers.values())[CONNECTIONS_MAX:]:
                raise RefusedError(
                    refusal.BUSY,
                    f"Expected one of {CONNECTIONS_MAX} places for a request, got none: try later.",
                )
            if len(peer.data) > BYTES_MAX:
                raise RefusedError(
                    refusal.REQUEST,
                    f"Expected a request of at most {BYTES_MAX} bytes, got more: "
                    "give fewer variables.",
                )
            if b"\n" in peer.data:
                return self._answer_or_fork(peer)
        except RefusedError as error:
            self._answer(peer, error.answer())
            self._forget(peer)
        return False

    def _answer_or_fork(self, peer: Peer) -> bool:
        line = peer.data.partition(b"\n")[0]
        if line == b"status":
            self._answer(peer, self.status())
            self._forget(peer)
            return False
        request = parse(line)
        if len(peer.fds) != DESCRIPTORS:
            raise RefusedError(
                refusal.REQUEST,
                f"Expected {DESCRIPTORS} descriptors with a request, got {len(peer.fds)}: "
                "use this launcher's client.",
            )
        words = check(request, self._own)
        self._check_installation()
        if len(self._keepers) >= self._children_max:
            raise RefusedError(
                refusal.BUSY,
                f"Expected fewer than {self._children_max} servers at once, got as many: wait for "
                "one to end, or start the launcher with a higher --children.",
            )
        return self._fork(peer, request, words)

    def _check_installation(self) -> None:
        if (path := self._installation.change()) is None:
            return
        self.restart = True
        raise RefusedError(
            refusal.CHANGED,
            f"Expected the installation that the launcher has imported, got {path} changed since: "
            "the launcher imports it anew.",
        )

    def _fork(self, peer: Peer, request: Request, words: list[str]) -> bool:
        try:
            pid = os.fork()
        except OSError as error:
            raise RefusedError(
                refusal.FAILED,
                f"Expected to fork, got {error.strerror}: free memory or processes.",
            ) from error
        if pid != 0:
            self._keepers.add(pid)
            self._forget(peer)
            return False
        # From here on another process: of what it holds, only the client's may stay open.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        del self._peers[peer.connection]
        self._close()
        peer.connection.setblocking(True)
        return keep(
            peer.connection,
            functools.partial(become, request, words, peer.fds, self._changed),
            peer.fds,
        )

    def status(self) -> dict[str, Any]:
        """What anybody of this user may know."""
        return self._facts | {
            "pid": os.getpid(),
            "children": len(self._keepers),
            "childrenMax": self._children_max,
            "residentBytes": _resident_bytes(),
            "models": list(self._own.models),
        }

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (pid := os.waitpid(-1, os.WNOHANG)[0]) != 0:
                self._keepers.discard(pid)

    def _drop_late(self) -> None:
        now = time.monotonic()
        for peer in [p for p in self._peers.values() if p.until < now]:
            self._forget(peer)

    def _answer(self, peer: Peer, body: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            peer.connection.send(json.dumps(body).encode() + b"\n")

    def _forget(self, peer: Peer) -> None:
        for fd in peer.fds:
            os.close(fd)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(peer.connection)
        peer.connection.close()
        self._peers.pop(peer.connection, None)


def _user(connection: socket.socket) -> int:
    """Whose the other end is; the kernel vouches for it."""
    option = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    return int(CREDENTIALS.unpack(option)[1])


def _resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _children() -> set[int]:
    """Keepers of before a restart, which are still this process's children."""
    with contextlib.suppress(OSError), open(f"/proc/self/task/{os.getpid()}/children") as file:
        return {int(pid) for pid in file.read().split()}
    return set()


def _end_by_signals() -> None:
    """By themselves: one that only set a flag would be lost with this program."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    # Those that have come are taken in first, others later.
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    for number in numbers:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)


def restart(env: Mapping[str, str]) -> NoReturn:
    """Begin anew in this process, with the arguments and variables that it was started with."""
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], env)
