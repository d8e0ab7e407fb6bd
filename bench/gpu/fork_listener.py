"""The listening side of fork_serve.py: forks a server for each request, and sees it to its end."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import selectors
import signal
import socket
import stat
import sys
import time
import traceback
from dataclasses import dataclass, field

PRELOAD = (
    "vllm.entrypoints.cli.main",
    "vllm.entrypoints.cli.serve",
    "vllm.entrypoints.openai.api_server",
    "vllm.v1.engine.core",
    "vllm.v1.engine.async_llm",
    "vllm.v1.executor.multiproc_executor",
    "vllm.v1.executor.uniproc_executor",
    "vllm.v1.worker.gpu_worker",
    "vllm.v1.worker.gpu.model_runner",
    "vllm.model_executor.model_loader.dummy_loader",
)
MAIN = "vllm.entrypoints.cli.main:main"
"""What a child calls, with the arguments in sys.argv as `vllm` has them."""
IMPORTED = ("VLLM_BATCH_INVARIANT", "VLLM_TARGET_DEVICE")
"""Read once, when modules are imported: a child can't have another value than the listener."""
REQUEST_BYTES_MAX = 1 << 20
CHILDREN_MAX = 16
TERM_SECONDS = 20.0
"""From SIGTERM to SIGKILL for a server whose client has gone."""
CUDA_ERROR_NOT_INITIALIZED = 3
"""What cuInit answers in the child of a process that has called it."""
CHILD_CAN, CHILD_CANNOT = 0, 3
FORK_ENVIRONMENT = {"VLLM_WORKER_MULTIPROC_METHOD": "fork"}
"""Its EngineCore and ranks come by fork as well; vLLM itself falls back where CUDA is in use."""


class RequestError(Exception):
    """A request that can't be served; the text is for the client."""


@dataclass
class Request:
    """What a child becomes."""

    argv: list[str]
    env: dict[str, str]
    cwd: str
    cpus: list[int]


@dataclass
class Peer:
    """One connection: first a request's bytes, then the client of a child."""

    connection: socket.socket
    data: bytes = b""
    fds: list[int] = field(default_factory=list)
    pid: int | None = None
    kill_at: float | None = None


def parse(data: bytes, own_env: dict[str, str]) -> Request:
    """Check one request.

    Raises:
        RequestError: it is no request, or this process can't serve it.
    """
    try:
        body = json.loads(data)
        argv, env, cwd, cpus = (body[name] for name in ("argv", "env", "cwd", "cpus"))
        sound = (
            all(isinstance(a, str) for a in argv)
            and all(isinstance(v, str) for v in env.values())
            and isinstance(cwd, str)
            and all(isinstance(c, int) for c in cpus)
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RequestError(f"expected argv, env, cwd and cpus, got {error}") from error
    if not sound:
        raise RequestError("expected argv and cwd of text and cpus of numbers, got others")
    for name in IMPORTED:
        if env.get(name) != own_env.get(name):
            raise RequestError(
                f"expected {name}={own_env.get(name)!r} as at the listener's start, got "
                f"{env.get(name)!r}: start a listener with it"
            )
    return Request(argv, env | FORK_ENVIRONMENT, cwd, cpus)


def child_lacks_cuda(driver: str = "libcuda.so.1") -> bool:
    """Whether a forked child is refused by CUDA's driver, because this process initialised it.

    Asked of a child, since nothing that can be seen here tells: NVML opens the same device files as
    the driver on some hosts. Where there is no driver, nothing is refused.
    """
    pid = os.fork()
    if pid == 0:
        code = CHILD_CAN
        with contextlib.suppress(OSError):
            if ctypes.CDLL(driver).cuInit(0) == CUDA_ERROR_NOT_INITIALIZED:
                code = CHILD_CANNOT
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == CHILD_CANNOT


def preload(modules: list[str]) -> dict[str, float]:
    """Import what a server needs; returns seconds by module.

    Raises:
        RuntimeError: the imports left something in this process that a child can't do without.
    """
    seconds = {}
    for name in modules:
        began = time.monotonic()
        importlib.import_module(name)
        seconds[name] = time.monotonic() - began
    torch = sys.modules.get("torch")
    if (torch is not None and torch.cuda.is_initialized()) or child_lacks_cuda():
        raise RuntimeError(
            f"expected imports that leave CUDA's driver alone, got it initialised by one of "
            f"{', '.join(modules)}: a fork can't use it then"
        )
    plugins = sys.modules.get("vllm.plugins")
    if plugins is not None and plugins.plugins_loaded:
        # Each child must load them by its own environment, and vLLM does it once per process.
        raise RuntimeError("expected no plugin loaded before the fork, got vLLM's already loaded")
    return seconds


class Listener:
    """One thread without locks, so that a fork is safe at any time."""

    def __init__(self, path: str, main: str) -> None:
        """Bind the socket, for this user alone.

        Raises:
            OSError: the path can't be bound.
        """
        self._path = path
        self._main = main
        self._peers: dict[socket.socket, Peer] = {}
        self._stopping = False
        self._selector = selectors.DefaultSelector()
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(os.stat(path).st_mode):
                os.unlink(path)
        self._socket = socket.socket(socket.AF_UNIX)
        mask = os.umask(0o177)
        try:
            self._socket.bind(path)
        finally:
            os.umask(mask)
        self._socket.listen(CHILDREN_MAX)
        self._selector.register(self._socket, selectors.EVENT_READ)
        self._wake, self._waker = socket.socketpair()
        for end in (self._wake, self._waker):
            end.setblocking(False)
        self._selector.register(self._wake, selectors.EVENT_READ)

    def serve(self) -> None:
        """Serve until SIGTERM or SIGINT; every child has ended when it returns."""
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        while not (self._stopping and all(p.pid is None for p in self._peers.values())):
            for key, _ in self._selector.select(timeout=1.0):
                if key.fileobj is self._wake:
                    self._wake.recv(4096)
                elif key.fileobj is self._socket:
                    self._accept()
                else:
                    self._receive(self._peers[key.fileobj])
            self._reap()
            self._end_late()
        os.unlink(self._path)

    def _stop(self, *_: object) -> None:
        self._stopping = True
        for peer in self._peers.values():
            self._end(peer)

    def _accept(self) -> None:
        connection, _ = self._socket.accept()
        if self._stopping or len(self._peers) >= CHILDREN_MAX:
            connection.close()
            return
        self._peers[connection] = Peer(connection)
        self._selector.register(connection, selectors.EVENT_READ)

    def _receive(self, peer: Peer) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(peer.connection, 65536, 2)
        except OSError:
            data, fds = b"", []
        peer.fds += fds
        if not data:
            if peer.pid is None:
                self._forget(peer)
            else:
                self._selector.unregister(peer.connection)
                self._end(peer)
            return
        if peer.pid is not None:
            return
        peer.data += data
        if len(peer.data) > REQUEST_BYTES_MAX:
            self._answer(peer, {"error": f"expected at most {REQUEST_BYTES_MAX} bytes, got more"})
            self._forget(peer)
        elif b"\n" in peer.data:
            self._start(peer)

    def _start(self, peer: Peer) -> None:
        try:
            request = parse(peer.data.partition(b"\n")[0], dict(os.environ))
            if len(peer.fds) != 2:
                raise RequestError(f"expected two descriptors for output, got {len(peer.fds)}")
        except RequestError as error:
            self._answer(peer, {"error": str(error)})
            self._forget(peer)
            return
        pid = os.fork()
        if pid == 0:
            self._become(request, peer.fds)
        peer.pid = pid
        for fd in peer.fds:
            os.close(fd)
        peer.fds = []
        self._answer(peer, {"pid": pid})

    def _become(self, request: Request, fds: list[int]) -> None:
        """In the child: what a fresh process would have found. Never returns."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._selector.close()
            for peer in self._peers.values():
                peer.connection.close()
            for end in (self._socket, self._wake, self._waker):
                end.close()
            os.setsid()
            for source, target in zip(fds, (1, 2), strict=True):
                os.dup2(source, target)
                os.close(source)
            os.chdir(request.cwd)
            os.sched_setaffinity(0, request.cpus)
            os.environ.clear()
            os.environ.update(request.env)
            sys.argv = ["vllm", *request.argv]
            module, _, name = self._main.partition(":")
            getattr(importlib.import_module(module), name)()
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _reap(self) -> None:
        for peer in [p for p in self._peers.values() if p.pid is not None]:
            pid, status = os.waitpid(peer.pid, os.WNOHANG)
            if pid == 0:
                continue
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)  # A stray rank would keep the GPU's memory.
            self._answer(peer, {"code": os.waitstatus_to_exitcode(status)})
            self._forget(peer)

    def _end(self, peer: Peer) -> None:
        if peer.pid is None or peer.kill_at is not None:
            return
        peer.kill_at = time.monotonic() + TERM_SECONDS
        with contextlib.suppress(ProcessLookupError):
            os.kill(peer.pid, signal.SIGTERM)

    def _end_late(self) -> None:
        for peer in self._peers.values():
            if peer.pid is None or peer.kill_at is None or time.monotonic() < peer.kill_at:
                continue
            with contextlib.suppress(ProcessLookupError):
                os.killpg(peer.pid, signal.SIGKILL)

    def _answer(self, peer: Peer, body: dict[str, object]) -> None:
        with contextlib.suppress(OSError):
            peer.connection.send(json.dumps(body).encode() + b"\n")

    def _forget(self, peer: Peer) -> None:
        for fd in peer.fds:
            os.close(fd)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(peer.connection)
        peer.connection.close()
        del self._peers[peer.connection]
