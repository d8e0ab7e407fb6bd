"""What is said of a command, with a stand-in for what asks vLLM."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lazygraph_vllm import preflight
from lazygraph_vllm.vllm import preflight as asks
from lazygraph_vllm.vllm.allowed import TENSOR
from test_support import supported

WORDS = ("serve", "MODEL")


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Says what vLLM answers; ``vllm(version=…)``."""

    def answers(
        version: str = "0.26.0",
        missing: str | None = None,
        config: Any = None,
        graphs: str | None = None,
        gpus: Any = ("NVIDIA H200", "NVIDIA H200"),
        ignored: Any = (),
    ) -> list[tuple[str, ...]]:
        asked: list[tuple[str, ...]] = []

        def engine_config(words: Any) -> Any:
            asked.append(tuple(words))
            if isinstance(config, BaseException):
                raise config
            return config or supported()

        def gpu_names(_: Any) -> list[str]:
            if isinstance(gpus, Exception):
                raise gpus
            return list(gpus)

        def ignored_of(*_: Any) -> list[str]:
            if isinstance(ignored, Exception):
                raise ignored
            return list(ignored)

        monkeypatch.setattr(asks, "version", lambda: version)
        monkeypatch.setattr(asks, "missing_hooks", lambda _: missing)
        monkeypatch.setattr(asks, "engine_config", engine_config)
        monkeypatch.setattr(asks, "graphs_reason", lambda _: graphs)
        monkeypatch.setattr(asks, "planned", lambda _: {"FULL": 35, "PIECEWISE": 51})
        monkeypatch.setattr(asks, "gpu_names", gpu_names)
        monkeypatch.setattr(asks, "ignored", ignored_of)
        return asked

    return answers


def test_what_was_tried_is_captured_lazily(vllm: Any) -> None:
    asked = vllm()
    answer = preflight.examine(WORDS, {})
    assert answer.lazily is True
    assert answer.reason == f"dense models, {TENSOR}: tried on a GPU with vLLM 0.26.0"
    assert (answer.vllm, answer.adapter, answer.traits) == ("0.26.0", "v26", [TENSOR])
    assert answer.planned == {"FULL": 35, "PIECEWISE": 51}
    assert answer.gpus == ["NVIDIA H200", "NVIDIA H200"]
    assert answer.untested == []
    assert asked == [WORDS]


@pytest.mark.parametrize(
    ("environment", "what"),
    [
        ({"LAZYGRAPH_DISABLE": "1"}, "LAZYGRAPH_DISABLE=1"),
        ({"LAZYGRAPH_MODE": "soon"}, "eager, lazy or idle"),
        ({"VLLM_PLUGINS": "other"}, "VLLM_PLUGINS=other leaves the plugin out"),
        ({"VLLM_PLUGINS": ""}, "leaves the plugin out"),
    ],
)
def test_an_environment_that_makes_it_stock(
    vllm: Any, environment: dict[str, str], what: str
) -> None:
    asked = vllm()
    answer = preflight.examine(WORDS, environment)
    assert answer.lazily is False and what in answer.reason
    assert asked == []


def test_a_version_that_was_not_tried_needs_no_look_at_the_model(vllm: Any) -> None:
    asked = vllm(version="0.32.0")
    answer = preflight.examine(WORDS, {})
    assert answer.lazily is False and "0.32.0 was not tried on a GPU" in answer.reason
    assert asked == []
    allowed = preflight.examine(WORDS, {"LAZYGRAPH_ALLOW_UNTESTED": "1"})
    assert allowed.lazily is True
    assert "vLLM 0.32.0 was not tried on a GPU" in allowed.untested


def test_a_version_that_nobody_knows_gets_the_newest_adapter_when_allowed(vllm: Any) -> None:
    vllm(version="0.99.0")
    assert preflight.examine(WORDS, {}).adapter is None
    allowed = preflight.examine(WORDS, {"LAZYGRAPH_ALLOW_UNTESTED": "1"})
    assert (allowed.lazily, allowed.adapter) == (True, "v31")


def test_a_hook_that_is_gone_makes_it_stock(vllm: Any) -> None:
    asked = vllm(missing="this vLLM lacks Executor.collective_rpc")
    answer = preflight.examine(WORDS, {})
    assert (answer.lazily, answer.reason) == (False, "this vLLM lacks Executor.collective_rpc")
    assert asked == []


def test_a_refused_feature_and_a_mode_without_graphs_make_it_stock(vllm: Any) -> None:
    config = supported()
    config.lora_config = object()
    vllm(config=config)
    assert preflight.examine(WORDS, {}).reason == "not supported: LoRA before vLLM 0.31"
    vllm(graphs="not supported: cudagraph_mode NONE")
    answer = preflight.examine(WORDS, {})
    assert (answer.lazily, answer.reason) == (False, "not supported: cudagraph_mode NONE")
    assert answer.planned is None


def test_what_no_gpu_has_shown_waits_for_one_or_for_permission(vllm: Any) -> None:
    config = supported()
    config.model_config.is_hybrid = True
    vllm(version="0.33.0", config=config)
    closed = preflight.examine(WORDS, {})
    assert closed.lazily is False
    assert "hybrid models on vLLM 0.33.0 (not tried on a GPU yet)" in closed.reason
    opened = preflight.examine(WORDS, {"LAZYGRAPH_ALLOW_UNTESTED": "1"})
    assert opened.lazily is True and "hybrid models" in opened.traits
    assert "hybrid models on vLLM 0.33.0" in opened.untested


def test_what_was_tried_alone_is_untested_beside_something_else(vllm: Any) -> None:
    config = supported()
    config.lora_config = object()
    vllm(version="0.33.0", config=config)
    opened = preflight.examine(WORDS, {"LAZYGRAPH_ALLOW_UNTESTED": "1"})
    assert opened.untested == ["LoRA with tensor parallelism on vLLM 0.33.0"]
    config.parallel_config.tensor_parallel_size = 1
    alone = preflight.examine(WORDS, {})
    assert (alone.lazily, alone.untested) == (True, [])


def test_a_gpu_that_is_new_runs_and_is_named_or_steps_aside(vllm: Any) -> None:
    vllm(gpus=["NVIDIA H200", "NVIDIA GB10"])
    new = "graphs were not tried on NVIDIA GB10 with vLLM 0.26.0"
    answer = preflight.examine(WORDS, {})
    assert (answer.lazily, answer.untested) == (True, [new])
    aside = preflight.examine(WORDS, {"LAZYGRAPH_OTHER_GPUS": "stock"})
    assert (aside.lazily, aside.reason) == (False, f"{new}, and LAZYGRAPH_OTHER_GPUS=stock")


def test_gpus_without_a_name_are_said(vllm: Any) -> None:
    vllm(gpus=asks.NotToldError("NVML doesn't name them"))
    answer = preflight.examine(WORDS, {})
    assert (answer.lazily, answer.gpus) == (True, [])
    assert answer.gpuReason == "NVML doesn't name them"


def test_what_a_file_says_in_vain_is_said_and_costs_no_verdict(vllm: Any) -> None:
    vllm(ignored=("a: false in f has no effect",))
    answer = preflight.examine(WORDS, {})
    assert (answer.lazily, answer.ignored) == (True, ["a: false in f has no effect"])
    assert "ignored   a: false in f has no effect\n" in preflight.text_of(answer)
    vllm(ignored=AttributeError("gone"))
    answer = preflight.examine(WORDS, {})
    assert answer.lazily is True
    assert answer.ignored == [
        "what vLLM heeds of the file of --config can't be told: AttributeError: gone"
    ]


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (asks.NotToldError("vLLM sees no GPU here"), "vLLM sees no GPU here"),
        (ValueError("two\nlines"), "looking at it failed: ValueError: two lines"),
        (preflight.TimeLimit(), "had not answered"),
        (ValueError("long" * 1000), "longlong"),
    ],
)
def test_what_cant_be_told_is_a_sentence(vllm: Any, error: BaseException, what: str) -> None:
    vllm(config=error)
    answer = preflight.examine(WORDS, {})
    assert answer.lazily is None and what in answer.reason
    assert "\n" not in answer.reason and len(answer.reason) <= preflight.REASON_CHARS_MAX


def test_the_time_limit_ends_what_is_inside_and_is_gone_after_it() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(preflight.TimeLimit), preflight.time_limit(3600):
        signal.raise_signal(signal.SIGALRM)
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.parametrize("argv", [[], ["serve", "MODEL"], ["--json"]])
def test_wrong_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert preflight.main(argv) == 2
    assert capsys.readouterr().err == f"{preflight.USAGE}\n"


def test_the_api_servers_module_needs_no_words(
    vllm: Any, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in preflight.quiet_environment(""):
        monkeypatch.setenv(name, "")  # what it sets is gone after the test
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(os, "dup2", lambda *_: None)
    asked = vllm()
    assert preflight.main(["--json", "--"]) == 0
    assert json.loads(capfd.readouterr().out)["lazily"] is True
    assert asked == [()]


def test_the_process_prints_one_document_and_leaves_nothing(tmp_path: Path) -> None:
    """With a vLLM that talks, writes to its cache and then can't be imported."""
    package = tmp_path / "site" / "vllm"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "import os\n"
        "print('vLLM says something')\n"
        "os.system('echo its child does')\n"
        "assert os.environ['HF_HUB_OFFLINE'] == '1'\n"
        "open(os.path.join(os.environ['VLLM_CACHE_ROOT'], 'written'), 'w').close()\n"
        "raise RuntimeError('no driver')\n"
    )
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    path = os.pathsep.join([str(Path(preflight.__file__).parents[1]), str(tmp_path / "site")])

    def asked(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "lazygraph_vllm.preflight", *options, "--", *WORDS],
            env={**os.environ, "PYTHONPATH": path, "TMPDIR": str(temporary)},
            capture_output=True,
            text=True,
            check=False,
        )

    text = asked()
    assert text.returncode == 1
    assert text.stdout.splitlines()[:2] == [
        "verdict   can't be told",
        "why       this Python can't import vLLM: RuntimeError: no driver",
    ]
    run = asked("--json")
    assert run.returncode == 1
    answer = json.loads(run.stdout)
    assert answer["lazily"] is None
    assert answer["reason"] == "this Python can't import vLLM: RuntimeError: no driver"
    assert "vLLM says something" in run.stderr and "its child does" in run.stderr
    assert list(temporary.iterdir()) == []
    assert not list((tmp_path / "site").rglob("*.pyc"))
