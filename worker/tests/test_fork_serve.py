"""bench/gpu/fork_serve.py with a stand-in for vLLM: what a forked server finds, and how it ends."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "bench" / "gpu" / "fork_serve.py"
SECONDS_MAX = 60
sys.path.insert(0, str(SCRIPT.parent))

from fork_listener import child_lacks_cuda  # noqa: E402

SERVER = """
    import json, os, signal, sys, time
    IMPORTED_BY = os.getpid()

    def main():
        told = {
            "argv": sys.argv, "cwd": os.getcwd(), "word": os.environ.get("WORD"),
            "method": os.environ.get("VLLM_WORKER_MULTIPROC_METHOD"),
            "forked": IMPORTED_BY != os.getpid(), "leads": os.getpgid(0) == os.getpid(),
            "cpus": len(os.sched_getaffinity(0)),
        }
        print(json.dumps(told), flush=True)
        print("to stderr", file=sys.stderr, flush=True)
        if "wait" in sys.argv:
            stray = os.fork()
            if stray == 0:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                print("forked", flush=True)
            while True:
                signal.pause()
        sys.exit(int(sys.argv[-1]))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "stand_in.py").write_text(textwrap.dedent(SERVER))
    return tmp_path


@pytest.fixture
def listener(folder: Path) -> Iterator[Path]:
    path = folder / "socket"
    command = [sys.executable, str(SCRIPT), "listen", str(path)]
    command += ["--preload", "stand_in", "--main", "stand_in:main"]
    env = {**os.environ, "PYTHONPATH": str(folder), "WORD": "the listener's"}
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["listening"] == str(path)
    yield path
    process.terminate()
    assert process.wait(SECONDS_MAX) == 0
    assert not path.exists()


def client(path: Path, *argv: str, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), "run", str(path), *argv],
        env={**os.environ, **env},
        cwd=path.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def lines_of(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    return iter(process.stdout.readline, "")


def test_a_server_finds_what_its_client_has_and_imports_nothing(listener: Path) -> None:
    process = client(listener, "serve", "3", WORD="the client's")
    out, err = process.communicate(timeout=SECONDS_MAX)
    told = json.loads(out)
    assert process.returncode == 3
    assert err == "to stderr\n"
    assert told == {
        "argv": ["vllm", "serve", "3"],
        "cwd": str(listener.parent),
        "word": "the client's",
        "method": "fork",
        "forked": True,
        "leads": True,
        "cpus": len(os.sched_getaffinity(0)),
    }


def test_a_signal_to_the_client_ends_the_server_and_what_it_left_behind(listener: Path) -> None:
    process = client(listener, "serve", "wait")
    lines = lines_of(process)
    json.loads(next(lines))
    next(lines)
    process.send_signal(signal.SIGTERM)
    # The output is open as long as anything of the server lives, the stray that ignores it too.
    assert process.communicate(timeout=SECONDS_MAX)[0] == ""
    assert process.returncode == 128 + signal.SIGTERM


def test_a_killed_client_takes_its_server_along(listener: Path) -> None:
    process = client(listener, "serve", "wait")
    lines = lines_of(process)
    json.loads(next(lines))
    next(lines)
    process.kill()
    # The output is open as long as anything of the server lives.
    assert process.communicate(timeout=SECONDS_MAX)[0] == ""


def test_the_socket_is_this_users_alone(listener: Path) -> None:
    assert stat.S_IMODE(listener.stat().st_mode) == 0o600


def test_another_value_of_what_imports_read_is_refused(listener: Path) -> None:
    process = client(listener, "serve", "0", VLLM_BATCH_INVARIANT="1")
    _, err = process.communicate(timeout=SECONDS_MAX)
    assert process.returncode == 1
    assert "expected VLLM_BATCH_INVARIANT=None as at the listener's start, got '1'" in err


def test_what_is_no_request_is_answered_with_a_sentence(listener: Path) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(listener))
        connection.sendall(b'{"argv": []}\n')
        assert "expected argv, env, cwd and cpus" in connection.makefile().readline()


def test_plugins_loaded_before_the_fork_are_refused(folder: Path) -> None:
    package = folder / "vllm"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "plugins.py").write_text("plugins_loaded = True\n")
    command = [sys.executable, str(SCRIPT), "listen", str(folder / "s"), "--preload"]
    done = subprocess.run(
        [*command, "vllm.plugins"],
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 1
    assert "expected no plugin loaded before the fork" in done.stderr


DRIVER = """
    static int initialised_by;
    int getpid(void);
    int cuInit(unsigned flags) {
        if (initialised_by && initialised_by != getpid()) return 3;
        initialised_by = getpid();
        return 0;
    }
"""


def test_a_driver_that_was_initialised_here_refuses_a_child(tmp_path: Path) -> None:
    driver = tmp_path / "libstandin.so"
    (tmp_path / "driver.c").write_text(DRIVER)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", driver, tmp_path / "driver.c"], check=True)
    assert not child_lacks_cuda(str(driver))
    assert ctypes.CDLL(str(driver)).cuInit(0) == 0
    assert child_lacks_cuda(str(driver))
    assert not child_lacks_cuda(str(tmp_path / "none.so"))


def test_no_listener_is_told(tmp_path: Path) -> None:
    process = client(tmp_path / "none", "serve", "0")
    _, err = process.communicate(timeout=SECONDS_MAX)
    assert process.returncode == 1
    assert "expected a listener at" in err
