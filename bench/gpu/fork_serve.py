"""Starts servers by fork from a process that has imported vLLM, so that a start needs no imports.

    python3 bench/gpu/fork_serve.py listen SOCKET [--preload MODULE ...]
    python3 bench/gpu/fork_serve.py run SOCKET ARGUMENT ...

`listen` imports vLLM without touching the GPU and forks once for each request. `run` is one: it
stands for `vllm ARGUMENT ...` wherever a command is expected, with its own environment, folder,
output, processors and exit code, and ends its server when it ends itself. Imports are most of a
start (45 s of 57 on the hosts this was written for), so a benchmark of the rest gets many starts
out of little GPU time. For measuring only: what a module read from the environment when it was
imported stays as the listener had it, so `run` is refused where one of those differs (IMPORTED in
fork_listener.py).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import sys

from fork_listener import MAIN, PRELOAD, Listener, preload


def run(path: str, argv: list[str]) -> int:
    """Be `vllm ARGV` by a listener; returns its exit code, 128 + N where signal N ended it."""
    request = {
        "argv": argv,
        "env": dict(os.environ),
        "cwd": os.getcwd(),
        "cpus": sorted(os.sched_getaffinity(0)),
    }
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(path)
        except OSError as error:
            sys.exit(f"expected a listener at {path}, got {error}: start `fork_serve.py listen`")
        head, rest = b"", json.dumps(request).encode() + b"\n"
        head, rest = rest[:1024], rest[1024:]
        socket.send_fds(connection, [head], [1, 2])
        connection.sendall(rest)
        answers = connection.makefile()
        first = json.loads(answers.readline() or '{"error": "the listener closed the connection"}')
        if "error" in first:
            sys.exit(f"fork_serve: {first['error']}")
        pid = first["pid"]

        def forward(number: int, _: object) -> None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, forward)
        last = answers.readline()
        code = json.loads(last)["code"] if last else 1
    return code if code >= 0 else 128 - code


def main() -> None:
    """Listen, or run one server."""
    if len(sys.argv) > 3 and sys.argv[1] == "run":
        sys.exit(run(sys.argv[2], sys.argv[3:]))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["listen"])
    parser.add_argument("socket")
    parser.add_argument("--preload", nargs="*", default=list(PRELOAD))
    parser.add_argument("--main", default=MAIN, help="MODULE:FUNCTION that a child calls")
    args = parser.parse_args()
    seconds = preload(args.preload)
    listener = Listener(args.socket, args.main)
    told = {"listening": args.socket, "importSeconds": round(sum(seconds.values()), 3)}
    print(json.dumps(told), flush=True)
    listener.serve()


if __name__ == "__main__":
    main()
