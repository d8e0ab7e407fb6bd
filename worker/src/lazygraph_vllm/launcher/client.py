"""Stands for a command: has a launcher fork it, or becomes the command itself and says why.

    PYTHON client.py SOCKET [--no-spawn] -- vllm serve MODEL …

Run by the command's own Python, by its path and with ``-I``, so it imports nothing of ours and
nothing but the standard library. Exit code and signals are the command's own.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import shutil
import signal
import socket
import stat
import sys
import time
from collections.abc import Iterator
from typing import Any, NoReturn

START_SECONDS = 60.0
ANSWER_BYTES_MAX = 1 << 16
FORWARDED = ("SIGINT", "SIGTERM", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGCONT")
USAGE = "usage: client.py SOCKET [--no-spawn] -- COMMAND …"
UNREACHABLE = "ERR_LAZYGRAPH_LAUNCHER_UNREACHABLE"
FAILED = "ERR_LAZYGRAPH_LAUNCHER_FAILED"
REFUSED_FOR_GOOD = ("ERR_LAZYGRAPH_LAUNCHER_NOT_ALLOWED",)
NOT_FOUND, NOT_EXECUTABLE = 127, 126
# As in timeline/recorder.py, which isn't to be imported here.
STARTUP_FOLDER = "LAZYGRAPH_STARTUP_DIR"


class NotForkedError(Exception):
    """Why the launcher has started nothing, with its code."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


class Server:
    """The command as a launcher's child."""

    def __init__(self, connection: socket.socket, pid: int) -> None:
        self._connection = connection
        self._unconfirmed: list[int] = []
        # Held from the start: without its keeper it is the only sure name of the process.
        self._ended: int | None = None
        with contextlib.suppress(OSError):  # it has ended, and its keeper says so; or files lack
            self._ended = os.pidfd_open(pid)

    def forward(self, number: int, _frame: object) -> None:
        """Pass on a signal; its parent sends it, or we do where that has gone."""
        try:
            self._connection.send(json.dumps({"signal": number}).encode() + b"\n")
        except OSError:
            self._signal(number)
        else:
            self._unconfirmed.append(number)

    def wait(self, answers: Answers) -> dict[str, Any]:
        """How it ended; empty where its keeper was killed and nobody can know."""
        while (answer := answers.next(None)) is not None:
            if "sent" not in answer:
                return answer
            with contextlib.suppress(ValueError):
                self._unconfirmed.remove(answer["sent"])
        # What a keeper was told and has not read by its death, or a dead one while somebody else
        # still held its connection: rather twice than never.
        while self._unconfirmed:
            self._signal(self._unconfirmed.pop(0))
        if self._ended is not None:
            answers.wait(self._ended, None)
        return {}

    def _signal(self, number: int) -> None:
        with contextlib.suppress(OSError):
            if self._ended is not None:
                signal.pidfd_send_signal(self._ended, number)


class Answers:
    """Lines of JSON from a socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._data = b""
        # A signal that comes just before a wait begins doesn't interrupt it. Open to the end of
        # this process, as signals may come.
        self._woken, waker = os.pipe()
        os.set_blocking(waker, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)

    def next(self, seconds: float | None) -> dict[str, Any] | None:
        """The next one; ``None`` at the end, or when it doesn't come in time."""
        while b"\n" not in self._data and len(self._data) < ANSWER_BYTES_MAX:
            if not self.wait(self._connection, seconds):
                return None
            try:
                data = self._connection.recv(4096)
            except OSError:
                return None
            if not data:
                return None
            self._data += data
        line, _, self._data = self._data.partition(b"\n")
        try:
            answer = json.loads(line)
        except ValueError:
            return None
        return answer if isinstance(answer, dict) else None

    def wait(self, source: socket.socket | int, seconds: float | None) -> bool:
        """Whether there is something to read within this time; signals are handled meanwhile."""
        until = None if seconds is None else time.monotonic() + seconds
        while True:
            left = None if until is None else max(0.0, until - time.monotonic())
            readable = select.select([source, self._woken], [], [], left)[0]
            if self._woken in readable:
                os.read(self._woken, 4096)
            if source in readable or not readable:
                return source in readable


def without_env(command: list[str]) -> tuple[dict[str, str], list[str]]:
    """The variables of the command, ours and those that a plain ``env NAME=VALUE …`` sets first.

    With options of its own ``env`` is another program, which is left to the launcher to refuse.
    """
    env, at = dict(os.environ), 1
    if os.path.basename(command[0]) != "env":
        return env, command
    while at < len(command):
        name, is_assigned, value = command[at].partition("=")
        if not (is_assigned and name.isascii() and name.isidentifier()):
            break
        env[name] = value
        at += 1
    if at == len(command) or command[at].startswith("-"):
        return dict(os.environ), command
    return env, command[at:]


def request(env: dict[str, str], command: list[str]) -> bytes:
    """What this process has, and the command's would have."""
    limits = {
        str(value): list(resource.getrlimit(value))
        for name, value in vars(resource).items()
        if name.startswith("RLIMIT_")
    }
    ignored = [
        int(number)
        for number in signal.valid_signals()
        if signal.getsignal(number) is signal.SIG_IGN and number not in _IGNORED_BY_PYTHON
    ]
    mask = os.umask(0o077)
    os.umask(mask)
    body = {
        "argv": [shutil.which(command[0], path=env.get("PATH")) or command[0], *command[1:]],
        "env": env,
        "cwd": os.getcwd(),
        "cpus": sorted(os.sched_getaffinity(0)),
        "umask": mask,
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "limits": limits,
        "ignored": ignored,
        "prefix": sys.prefix,
        "version": sys.version,
        "namespaces": namespaces(),
        "gid": os.getegid(),
    }
    return json.dumps(body).encode() + b"\n"


_IGNORED_BY_PYTHON = {
    getattr(signal, name) for name in ("SIGPIPE", "SIGXFSZ", "SIGXFZ") if hasattr(signal, name)
}


def namespaces() -> list[str]:
    """Which mounts, processes and network this process sees."""
    found = []
    for name in ("mnt", "pid", "net"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/ns/{name}"))
    return found


def ask(path: str, data: bytes) -> tuple[Server, Answers]:
    """Have the command forked.

    Raises:
        NotForkedError: it wasn't.
    """
    connection = connect(path)
    head, rest = data[:1024], data[1024:]
    try:
        socket.send_fds(connection, [head], [0, 1, 2])
        connection.sendall(rest)
    except OSError:
        pass  # Its answer says why it hung up.
    answers = Answers(connection)
    answer = answers.next(START_SECONDS)
    if answer is None:
        connection.close()
        raise NotForkedError(
            UNREACHABLE, f"Expected an answer from the launcher at {path}, got none."
        )
    if "pid" not in answer:
        raise NotForkedError(str(answer.get("code")), str(answer.get("error")))
    return Server(connection, int(answer["pid"])), answers


def connect(path: str) -> socket.socket:
    """A connection to a launcher of this user.

    Raises:
        NotForkedError: there is none.
    """
    try:
        connection = socket.socket(socket.AF_UNIX)
        found = os.stat(path)
        if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.getuid():
            raise NotForkedError(
                UNREACHABLE, f"Expected a socket of this user at {path}, got another's, or a file."
            )
        connection.settimeout(START_SECONDS)
        connection.connect(path)
    except OSError as error:
        raise NotForkedError(
            UNREACHABLE,
            f"Expected a launcher at {path}, got {error.strerror or error}: "
            "start one with `lazygraph launcher`.",
        ) from error
    return connection


def _open_standard_files() -> None:
    """Where one is closed, the connection would come to be in its place, and go to the server.

    A command that is spawned after all has them closed again, as Python opens files.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)


def be_forked(path: str, command: list[str]) -> NoReturn:
    """Be the command by a launcher, and end as it does.

    Raises:
        NotForkedError: the launcher has started nothing.
    """
    env, command = without_env(command)
    try:
        _open_standard_files()
        data = request(env, command)
    except OSError as error:  # its folder is gone, or files lack: a process starts all the same
        raise NotForkedError(
            FAILED, f"Expected a folder and files that a server can be given, got {error.strerror}."
        ) from error
    with signals_kept() as early:
        server, answers = ask(path, data)
        pass_on(server)
    note_fork(env.get(STARTUP_FOLDER, "").strip())
    for number in early:
        server.forward(number, None)
    # Only the server reads, and whoever waits for its output to end waits for it alone.
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):
        os.dup2(null, fd)
    end = server.wait(answers)
    if "signal" in end:
        _die_by(int(end["signal"]))
    if "code" not in end:
        say("Expected the server's end to be told, got its keeper killed: it has ended somehow.")
    os._exit(int(end.get("code", 1)))


def note_fork(folder: str) -> None:
    """Add to a start's timeline what it took from this process's beginning to the server's."""
    if not folder:
        return
    with contextlib.suppress(OSError, ValueError):  # it costs a figure, never the server
        with open("/proc/self/stat") as file:
            ticks = int(file.read().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
        now = time.monotonic()
        span = {"name": "fork", "begin": now - age, "end": now}
        with open(os.path.join(folder, f"spans-{os.getpid()}.jsonl"), "a") as file:
            file.write(json.dumps(span) + "\n")


def passed_on() -> list[int]:
    """Signals that are the command's; those that this process ignores, it ignores as well."""
    numbers = [int(getattr(signal, name)) for name in FORWARDED]
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


@contextlib.contextmanager
def signals_kept() -> Iterator[list[int]]:
    """Keep signals for a server that isn't known yet, but may be there already.

    Without one, what came is as if it came now: the command is still this process.
    """
    kept: list[int] = []
    before = {number: signal.signal(number, lambda n, _: kept.append(n)) for number in passed_on()}
    try:
        yield kept
    except BaseException:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in kept:
            os.kill(os.getpid(), number)
        raise


def pass_on(server: Server) -> None:
    """From now on signals go to the server."""
    for number in passed_on():
        signal.signal(number, server.forward)


def _die_by(number: int) -> None:
    """End as the server did; its core, if any, is not ours to dump."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, ValueError):
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)


def be_spawned(command: list[str]) -> NoReturn:
    """Become the command: its process is this one."""
    try:
        os.execvp(command[0], command)
    except OSError as error:
        say(f"Expected to start {command[0]!r}, got {error.strerror}.")
        os._exit(NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE)


def say(sentence: str, code: str | None = None) -> None:
    """One line on stderr."""
    with contextlib.suppress(OSError):
        os.write(2, f"lazygraph: {sentence}{f' [{code}]' if code else ''}\n".encode())


def main(argv: list[str]) -> NoReturn:
    """Be the command after ``--``."""
    own, command = argv, []
    if "--" in argv:
        own, command = argv[: argv.index("--")], argv[argv.index("--") + 1 :]
    spawns = "--no-spawn" not in own
    paths = [word for word in own if word != "--no-spawn"]
    if len(paths) != 1 or not command:
        print(USAGE, file=sys.stderr)
        sys.exit(2)
    try:
        be_forked(paths[0], command)
    except NotForkedError as error:
        if not spawns or error.code in REFUSED_FOR_GOOD:
            say(str(error), error.code)
            sys.exit(NOT_EXECUTABLE)
        say(f"Not forked but spawned: {error}", error.code)
    be_spawned(command)


if __name__ == "__main__":
    main(sys.argv[1:])
