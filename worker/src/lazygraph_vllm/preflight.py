"""``python -m lazygraph_vllm.preflight -- serve MODEL …``: lazily, or as stock, and why.

Says what the plugin would do with this command, before anything is started: a few lines on stdout,
or with ``--json`` one document, logs on stderr. It loads no weights, makes no CUDA context, fetches
nothing, and writes nowhere but in a temporary folder that is gone at its end. ``lazygraph doctor --
vllm serve …`` asks it in the command's own Python.

Exit code 0: it is told, lazily or as stock. 1: it can't be told, and why. 2: wrong usage.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NoReturn

from . import __version__
from .settings import Settings, SettingsError, load_settings
from .vllm import preflight as vllm
from .vllm.allowed import (
    HYBRID,
    MOE,
    MULTIMODAL,
    QWEN_VL,
    STATE_MODELS,
    TRIED,
    config_reason,
    gpu_reason,
    traits,
    untried,
    version_reason,
)
from .vllm.choose import NEWEST, adapter_for, plain
from .vllm.options import ATTENTION_FREE, DIFFUSION

# Importing vLLM from a cold disk is most of it, and takes up to half a minute.
TIME_LIMIT_S = 120
REASON_CHARS_MAX = 600
PLUGIN = "lazygraph"
USAGE = "usage: python -m lazygraph_vllm.preflight [--json] -- [serve MODEL] [options]"
VERDICTS = {True: "captured lazily", False: "runs as stock", None: "can't be told"}


@dataclass
class Answer:
    """What is known of a command, as the document has it.

    Attributes:
        lazily: whether its graphs are captured lazily; ``None``: not known.
        reason: why, as a sentence without its full stop.
        vllm: its version.
        plugin: this plugin's version.
        adapter: the adapter for that version.
        traits: what the model and its parallelism have besides being dense.
        gpus: names of its ranks' GPUs.
        gpuReason: why their names aren't known.
        planned: number of graphs by kind.
        untested: what would run untried on a GPU.
        ignored: what ``--config``'s file says and vLLM doesn't heed.
    """

    lazily: bool | None = None
    reason: str = ""
    vllm: str | None = None
    plugin: str = __version__
    adapter: str | None = None
    traits: list[str] = field(default_factory=list)
    gpus: list[str] = field(default_factory=list)
    gpuReason: str | None = None
    planned: dict[str, int] | None = None
    untested: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    def settle(self, lazily: bool | None, reason: str) -> Answer:
        """The same answer, with its verdict."""
        self.lazily, self.reason = lazily, reason[:REASON_CHARS_MAX]
        return self


def text_of(answer: Answer) -> str:
    """For people: a line for each thing known, the verdict first."""
    rows = {
        "verdict": VERDICTS[answer.lazily],
        "why": answer.reason,
        "untried": "; ".join(answer.untested),
        "ignored": "; ".join(answer.ignored),
        "vllm": answer.vllm or "",
        "plugin": answer.plugin,
        "model": ", ".join(answer.traits),
        "gpus": ", ".join(answer.gpus) or (answer.gpuReason or ""),
        "graphs": ", ".join(f"{count} {kind}" for kind, count in (answer.planned or {}).items()),
    }
    return "".join(f"{name:<10}{text}\n" for name, text in rows.items() if text)


class TimeLimit(BaseException):
    """Not an ``Exception``: vLLM catches those while it looks at a model."""


def examine(words: Sequence[str], environment: Mapping[str, str]) -> Answer:
    """What the plugin would do with a command.

    Args:
        words: ``serve MODEL …``, or the options of the API server's module.
        environment: the command's; without a mode it is asked as ``lazygraph run`` would start it.
    """
    answer = Answer()
    try:
        settings = _settings(environment)
    except SettingsError as error:
        return answer.settle(False, str(error))
    if settings is None:
        return answer.settle(False, "LAZYGRAPH_DISABLE=1 turns the plugin off")
    named = environment.get("VLLM_PLUGINS")
    if named is not None and PLUGIN not in [name.strip() for name in named.split(",")]:
        return answer.settle(False, f"VLLM_PLUGINS={named} leaves the plugin out")
    try:
        return _ask_vllm(answer, words, settings)
    except vllm.NotToldError as error:
        return answer.settle(None, str(error))
    except TimeLimit:
        return answer.settle(None, f"vLLM had not answered after {TIME_LIMIT_S} s")
    except Exception as error:
        return answer.settle(None, f"looking at it failed: {vllm.one_line(error)}")


def _settings(environment: Mapping[str, str]) -> Settings | None:
    mode = environment.get("LAZYGRAPH_MODE", "").strip() or "idle"
    return load_settings({**environment, "LAZYGRAPH_MODE": mode})


def _ask_vllm(answer: Answer, words: Sequence[str], settings: Settings) -> Answer:
    answer.vllm = version = vllm.version()
    adapter = adapter_for(version) or (NEWEST() if settings.allow_untested else None)
    answer.adapter = adapter.name if adapter else None
    reason = version_reason(version, settings.allow_untested)
    if reason is not None or adapter is None:
        return answer.settle(False, reason or f"no adapter knows vLLM {version}")
    if reason := vllm.missing_hooks(adapter):
        return answer.settle(False, reason)
    config = vllm.engine_config(words)
    answer.ignored = _ignored(words, config)
    if reason := config_reason(config, version, settings.allow_untested):
        return answer.settle(False, reason)
    answer.traits = sorted(traits(config))
    if reason := vllm.graphs_reason(config):
        return answer.settle(False, reason)
    answer.planned = vllm.planned(config)
    new_gpu = _look_at_gpus(answer, config, version)
    if new_gpu and settings.other_gpus == "stock":
        return answer.settle(False, f"{new_gpu}, and LAZYGRAPH_OTHER_GPUS=stock")
    answer.untested = [*_untested(answer.traits, version), *([new_gpu] if new_gpu else [])]
    return answer.settle(True, _why_lazily(answer, version))


def _ignored(words: Sequence[str], config: Any) -> list[str]:
    try:
        return vllm.ignored(words, config)
    except Exception as error:  # The verdict stands without it.
        return [f"what vLLM heeds of the file of --config can't be told: {vllm.one_line(error)}"]


def _look_at_gpus(answer: Answer, config: Any, version: str) -> str | None:
    try:
        answer.gpus = vllm.gpu_names(config)
    except vllm.NotToldError as error:
        answer.gpuReason = str(error)
    reasons = (gpu_reason(name, version) for name in sorted(set(answer.gpus)))
    return next((reason for reason in reasons if reason), None)


def _untested(found: Sequence[str], version: str) -> list[str]:
    if plain(version) not in TRIED:
        return [f"vLLM {plain(version)} was not tried on a GPU"]
    return [f"{what} on vLLM {plain(version)}" for what in untried(found, version)]


def _why_lazily(answer: Answer, version: str) -> str:
    others = {MOE, HYBRID, *STATE_MODELS, MULTIMODAL, QWEN_VL, ATTENTION_FREE, DIFFUSION}
    dense = not others & set(answer.traits)
    what = ", ".join(["dense models"] * dense + answer.traits)
    if answer.untested:
        return f"{what}: let in, although not all of this was tried on a GPU"
    return f"{what}: tried on a GPU with vLLM {plain(version)}"


# ------------------------------------------------------------------ the process


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise ``TimeLimit`` inside after that many seconds; only on the main thread."""

    def expired(*_: object) -> NoReturn:
        raise TimeLimit

    before = signal.signal(signal.SIGALRM, expired)
    # Again every second: one that comes just before a blocking call doesn't interrupt it.
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def quiet_environment(folder: str) -> dict[str, str]:
    """What makes vLLM and what it imports fetch nothing, and write only into ``folder``."""
    return {
        "HF_HUB_OFFLINE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",  # for processes in which vLLM looks at models
        # Only the copies that would be made of code and of what was looked up, never models.
        "FLASHINFER_WORKSPACE_BASE": folder,
        "HF_MODULES_CACHE": folder,
        "VLLM_CACHE_ROOT": folder,
    }


def main(argv: Sequence[str]) -> int:
    """Print what ``[--json] -- WORDS…`` asks for; the exit code."""
    as_json = argv[:1] == ["--json"]
    words = argv[1:] if as_json else argv
    # Behind it there may be nothing: the API server's module has defaults for all options.
    if words[:1] != ["--"]:
        print(USAGE, file=sys.stderr)
        return 2
    command = dict(os.environ)
    # VLLM logs to stdout, and so may its children: they get stderr, the document what was stdout.
    document = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.dont_write_bytecode = True
    with tempfile.TemporaryDirectory(prefix="lazygraph-preflight-") as folder, document:
        os.environ.update(quiet_environment(folder))
        with time_limit(TIME_LIMIT_S):
            answer = examine(words[1:], command)
        document.write(json.dumps(asdict(answer)) + "\n" if as_json else text_of(answer))
    return 1 if answer.lazily is None else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
