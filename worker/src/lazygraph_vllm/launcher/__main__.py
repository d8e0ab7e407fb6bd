"""``python -m lazygraph_vllm.launcher``: import vLLM, listen, fork.

One JSON line on stdout when it listens; with ``--print-socket`` the path where one of this
interpreter's listens by default, and nothing else is done. SIGTERM and SIGINT end the launcher
alone: servers go on.
Exit code 0: ended by a signal. 1: it can't be a launcher, by a line on stderr. 2: wrong usage.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import stat
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from . import client, later, refusal
from .listener import Listener, bind, restart
from .preload import MAIN, MODULES, preload
from .refusal import RefusedError
from .request import Own
from .server import entry

CHILDREN_MAX = 256
TOKENIZERS_MAX = 16


def default_socket() -> str:
    """One for each user and environment.

    Raises:
        RefusedError: its folder is another's, or can't be made.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(runtime or tempfile.gettempdir()) / f"lazygraph-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise RefusedError(
            refusal.FAILED,
            f"Expected to make {folder}, got {error.strerror}: give a --socket elsewhere.",
        ) from error
    if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise RefusedError(
            refusal.FAILED,
            f"Expected {folder} to be a folder that only this user can enter, got one of user "
            f"{found.st_uid} with mode {stat.S_IMODE(found.st_mode):o}: give a --socket elsewhere.",
        )
    name = hashlib.sha256(sys.prefix.encode()).hexdigest()[:12]
    return str(folder / f"launcher-{name}.sock")


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """The command line's."""
    parser = argparse.ArgumentParser(
        prog="python -m lazygraph_vllm.launcher", allow_abbrev=False, description=__doc__
    )
    parser.add_argument("--socket", default=None, help="where to listen")
    parser.add_argument("--allow-model", action="append", default=[], metavar="MODEL")
    parser.add_argument("--children", type=int, default=16, metavar="N")
    parser.add_argument("--preload", action="append", default=[], metavar="MODULE")
    parser.add_argument("--tokenizer", action="append", default=[], metavar="FOLDER")
    parser.add_argument("--main", default=MAIN, metavar="MODULE:FUNCTION")
    parser.add_argument("--print-socket", action="store_true", help="print --socket's default")
    parser.add_argument("--with-parent", action="store_true", help="end when the parent ends")
    options = parser.parse_args(argv)
    if not 1 <= options.children <= CHILDREN_MAX:
        parser.error(f"expected --children to be 1 to {CHILDREN_MAX}, got {options.children}")
    return options


def _check_tokenizers(folders: Sequence[str]) -> None:
    if len(folders) > TOKENIZERS_MAX:
        raise RefusedError(
            refusal.FAILED,
            f"Expected --tokenizer at most {TOKENIZERS_MAX} times, got it {len(folders)} times: "
            "leave some out; their servers load their own.",
        )
    for folder in folders:
        # Its words are what servers find it by, wherever they run.
        if not os.path.isabs(folder) or not os.path.isdir(folder):
            raise RefusedError(
                refusal.FAILED,
                f"Expected --tokenizer to be the absolute path of a model's folder, got {folder}: "
                "name it as the servers' commands do.",
            )


def launch(options: argparse.Namespace) -> bool:
    """Be a launcher; whether this is a server of it instead, whose ``main`` is to be called.

    Raises:
        RefusedError: it can't be one.
    """
    # Before the imports: who ends meanwhile is missed as well.
    parent = os.getppid() if options.with_parent else None
    _check_tokenizers(options.tokenizer)
    _open_standard_files()
    path = os.path.abspath(options.socket or default_socket())
    # vLLM's imports may log to stdout, which is for the status: until then that is stderr.
    told = os.dup(1)
    os.dup2(2, 1)
    env = dict(os.environ)
    modules = options.preload or list(MODULES)
    steps = {} if options.preload else later.steps(options.tokenizer)
    loaded = preload(modules, options.tokenizer, steps)
    listening = bind(path)
    own = Own(
        prefix=sys.prefix,
        version=sys.version,
        namespaces=client.namespaces(),
        gid=os.getegid(),
        env=env,
        read=loaded.read,
        models=tuple(options.allow_model),
    )
    facts: dict[str, Any] = {
        "listening": path,
        "python": sys.executable,
        "client": os.path.abspath(client.__file__),
        "importSeconds": round(loaded.seconds, 3),
        "leftOut": dict(loaded.left_out),
        "vllm": _version("vllm"),
        "plugin": _version("lazygraph-vllm"),
    }
    listener = Listener(
        *(path, listening, own, dict(loaded.changed), facts, options.children, parent),
        folders=options.tokenizer,
    )
    # What was imported is not garbage: collecting it in a server would copy its pages for nothing.
    gc.collect()
    gc.freeze()
    sys.stdout.flush()
    os.dup2(told, 1)
    os.close(told)
    print(json.dumps(listener.status()), flush=True)
    if listener.serve():
        return True
    if listener.restart:
        restart(env)
    return False


def _open_standard_files() -> None:
    """Where one is closed, a client's could come to be in its place."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def main() -> object:
    """What the interpreter's exit code is made of: the launcher's, or a server's."""
    options = arguments(sys.argv[1:])
    try:
        if options.print_socket:
            print(os.path.abspath(default_socket()))
            return 0
        serves = launch(options)
    except RefusedError as error:
        print(f"lazygraph: {error} [{error.code}]", file=sys.stderr)
        return 1
    # At the top of the stack, so that an error, an exit and what runs at exit are as in a process
    # that began with it.
    return entry(options.main)() if serves else 0


if __name__ == "__main__":
    sys.exit(main())  # type: ignore[arg-type]
