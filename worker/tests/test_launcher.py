"""The launcher with a stand-in for vLLM: what a forked server finds, and how everything ends."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import select
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lazygraph_vllm.launcher import client as client_module
from lazygraph_vllm.launcher import listener as listener_module
from lazygraph_vllm.launcher.keeper import keep
from lazygraph_vllm.launcher.refusal import RefusedError

TESTS = Path(__file__).resolve().parent
SRC = TESTS.parent / "src"
CLIENT = SRC / "lazygraph_vllm" / "launcher" / "client.py"
SECONDS_MAX = 60
STARTS = 50


def search(*more: Path) -> str:
    """For PYTHONPATH."""
    return os.pathsep.join(map(str, (SRC, TESTS, *more)))


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": search(), "WORD": "the launcher's", **more}


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    return process.communicate(timeout=SECONDS_MAX)


def end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    finish(process)


def heard(process: subprocess.Popen[str]) -> str:
    """Its next line."""
    assert process.stdout is not None
    return process.stdout.readline()


@dataclass
class Launcher:
    process: subprocess.Popen[str]
    path: Path

    def ask(self) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.path))
            connection.sendall(b"status\n")
            # To the end: then it has closed its side, too.
            status: dict[str, Any] = json.loads(connection.makefile().read())
            return status

    def end(self) -> None:
        self.process.terminate()
        assert self.process.wait(SECONDS_MAX) == 0
        assert not self.path.exists()


def launch(
    path: Path, *options: str, module: str = "launcher_stand_in", **env: str
) -> subprocess.Popen[str]:
    words = ["--socket", str(path), "--preload", module, "--main", "launcher_stand_in:main"]
    return subprocess.Popen(
        [sys.executable, "-m", "lazygraph_vllm.launcher", *words, *options],
        env=environment(**env),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextlib.contextmanager
def launcher_at(path: Path, *options: str, **env: str) -> Iterator[Launcher]:
    process = launch(path, *options, **env)
    try:
        first = heard(process)
        assert json.loads(first)["listening"] == str(path)
        yield Launcher(process, path)
    finally:
        end(process)


@pytest.fixture
def vllm(tmp_path: Path) -> Path:
    """What the command's first word finds: where nothing is forked, it says so."""
    script = tmp_path / "vllm"
    script.write_text('#!/bin/sh\necho spawned $$ "$@"\n')
    script.chmod(0o755)
    return script


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Launcher]:
    with launcher_at(tmp_path / "socket") as one:
        yield one


def command(path: Path, *words: str, spawns: bool = False) -> list[str]:
    own = [sys.executable, "-I", str(CLIENT), str(path), *([] if spawns else ["--no-spawn"])]
    return [*own, "--", str(path.parent / "vllm"), *words]


def client(path: Path, *words: str, spawns: bool = False, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(path, *words, spawns=spawns),
        env=environment(**env),
        cwd=path.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def waiting(path: Path, *words: str) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    """A client whose server has come as far as it goes by itself."""
    process = client(path, "serve", "wait", *words)
    facts: dict[str, Any] = json.loads(heard(process))
    assert heard(process) == "waits\n"
    return process, facts


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def alive(pid: int) -> bool:
    try:
        return state_of(pid) != "Z"
    except OSError:
        return False


def until_asleep(*pids: int) -> None:
    """Each in turn: who has something to read is runnable, however late its turn comes."""
    for pid in pids:
        while state_of(pid) != "S":
            select.select([], [], [], 0.005)


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def until_gone(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        fd = os.pidfd_open(pid)
        try:
            assert select.select([fd], [], [], SECONDS_MAX)[0]
        finally:
            os.close(fd)


# ------------------------------------------------------------------ as if it had been spawned


def test_a_server_finds_what_its_client_has_and_imports_nothing(launcher: Launcher) -> None:
    folder = launcher.path.parent
    process = client(launcher.path, "serve", "MODEL", "3", WORD="the client's")
    out, err = finish(process)
    facts = json.loads(out)
    assert (process.returncode, err) == (3, "to stderr\n")
    assert facts["argv"] == [str(folder / "vllm"), "serve", "MODEL", "3"]
    assert facts["cwd"] == str(folder)
    assert facts["word"] == "the client's"
    assert facts["forked"] and facts["leads"]
    assert facts["method"] == "fork"
    assert facts["cpus"] == sorted(os.sched_getaffinity(0))
    assert facts["pid"] != process.pid


def test_variables_that_env_sets_before_it_are_its_own(launcher: Launcher, vllm: Path) -> None:
    def run(*words: str) -> bytes:
        own = [*command(launcher.path)[:-1], "env", *words]
        return subprocess.run(
            own, env=environment(), stdout=subprocess.PIPE, timeout=SECONDS_MAX
        ).stdout

    facts = json.loads(run("WORD=env's", f"PATH={vllm.parent}", "vllm", "serve", "A=B"))
    assert (facts["word"], facts["argv"]) == ("env's", [str(vllm), "serve", "A=B"])
    assert run("-u", "WORD", str(vllm), "serve") == run("WORD=1") == b""


def test_a_timed_start_is_told_what_the_fork_took(launcher: Launcher, tmp_path: Path) -> None:
    folder = tmp_path / "timeline"
    folder.mkdir()
    began = time.monotonic()
    process = client(launcher.path, "serve", "MODEL", "0", LAZYGRAPH_STARTUP_DIR=str(folder))
    out, err = finish(process)
    assert (process.returncode, err) == (0, "to stderr\n")
    [span] = map(json.loads, (folder / f"spans-{process.pid}.jsonl").read_text().splitlines())
    # The kernel keeps a process's beginning to a hundredth of a second.
    assert span["name"] == "fork"
    assert began - 0.02 <= span["begin"] < span["end"] <= time.monotonic()
    # A folder that isn't there costs the figure alone.
    gone = client(launcher.path, "serve", "MODEL", "3", LAZYGRAPH_STARTUP_DIR=str(folder / "none"))
    finish(gone)
    assert gone.returncode == 3


def test_what_imports_do_to_variables_is_done_for_a_server_too(launcher: Launcher) -> None:
    process = client(launcher.path, "serve", "0", STAND_IN_SETS="the client's")
    out, _ = finish(process)
    assert json.loads(out)["sets"] == "by its import"


def test_it_has_its_clients_umask_limits_and_ignored_signals(launcher: Launcher) -> None:
    words = " ".join(command(launcher.path, "serve", "0"))
    shell = f"trap '' HUP; umask 027; ulimit -Sn 200; exec {words}"
    done = subprocess.run(
        ["/bin/sh", "-c", shell],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=True,
    )
    facts = json.loads(done.stdout)
    assert (facts["umask"], facts["files"]) == (0o027, 200)
    assert facts["hangup"] == str(signal.SIG_IGN)


def test_it_has_no_file_open_but_its_own_three(launcher: Launcher) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(str(launcher.path))
        socket.send_fds(other, [b"half a request"], [0, 1, 2])
        out, _ = finish(client(launcher.path, "serve", "0"))
    fds = json.loads(out)["fds"]
    links = {name: link for name, link in fds.items() if not link.startswith("/proc/")}
    assert sorted(links) == ["0", "1", "2"]


def test_it_reads_its_clients_input_to_the_end(launcher: Launcher) -> None:
    process = client(launcher.path, "serve", "quiet", "read")
    out, _ = process.communicate("line 1\nline 2", timeout=SECONDS_MAX)
    assert out == "line 1\nline 2\n"
    assert process.returncode == 0


def test_an_uncaught_error_and_a_signal_end_it_as_they_end_a_process(launcher: Launcher) -> None:
    raised = client(launcher.path, "serve", "quiet", "raise")
    _, err = finish(raised)
    assert raised.returncode == 1
    assert err.endswith("RuntimeError: as an uncaught error ends a process\n")
    killed = client(launcher.path, "serve", "quiet", "kill")
    finish(killed)
    assert killed.returncode == -signal.SIGKILL


def test_signals_are_passed_on(launcher: Launcher) -> None:
    process, _ = waiting(launcher.path)
    for number in (signal.SIGUSR1, signal.SIGINT):
        process.send_signal(number)
        assert heard(process) == f"got {number.value}\n"
    end(process)
    assert process.returncode == -signal.SIGTERM


def test_a_signal_that_comes_before_the_launcher_has_answered_is_not_lost(
    launcher: Launcher,
) -> None:
    os.kill(launcher.process.pid, signal.SIGSTOP)
    process = client(launcher.path, "serve", "quiet", "wait")
    until_it_waits(process.pid)
    process.send_signal(signal.SIGTERM)
    select.select([], [], [], 0.2)
    assert process.poll() is None
    os.kill(launcher.process.pid, signal.SIGCONT)
    finish(process)
    assert process.returncode == -signal.SIGTERM


def until_it_waits(pid: int) -> None:
    """Until a client has asked: it catches SIGTERM then."""
    bit = 1 << (signal.SIGTERM - 1)
    for _ in range(SECONDS_MAX * 100):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("SigCgt:") and int(line.split()[1], 16) & bit:
                return
        select.select([], [], [], 0.01)
    raise AssertionError("expected a client that catches SIGTERM, got none")


def test_a_server_can_start_processes_of_its_own(launcher: Launcher) -> None:
    process = client(launcher.path, "serve", "quiet", "child")
    out, _ = finish(process)
    assert (out, process.returncode) == ("of a child\n", 0)


def test_several_run_at_once_and_draw_their_own_numbers(launcher: Launcher) -> None:
    several = [waiting(launcher.path) for _ in range(4)]
    assert launcher.ask()["children"] == 4
    assert len({facts["pid"] for _, facts in several}) == 4
    assert len({facts["draws"] for _, facts in several}) == 4
    for process, _ in several:
        end(process)


# ------------------------------------------------------------------ ends


def test_what_a_server_leaves_behind_in_its_group_ends_with_it(launcher: Launcher) -> None:
    process = client(launcher.path, "serve", "quiet", "stray", "5")
    # The output is open as long as anything of the server lives, the stray that ignores it too.
    finish(process)
    assert process.returncode == 5


def test_a_killed_client_takes_its_server_along(launcher: Launcher) -> None:
    process, facts = waiting(launcher.path)
    process.kill()
    finish(process)
    until_gone(facts["pid"])
    assert not alive(facts["pid"])


def test_a_killed_server_is_told_by_its_signal(launcher: Launcher) -> None:
    process, facts = waiting(launcher.path)
    os.kill(facts["pid"], signal.SIGKILL)
    finish(process)
    assert process.returncode == -signal.SIGKILL
    assert launcher.process.poll() is None


@pytest.mark.parametrize("delay_ms", [0, 1, 2, 4, 8, 16, 32, 64])
def test_a_server_killed_in_any_phase_is_told_by_its_signal(
    launcher: Launcher, delay_ms: int
) -> None:
    process = client(launcher.path, "serve", "quiet", "wait")
    server = first_below(launcher.process.pid)
    select.select([], [], [], delay_ms / 1000)
    os.kill(server, signal.SIGKILL)
    finish(process)
    assert process.returncode == -signal.SIGKILL
    until_childless(launcher)
    assert launcher.ask()["children"] == 0
    assert zombies_of(launcher.process.pid) == []


def first_below(pid: int) -> int:
    """The server below the launcher's keeper, as soon as it is there."""
    for _ in range(SECONDS_MAX * 1000):
        for keeper in children_of(pid):
            with contextlib.suppress(OSError):
                if servers := children_of(keeper):
                    return servers[0]
        select.select([], [], [], 0.001)
    raise AssertionError("expected a server, got none")


def test_a_killed_keeper_costs_the_exit_code_and_nothing_else(launcher: Launcher) -> None:
    process, facts = waiting(launcher.path)
    keeper = parent_of(facts["pid"])
    # The launcher has let go of the connection by then: it alone would hold the keeper's end.
    launcher.ask()
    os.kill(keeper, signal.SIGKILL)
    until_gone(keeper)
    process.send_signal(signal.SIGUSR1)
    assert heard(process) == f"got {signal.SIGUSR1.value}\n"
    os.kill(facts["pid"], signal.SIGTERM)
    _, err = finish(process)
    assert process.returncode == 1
    assert "Expected the server's end to be told, got its keeper killed" in err


def test_a_signal_that_a_keeper_was_told_and_has_not_read_is_not_lost(launcher: Launcher) -> None:
    process, facts = waiting(launcher.path)
    assert process.stdout is not None
    keeper = parent_of(facts["pid"])
    launcher.ask()
    process.send_signal(signal.SIGUSR1)
    assert heard(process) == f"got {signal.SIGUSR1.value}\n"
    until_asleep(keeper, process.pid)  # its answer that it has sent that one
    os.kill(keeper, signal.SIGSTOP)
    process.send_signal(signal.SIGINT)
    until_asleep(process.pid)
    os.kill(keeper, signal.SIGKILL)
    # That one, and the first no second time.
    assert select.select([process.stdout], [], [], SECONDS_MAX)[0]
    assert heard(process) == f"got {signal.SIGINT.value}\n"
    os.kill(facts["pid"], signal.SIGTERM)
    out, _ = finish(process)
    assert (out, process.returncode) == ("", 1)


def test_a_signal_that_comes_just_before_a_wait_is_passed_on() -> None:
    """It interrupts none, like one that another thread takes, and that one can be had at will."""
    code = """if True:
        import os, signal, socket, threading, time
        from lazygraph_vllm.launcher.client import Answers, Server, pass_on
        own, keepers = socket.socketpair()
        pass_on(Server(own, os.getpid()))
        def keeper():
            time.sleep(0.3)
            signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
            keepers.sendall(keepers.recv(99))
        threading.Thread(target=keeper, daemon=True).start()
        print(Answers(own).next(20))
    """
    words = [sys.executable, "-c", code]
    out = subprocess.run(words, env=environment(), stdout=subprocess.PIPE, text=True, check=True)
    assert out.stdout == f"{{'signal': {signal.SIGUSR1.value}}}\n"


class Mute(socket.socket):
    """A client's connection, of which the keeper is killed before it says anything."""

    def send(self, *_: Any) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return 0


class Gone(socket.socket):
    """That of one that has waited in vain, and is the command itself by now."""

    def send(self, *_: Any) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize(("kind", "code"), [(Mute, -signal.SIGKILL), (Gone, 0)])
def test_a_server_of_which_no_client_was_told_does_not_begin(
    tmp_path: Path, kind: type[socket.socket], code: int
) -> None:
    """The client starts another then, and both would have the GPU."""
    began = tmp_path / "began"
    ended, held = os.pipe()
    client, connection = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            if keep(kind(fileno=connection.detach()), lambda: None, [client.fileno()]):
                began.touch()
        finally:
            os._exit(0)
    os.close(held)
    connection.close()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == code
    assert select.select([ended], [], [], SECONDS_MAX)[0] and os.read(ended, 1) == b""
    assert not began.exists()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_servers_go_on_without_their_launcher(tmp_path: Path, how: signal.Signals) -> None:
    with launcher_at(tmp_path / "socket") as one:
        process, facts = waiting(one.path)
        one.process.send_signal(how)
        one.process.wait(SECONDS_MAX)
        assert alive(facts["pid"])
        process.send_signal(signal.SIGUSR1)
        assert heard(process) == f"got {signal.SIGUSR1.value}\n"
        end(process)
        assert process.returncode == -signal.SIGTERM


def test_many_starts_leave_nothing_behind(launcher: Launcher) -> None:
    def leaks() -> tuple[int, int]:
        children = launcher.ask()["children"]
        return len(os.listdir(f"/proc/{launcher.process.pid}/fd")), children

    def start() -> None:
        process = client(launcher.path, "serve", "quiet", "0")
        finish(process)
        assert process.returncode == 0

    for _ in range(5):
        start()
    until_childless(launcher)
    before, resident = leaks(), launcher.ask()["residentBytes"]
    for _ in range(STARTS):
        start()
    until_childless(launcher)
    assert leaks() == before
    grown = launcher.ask()["residentBytes"] - resident
    # Half a page for each start would be 100 KiB.
    assert grown < STARTS * 2048
    assert zombies_of(launcher.process.pid) == []


def until_childless(launcher: Launcher) -> None:
    """A keeper ends just after its client knows."""
    for pid in children_of(launcher.process.pid):
        until_gone(pid)
    launcher.ask()  # a turn of its loop, in which it counts


def children_of(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def zombies_of(pid: int) -> list[int]:
    return [child for child in children_of(pid) if not alive(child)]


# ------------------------------------------------------------------ refusals


def refused(process: subprocess.Popen[str]) -> str:
    out, err = finish(process)
    # As a shell tells of what it can't start: no code of the command's own.
    assert (process.returncode, out) == (126, "")
    return err


def test_another_value_of_what_imports_read_is_refused(launcher: Launcher) -> None:
    err = refused(client(launcher.path, "serve", "0", STAND_IN_READS="other"))
    assert "Expected STAND_IN_READS=(not set) as when the launcher imported vLLM" in err
    assert "got 'other'" in err
    assert err.endswith("[ERR_LAZYGRAPH_LAUNCHER_VARIABLE]\n")


def test_what_an_interpreter_reads_at_its_start_is_refused(launcher: Launcher) -> None:
    err = refused(client(launcher.path, "serve", "0", PYTHONHASHSEED="7"))
    assert "Expected PYTHONHASHSEED=(not set)" in err


def test_only_vllm_serve_is_started(launcher: Launcher, vllm: Path) -> None:
    # Not spawned either: it isn't for want of a fork.
    err = refused(client(launcher.path, "bench", "0", spawns=True))
    assert "Expected `vllm serve MODEL …`, got" in err
    assert err.endswith("[ERR_LAZYGRAPH_LAUNCHER_NOT_ALLOWED]\n")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["serve", "other/model"], "got 'other/model'"),
        (["serve", "--model=other"], "got 'other'"),
        (["serve", "--port", "1"], "got none that the command line names"),
        (["serve", "org/model", "--config", "file"], "got none that the command line names"),
    ],
)
def test_only_allowed_models_are_started(tmp_path: Path, words: list[str], named: str) -> None:
    with launcher_at(tmp_path / "socket", "--allow-model", "org/model") as one:
        err = refused(client(one.path, *words))
        assert "Expected one of the models org/model" in err
        assert named in err
        process = client(one.path, "serve", "org/model")
        finish(process)
        assert process.returncode == 0


def test_more_than_its_children_are_refused(tmp_path: Path) -> None:
    with launcher_at(tmp_path / "socket", "--children", "1") as one:
        process, _ = waiting(one.path)
        err = refused(client(one.path, "serve", "0"))
        assert err.endswith("[ERR_LAZYGRAPH_LAUNCHER_BUSY]\n")
        end(process)


def test_another_pythons_command_is_refused(launcher: Launcher, tmp_path: Path) -> None:
    other = tmp_path / "other"
    base = getattr(sys, "_base_executable", sys.executable)
    subprocess.run([base, "-m", "venv", "--without-pip", str(other)], check=True)
    words = [str(other / "bin" / "python"), *command(launcher.path, "serve", "0")[1:]]
    done = subprocess.run(
        words, env=environment(), capture_output=True, text=True, timeout=SECONDS_MAX, check=False
    )
    assert done.returncode == 126
    assert f"got Python {sys.version.split()[0]}" in done.stderr
    assert str(other) in done.stderr
    assert done.stderr.endswith("[ERR_LAZYGRAPH_LAUNCHER_PYTHON]\n")


def test_a_changed_installation_is_imported_anew(tmp_path: Path, vllm: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "changing.py").write_text("VERSION = 1\n")
    process = launch(
        tmp_path / "socket",
        "--preload",
        "changing",
        PYTHONPATH=search(site),
    )
    try:
        before = json.loads(heard(process))
        (site / "changing.py").write_text("VERSION = 22\n")
        path = search(site)
        first = client(tmp_path / "socket", "serve", "9", spawns=True, PYTHONPATH=path)
        out, err = finish(first)
        # This one is spawned, and says why; the next is forked again.
        assert out == f"spawned {first.pid} serve 9\n"
        assert str(site / "changing.py") in err
        assert err.endswith("[ERR_LAZYGRAPH_LAUNCHER_CHANGED]\n")
        after = json.loads(heard(process))
        assert after["pid"] == before["pid"]
        second = client(tmp_path / "socket", "serve", "9", PYTHONPATH=path)
        finish(second)
        assert second.returncode == 9
    finally:
        end(process)


def test_an_end_that_is_asked_for_counts_more_than_a_changed_installation(tmp_path: Path) -> None:
    module = tmp_path / "changing.py"
    module.touch()
    env = environment(PYTHONPATH=os.pathsep.join([str(SRC), str(tmp_path)]))
    process = launch(tmp_path / "socket", module="changing", **env)
    heard(process)
    data = client_module.request(env, ["vllm", "serve"])
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(tmp_path / "socket"))
        socket.send_fds(connection, [data[:-1]], [0, 1, 2])
        until_asleep(process.pid)
        process.send_signal(signal.SIGSTOP)
        module.write_text("CHANGED = 1\n")
        connection.sendall(b"\n")
        process.terminate()
        process.send_signal(signal.SIGCONT)
        assert b"LAUNCHER_CHANGED" in connection.recv(4096)
    assert finish(process)[0] == ""


def test_an_end_that_is_asked_for_just_before_it_begins_anew_is_not_lost(tmp_path: Path) -> None:
    module = tmp_path / "changing.py"
    module.write_text(
        "import os, signal\n"
        "begin = os.execve\n"
        "os.execve = lambda *how: (os.kill(os.getpid(), signal.SIGTERM), begin(*how))\n"
    )
    path = os.pathsep.join([str(SRC), str(tmp_path)])
    process = launch(tmp_path / "socket", module="changing", PYTHONPATH=path)
    try:
        heard(process)
        module.write_text("CHANGED = 1\n")
        finish(client(tmp_path / "socket", "serve", PYTHONPATH=path))
        assert heard(process) == ""
        assert process.wait(SECONDS_MAX) == -signal.SIGTERM
    finally:
        end(process)


# vLLM's two caches, as `keep_tokenizer` finds them, and a server that says what it found there.
REGISTRY = """
from functools import lru_cache
LOADS = []
def load(folder, **how):
    LOADS.append(open(folder + "/tokenizer.json").read())
    return LOADS[-1]
keep = lru_cache(load)
def cached_tokenizer_from_config(config):
    return keep(config.tokenizer, mode=config.tokenizer_mode)
"""
HF = """
LOOKED = []
def _try_get_processor_chat_template(tokenizer, *, trust_remote_code):
    LOOKED.append(tokenizer)
"""
SERVER = """
import sys
from types import SimpleNamespace
from vllm.renderers import hf
from vllm.tokenizers import registry
def serve():
    config = SimpleNamespace(tokenizer=sys.argv[2], tokenizer_mode="auto")
    print(registry.cached_tokenizer_from_config(config), registry.LOADS, hf.LOOKED)
    return 0
"""


@pytest.fixture
def with_tokenizers(tmp_path: Path, vllm: Path) -> Path:
    site = tmp_path / "site"
    for name, text in (("tokenizers/registry", REGISTRY), ("renderers/hf", HF)):
        (site / "vllm" / name).parent.mkdir(parents=True)
        (site / "vllm" / f"{name}.py").write_text(text)
    (site / "a_server.py").write_text(SERVER)
    model = tmp_path / "model"
    model.mkdir()
    (model / "tokenizer.json").write_text("one")
    return site


def test_a_tokenizer_is_loaded_once_and_anew_when_it_changes(
    tmp_path: Path, with_tokenizers: Path
) -> None:
    path, model = tmp_path / "socket", str(tmp_path / "model")
    site = search(with_tokenizers)
    own = ["--socket", str(path), "--preload", "a_server", "--main", "a_server:serve"]
    process = subprocess.Popen(
        [sys.executable, "-m", "lazygraph_vllm.launcher", *own, "--tokenizer", model],
        env=environment(PYTHONPATH=site),
        stdout=subprocess.PIPE,
        text=True,
    )

    def server(*words: str, spawns: bool = False) -> str:
        one = client(path, "serve", *words, spawns=spawns, PYTHONPATH=site)
        return finish(one)[0]

    try:
        assert json.loads(heard(process))["listening"] == str(path)
        assert server(model) == "one ['one'] ['one']\n"
        # Positive control: asked for in other words, it is loaded again.
        assert server(f"{model}/") == "one ['one', 'one'] ['one']\n"
        (tmp_path / "model" / "tokenizer.json").write_text("another")
        assert server(model, spawns=True).startswith("spawned ")
        assert json.loads(heard(process))["listening"] == str(path)
        assert server(model) == "another ['another'] ['another']\n"
        # A file that comes is a change as well.
        (tmp_path / "model" / "chat_template.jinja").write_text("")
        assert server(model, spawns=True).startswith("spawned ")
    finally:
        end(process)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--tokenizer", "model"], "absolute path of a model's folder, got model"),
        (["--tokenizer", "/none"], "absolute path of a model's folder, got /none"),
        (["--tokenizer", "/"], "Expected a tokenizer in /, got FileNotFoundError"),
        (["--tokenizer", "/"] * 17, "at most 16 times, got it 17 times"),
    ],
)
def test_a_tokenizer_that_is_none_is_refused(
    tmp_path: Path, with_tokenizers: Path, words: list[str], sentence: str
) -> None:
    path = search(with_tokenizers)
    process = launch(tmp_path / "socket", *words, PYTHONPATH=path)
    _, err = finish(process)
    assert process.returncode == 1
    assert sentence in err and err.endswith("[ERR_LAZYGRAPH_LAUNCHER_FAILED]\n")


def test_a_request_that_is_none_or_too_long_is_answered_with_a_sentence(launcher: Launcher) -> None:
    for data, sentence in (
        (b'{"argv": []}\n', "Expected a request with argv, env, cwd"),
        (b"x" * (4 << 20) + b"yy", "Expected a request of at most 4194304 bytes, got more"),
    ):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(launcher.path))
            with contextlib.suppress(BrokenPipeError):
                connection.sendall(data)
            answer = json.loads(connection.makefile().readline())
        assert sentence in answer["error"]
        assert answer["code"] == "ERR_LAZYGRAPH_LAUNCHER_REQUEST"


def test_its_socket_is_this_users_alone(launcher: Launcher) -> None:
    assert stat.S_IMODE(launcher.path.stat().st_mode) == 0o600


def test_memory_and_who_it_is_are_told(launcher: Launcher) -> None:
    status = launcher.ask()
    assert status["python"] == sys.executable
    assert status["client"] == str(CLIENT)
    assert status["residentBytes"] > 1 << 20
    assert status["childrenMax"] == 16


def test_a_second_launcher_at_the_same_socket_is_refused(launcher: Launcher) -> None:
    _, err = finish(launch(launcher.path))
    assert err.endswith("[ERR_LAZYGRAPH_ADDRESS_IN_USE]\n")
    assert launcher.ask()["pid"] == launcher.process.pid


@pytest.mark.parametrize("locked", [True, False], ids=["locked", "as it would be without"])
def test_of_two_that_find_a_dead_socket_one_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locked: bool
) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    found, go_on = threading.Event(), threading.Event()
    unlink = os.unlink

    def late(name: str) -> None:
        # The first has found it dead; the second does the same before it is removed.
        if not found.is_set():
            found.set()
            assert go_on.wait(SECONDS_MAX)
        unlink(name)

    monkeypatch.setattr(os, "unlink", late)
    if not locked:
        monkeypatch.setattr(listener_module, "_lock", lambda _: True)
    outcomes: dict[str, socket.socket | str] = {}

    def bind(name: str) -> None:
        try:
            outcomes[name] = listener_module.bind(path)
        except RefusedError as error:
            outcomes[name] = error.code

    threads = [threading.Thread(target=bind, args=(name,)) for name in ("first", "second")]
    threads[0].start()
    assert found.wait(SECONDS_MAX)
    threads[1].start()
    threads[1].join(0.5 if locked else SECONDS_MAX)
    go_on.set()
    for thread in threads:
        thread.join(SECONDS_MAX)
    listening = [each for each in outcomes.values() if isinstance(each, socket.socket)]
    reached = []
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        for each in listening:
            with contextlib.suppress(BlockingIOError):
                reached.append(each.accept()[0])
            each.close()
    for connection in reached:
        connection.close()
    assert len(reached) == 1
    # Without the lock both believe that they listen, and one of them is never reached.
    assert len(listening) == (1 if locked else 2)
    assert not locked or outcomes["second"] == "ERR_LAZYGRAPH_ADDRESS_IN_USE"


def test_a_folder_that_stays_locked_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener_module, "LOCK_SECONDS", 0.05)
    held = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(RefusedError, match="Expected to lock") as refused:
            listener_module.bind(str(tmp_path / "socket"))
        assert refused.value.code == "ERR_LAZYGRAPH_LAUNCHER_FAILED"
    finally:
        os.close(held)
    listener_module.bind(str(tmp_path / "socket")).close()


def test_it_can_end_with_whoever_started_it(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    words = ["--socket", str(path), "--preload", "launcher_stand_in", "--with-parent"]
    command = [sys.executable, "-m", "lazygraph_vllm.launcher", *words]
    parent = subprocess.Popen(
        [sys.executable, "-c", f"import subprocess; subprocess.run({command!r})"],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    pid = json.loads(heard(parent))["pid"]
    assert alive(pid)
    parent.kill()
    finish(parent)  # its output is open until the launcher has ended
    until_gone(pid)
    assert not path.exists()


def test_it_ends_with_one_that_ends_while_it_imports(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import os, sys, time\n"
        "parent = os.getppid()\n"
        "print(os.getpid(), file=sys.stderr, flush=True)\n"
        "while os.getppid() == parent:\n"
        "    time.sleep(0.01)\n"
    )
    words = ["--socket", str(tmp_path / "socket"), "--preload", "slow", "--with-parent"]
    command = [sys.executable, "-m", "lazygraph_vllm.launcher", *words]
    parent = subprocess.Popen(
        [sys.executable, "-c", f"import subprocess; subprocess.run({command!r})"],
        env=environment(PYTHONPATH=search(tmp_path)),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert parent.stderr is not None
    pid = int(parent.stderr.readline())
    parent.kill()
    parent.wait()
    try:
        until_gone(pid)
    finally:
        parent.stderr.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


# ------------------------------------------------------------------ where it can't be one


def test_without_a_launcher_the_command_is_spawned_and_says_why(tmp_path: Path, vllm: Path) -> None:
    process = client(tmp_path / "none", "serve", "MODEL", spawns=True)
    out, err = finish(process)
    assert out == f"spawned {process.pid} serve MODEL\n"
    assert err.startswith("lazygraph: Not forked but spawned: Expected a launcher at ")
    assert err.endswith("[ERR_LAZYGRAPH_LAUNCHER_UNREACHABLE]\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("raise ImportError('no')", "FAILED"),
        (
            "import threading, time\n"
            "threading.Thread(target=time.sleep, args=(60,), daemon=True, name='busy').start()",
            "FAILED",
        ),
        (
            "import sys, types\n"
            "sys.modules['torch'] = torch = types.ModuleType('torch')\n"
            "torch.cuda = types.SimpleNamespace(is_initialized=lambda: True)",
            "CUDA",
        ),
        (
            "import sys, types\n"
            "sys.modules['vllm.plugins'] = types.SimpleNamespace(plugins_loaded=True)",
            "FAILED",
        ),
    ],
)
def test_imports_that_make_forks_useless_are_refused(
    tmp_path: Path, source: str, code: str
) -> None:
    (tmp_path / "bad.py").write_text(source + "\n")
    path = search(tmp_path)
    process = launch(tmp_path / "socket", module="bad", PYTHONPATH=path)
    _, err = finish(process)
    assert process.returncode == 1
    assert err.splitlines()[-1].endswith(f"[ERR_LAZYGRAPH_LAUNCHER_{code}]")


def test_the_client_needs_nothing_but_the_standard_library() -> None:
    script = (
        "import runpy, sys\n"
        f"runpy.run_path({str(CLIENT)!r})\n"
        "print(any(name.startswith('lazygraph') for name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
    assert client_module.START_SECONDS > 0


def test_no_start_waits_for_a_client_that_says_nothing(launcher: Launcher) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(str(launcher.path))
        silent.sendall(b'{"argv"')
        process = client(launcher.path, "serve", "quiet", "4")
        finish(process)
        assert process.returncode == 4
        silent.settimeout(SECONDS_MAX)
        assert silent.recv(1) == b""  # its time is over


def test_without_a_place_a_client_is_told_so(launcher: Launcher) -> None:
    with contextlib.ExitStack() as silent:
        for _ in range(3 * listener_module.CONNECTIONS_MAX):
            one = silent.enter_context(socket.socket(socket.AF_UNIX))
            one.connect(str(launcher.path))
        assert launcher.ask()["code"] == "ERR_LAZYGRAPH_LAUNCHER_BUSY"
        err = refused(client(launcher.path, "serve", "0"))
        assert err.endswith("[ERR_LAZYGRAPH_LAUNCHER_BUSY]\n")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&- 2>&-"])
def test_a_client_with_closed_files_ends_as_its_server(launcher: Launcher, closed: str) -> None:
    words = command(launcher.path, "serve", "quiet", "7")
    ended = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *words], env=environment(), timeout=SECONDS_MAX
    )
    # Without an output its last flush fails, as in a process that began so.
    assert ended.returncode in ((7,) if closed == "<&-" else (7, 120))


def test_where_its_folder_is_gone_the_command_is_spawned(launcher: Launcher, vllm: Path) -> None:
    words = command(launcher.path, "serve", spawns=True)
    script = 'mkdir gone; cd gone; rmdir ../gone; exec "$@"'
    ended = subprocess.run(
        ["sh", "-c", script, "sh", *words],
        env=environment(),
        cwd=vllm.parent,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
    )
    assert ended.stdout.startswith("spawned ")
    assert ended.stderr.startswith("lazygraph: Not forked but spawned: Expected a folder")
    assert ended.stderr.splitlines()[0].endswith("[ERR_LAZYGRAPH_LAUNCHER_FAILED]")


def test_a_launcher_out_of_descriptors_listens_again_once_there_are_some(
    launcher: Launcher,
) -> None:
    opened = len(os.listdir(f"/proc/{launcher.process.pid}/fd"))
    files, pid = resource.RLIMIT_NOFILE, launcher.process.pid
    before = resource.prlimit(pid, files)
    resource.prlimit(pid, files, (opened + 8, before[1]))
    peers = []
    for _ in range(12):
        peers.append(socket.socket(socket.AF_UNIX))
        peers[-1].connect(str(launcher.path))
    time.sleep(0.5)
    assert launcher.process.poll() is None
    for peer in peers:
        peer.close()
    resource.prlimit(pid, files, before)
    assert launcher.ask()["children"] == 0


def test_one_that_is_stopped_with_all_places_taken_is_in_use(launcher: Launcher) -> None:
    launcher.process.send_signal(signal.SIGSTOP)
    peers = []
    with contextlib.suppress(BlockingIOError):
        while len(peers) < 100:
            peers.append(socket.socket(socket.AF_UNIX))
            peers[-1].setblocking(False)
            peers[-1].connect(str(launcher.path))
    second = launch(launcher.path)
    try:
        assert "ERR_LAZYGRAPH_ADDRESS_IN_USE" in finish(second)[1]
    finally:
        second.kill()
        launcher.process.send_signal(signal.SIGCONT)
        for peer in peers:
            peer.close()
