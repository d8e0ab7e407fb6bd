"""What a client asks for, and whether it may have it. Pure: no I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from . import refusal
from .refusal import RefusedError

BYTES_MAX = 4 << 20
"""The kernel lets a command have 2 MiB of arguments and variables, each 128 KiB at most."""

SUBCOMMANDS = ("serve",)
FORK = "VLLM_WORKER_MULTIPROC_METHOD"

# Read by an interpreter, a loader or a C library when a process begins: nobody sees it happen.
AT_PROCESS_START = ("LD_", "PYTHON", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "MALLOC_")
AT_PROCESS_START_NAMES = ("GLIBC_TUNABLES",)
# Of those, what changes nothing for a server whose modules are imported already; and what scripts
# call an interpreter by, which no interpreter reads.
HARMLESS = frozenset({"PYTHON", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"})
# vLLM's imports look at these, and act on what they find again when a GPU is used.
READ_AGAIN = frozenset(
    {"CUDA_VISIBLE_DEVICES", "HOME", "LNAME", "LOGNAME", "PATH", "TERM", "USER", "USERNAME"}
)
# Words of `python [OPTION…] -m MODULE …`, the module in the word of -m or the next one, and of
# `python [OPTION…] PATH/vllm …`. As src/cli/vllm-command.ts has it.
BY_PYTHON = re.compile(
    "(?:-(?:[bBdEiIOPqsSuvx]+|[XW]\0?[^\0]+)\0)*"
    "(?:-[bBdEiIOPqsSuvx]*m\0?vllm[.]entrypoints[.]cli[.]main|(?:[^\0]*/)?vllm)\0(.*)",
    re.DOTALL,
)
# What a process takes that runs already.
TAKEN_LATE = re.compile("-[Bqu]*(m.*)?|(.*/)?vllm.*")


@dataclass(frozen=True)
class Request:
    """A command, and what its process would have had if it had been spawned.

    Attributes:
        argv: the command, its program as a path.
        env: all of its variables.
        cwd: its folder.
        cpus: the processors that it may use.
        umask: of the files that it makes.
        nice: its priority.
        limits: soft and hard limit by the resource's number.
        ignored: numbers of the signals that it ignores.
        prefix: where its Python's packages are (``sys.prefix``).
        version: its Python's version.
        namespaces: which mounts, processes and network it sees.
        gid: its group.
    """

    argv: list[str]
    env: dict[str, str]
    cwd: str
    cpus: list[int]
    umask: int
    nice: int
    limits: dict[str, list[int]]
    ignored: list[int]
    prefix: str
    version: str
    namespaces: list[str]
    gid: int


@dataclass(frozen=True)
class Own:
    """What a launcher holds a request against.

    Attributes:
        prefix: its own ``sys.prefix``.
        version: its own Python's version.
        namespaces: its own.
        gid: its own.
        env: its variables before it imported anything.
        read: names of variables that imports have read.
        models: the only ones that it may start; empty: any.
    """

    prefix: str
    version: str
    namespaces: list[str]
    gid: int
    env: Mapping[str, str]
    read: frozenset[str]
    models: tuple[str, ...] = field(default=())


def parse(data: bytes) -> Request:
    """Check a request's form.

    Raises:
        RefusedError: it is none.
    """
    try:
        body = json.loads(data)
        values = {each.name: body[each.name] for each in fields(Request)}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _no_request(f"{type(error).__name__}: {error}") from error
    sound = (
        _all(values["argv"], list, str)
        and len(values["argv"]) > 0
        and _all(values["env"], dict, str)
        and all(isinstance(values[name], str) for name in ("cwd", "prefix", "version"))
        and all(_is_int(values[name]) for name in ("umask", "nice", "gid"))
        and _all(values["cpus"], list, int)
        and _all(values["ignored"], list, int)
        and _all(values["namespaces"], list, str)
        and isinstance(values["limits"], dict)
        and all(
            name.isdigit() and _all(pair, list, int) and len(pair) == 2
            for name, pair in values["limits"].items()
        )
    )
    if not sound:
        raise _no_request("fields of other types")
    return Request(**values)


def _no_request(what: str) -> RefusedError:
    names = ", ".join(each.name for each in fields(Request))
    return RefusedError(
        refusal.REQUEST, f"Expected a request with {names}, got {what}: use this launcher's client."
    )


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _all(value: Any, kind: type, of: type) -> bool:
    each = value.values() if kind is dict and isinstance(value, dict) else value
    return isinstance(value, kind) and all(type(item) is of for item in each)


def check(request: Request, own: Own) -> list[str]:
    """Whether a fork of this launcher can be that command.

    Returns:
        The arguments for vLLM's own ``main``.

    Raises:
        RefusedError: it can't, or mustn't.
    """
    words = vllm_words(request.argv)
    _check_allowed(words, own.models)
    if (request.prefix, request.version) != (own.prefix, own.version):
        raise RefusedError(
            refusal.PYTHON,
            f"Expected a command of Python {own.version} in {own.prefix}, got Python "
            f"{request.version} in {request.prefix}: start a launcher with that Python.",
        )
    for word in request.argv[1 : -len(words)]:
        if not TAKEN_LATE.fullmatch(word):
            raise RefusedError(
                refusal.PYTHON,
                f"Expected no option of Python but -B, -q and -u, got {shown(word)}: "
                "leave it out to have the command forked.",
            )
    if request.namespaces != own.namespaces or request.gid != own.gid:
        raise RefusedError(
            refusal.NOT_ALLOWED,
            "Expected a client in the launcher's own container and group, got another's: "
            "start a launcher there.",
        )
    if different := differing(request.env, own):
        name = different[0]
        raise RefusedError(
            refusal.VARIABLE,
            f"Expected {name}={shown(own.env.get(name))} as when the launcher imported vLLM, which "
            f"reads it then, got {shown(request.env.get(name))}: start a launcher with that value.",
        )
    return words


def vllm_words(argv: list[str]) -> list[str]:
    """What follows ``vllm``, however that is written.

    Raises:
        RefusedError: the command is not vLLM's.
    """
    name = argv[0].rpartition("/")[2]
    words = argv[1:] if name == "vllm" else None
    is_python = re.fullmatch(r"python([0-9]+([.][0-9]+)?)?", name)
    if is_python and (by := BY_PYTHON.fullmatch("\0".join(argv[1:]))):
        words = by[1].split("\0")
    if words is None or not words or words[0] not in SUBCOMMANDS:
        raise RefusedError(
            refusal.NOT_ALLOWED,
            f"Expected `vllm serve MODEL …`, got {shown(' '.join(argv[:3]))}: a launcher starts "
            "nothing else.",
        )
    return words


def _check_allowed(words: list[str], models: tuple[str, ...]) -> None:
    if not models:
        return
    model = model_of(words)
    if model not in models:
        raise RefusedError(
            refusal.NOT_ALLOWED,
            f"Expected one of the models {', '.join(models)}, got "
            f"{'none that the command line names' if model is None else shown(model)}: "
            "start the launcher with --allow-model for it.",
        )


def model_of(words: list[str]) -> str | None:
    """The model that ``serve …`` names; ``None`` if that can't be told from its words."""
    named = words[1] if len(words) > 1 and not words[1].startswith("-") else None
    for at, word in enumerate(words):
        if word == "--config" or word.startswith("--config="):
            return None  # The file may name another.
        if word == "--model":
            named = named or (words[at + 1] if at + 1 < len(words) else None)
        elif word.startswith("--model="):
            named = named or word.partition("=")[2]
    return named


def differing(env: Mapping[str, str], own: Own) -> list[str]:
    """Variables with another value than when it mattered, in order."""
    early = {
        name
        for name in {*env, *own.env}
        if name.startswith(AT_PROCESS_START) or name in AT_PROCESS_START_NAMES
    }
    names = (own.read | early) - HARMLESS - READ_AGAIN
    return sorted(name for name in names if env.get(name) != own.env.get(name))


def child_environment(env: Mapping[str, str], changed: Mapping[str, str | None]) -> dict[str, str]:
    """A server's variables: its client's, and what imports do to them in every process.

    Args:
        env: the client's.
        changed: what the launcher's imports have set, or removed (``None``).
    """
    # Its EngineCore and ranks come by fork as well; vLLM falls back where CUDA is in use already.
    merged = {FORK: "fork", **env}
    for name, value in changed.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = value
    return merged


def shown(value: str | None) -> str:
    """A value for a sentence, bounded."""
    if value is None:
        return "(not set)"
    return repr(value if len(value) <= 80 else value[:77] + "...")
