"""What the timeline writes, with stand-ins for vLLM's modules; no vLLM."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lazygraph_vllm.timeline.install import timed
from lazygraph_vllm.timeline.phases import ENGINE, PHASES, Phase, detail
from lazygraph_vllm.timeline.recorder import SPANS_MAX, Recorder, process_began

ROOT = Path(__file__).resolve().parents[2]


def spans(folder: Path) -> list[dict[str, Any]]:
    files = sorted(folder.glob("spans-*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_a_call_is_a_span_and_a_leafs_inner_calls_are_none(tmp_path: Path) -> None:
    recorder = Recorder(str(tmp_path))
    inner = timed(Phase("m", "inner", "captures", leaf=True), lambda: time.sleep(0.01), recorder)
    leaf = timed(Phase("m", "leaf", "graph profiling", leaf=True), inner, recorder)
    outer = timed(Phase("m", "outer", "memory sizing"), lambda: (leaf(), inner()), recorder)
    began = time.monotonic()
    outer()
    names = [span["name"] for span in spans(tmp_path)]
    assert names == ["graph profiling", "captures", "memory sizing"]
    profiling, captures, sizing = spans(tmp_path)
    assert began <= sizing["begin"] <= profiling["begin"]
    assert profiling["end"] - profiling["begin"] >= 0.01
    assert captures["begin"] >= profiling["end"]
    assert captures["end"] <= sizing["end"] <= time.monotonic()


def test_reading_a_command_line_is_told_once_and_in_its_own_process(tmp_path: Path) -> None:
    recorder = Recorder(str(tmp_path))
    configure = timed(Phase("m", "create_engine_config", "config"), int, recorder)
    configure()  # before imports were noted there is nothing to tell
    recorder.imported()
    pid = os.fork()
    if pid == 0:
        configure()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    configure()
    configure()
    [own] = tmp_path.glob(f"spans-{os.getpid()}.jsonl")
    [child] = tmp_path.glob(f"spans-{pid}.jsonl")
    names = [json.loads(line)["name"] for line in own.read_text().splitlines()]
    assert names == ["config", "imports", "command line", "config", "config"]
    assert [json.loads(line)["name"] for line in child.read_text().splitlines()] == ["config"]
    _, imports, words, config, _ = map(json.loads, own.read_text().splitlines())
    assert (imports["end"], words["end"]) == (words["begin"], config["begin"])


@pytest.mark.parametrize("imported", [True, False])
def test_an_engines_process_counts_from_its_imports_if_it_has_any(
    tmp_path: Path, imported: bool
) -> None:
    recorder = Recorder(str(tmp_path))
    if imported:
        recorder.imported()
    timed(Phase("m", "f", ENGINE), int, recorder)()
    *imports, process, core = spans(tmp_path)
    assert (process["name"], core["name"]) == ("engine process", "engine core")
    assert process["end"] == core["begin"]
    tick = 1 / os.sysconf("SC_CLK_TCK")
    since = imports[0]["end"] if imported else process_began()
    assert process["begin"] == pytest.approx(since, abs=0 if imported else 2 * tick)


def test_a_call_that_fails_is_a_span_too_and_fails(tmp_path: Path) -> None:
    def fails() -> None:
        raise ValueError("its own")

    with pytest.raises(ValueError, match="its own"):
        timed(Phase("m", "f", "device", leaf=True), fails, Recorder(str(tmp_path)))()
    timed(Phase("m", "g", "weights"), int, Recorder(str(tmp_path)))()
    assert [span["name"] for span in spans(tmp_path)] == ["device", "weights"]


def test_a_coroutine_is_timed_to_its_end(tmp_path: Path) -> None:
    async def serve(value: int) -> int:
        await asyncio.sleep(0.01)
        return value

    call = timed(Phase("m", "serve", "API server"), serve, Recorder(str(tmp_path)))
    assert asyncio.run(call(3)) == 3
    [span] = spans(tmp_path)
    assert span["end"] - span["begin"] >= 0.01


def test_what_has_begun_is_told_before_it_ends(tmp_path: Path) -> None:
    def load() -> tuple[list[Any], list[Any]]:
        begun = (tmp_path / f"begun-{os.getpid()}.jsonl").read_text()
        return json.loads(begun), spans(tmp_path)

    begun, ended = timed(Phase("m", "load", "weights"), load, Recorder(str(tmp_path)))()
    assert begun["name"] == "weights"
    assert ended == []
    [span] = spans(tmp_path)
    # The same moment, by which the two belong together.
    assert span["begin"] == begun["begin"]


def test_weights_tell_their_bytes_and_loader() -> None:
    class Owner:
        class model_runner:  # noqa: N801
            model_memory_usage = 17

        class load_config:  # noqa: N801
            load_format = "safetensors"

    load = next(phase for phase in PHASES if phase.name == "weights")
    assert detail(load, Owner()) == {"bytes": 17, "loader": "safetensors"}
    Owner.load_config.safetensors_load_strategy = "prefetch"  # type: ignore[attr-defined]
    assert detail(load, Owner()) == {"bytes": 17, "loader": "safetensors, prefetch"}
    assert detail(load, None) == {"bytes": 0, "loader": "unknown"}


def test_each_process_writes_its_own_file_also_after_a_fork(tmp_path: Path) -> None:
    recorder = Recorder(str(tmp_path))
    recorder.write("parent", 1, 2)
    pid = os.fork()
    if pid == 0:
        recorder.write("child", 3, 4)
        os._exit(0)
    os.waitpid(pid, 0)
    assert {file.name for file in tmp_path.glob("spans-*")} == {
        f"spans-{os.getpid()}.jsonl",
        f"spans-{pid}.jsonl",
    }


def test_spans_have_a_limit_and_a_lost_folder_costs_nothing(tmp_path: Path) -> None:
    recorder = Recorder(str(tmp_path))
    for _ in range(SPANS_MAX + 5):
        recorder.write("x", 0, 1)
    assert len(spans(tmp_path)) == SPANS_MAX
    Recorder(str(tmp_path / "gone")).write("x", 0, 1)


def test_a_process_knows_when_it_began() -> None:
    began = time.monotonic()
    script = "from lazygraph_vllm.timeline.recorder import process_began; print(process_began())"
    env = {**os.environ, "PYTHONPATH": str(ROOT / "worker" / "src")}
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True
    )
    tick = 1 / os.sysconf("SC_CLK_TCK")
    assert began - 2 * tick <= float(done.stdout) <= time.monotonic()
    assert process_began() < began


STAND_IN = """
import sys
sys.path.insert(0, {folder!r})
from lazygraph_vllm import plugin
plugin.register()
plugin.register()
from vllm.v1.worker.gpu_worker import Worker
Worker().load_model()
"""


@pytest.mark.parametrize("given", [True, False])
def test_stock_is_timed_where_a_folder_is_named_and_only_there(tmp_path: Path, given: bool) -> None:
    package = tmp_path / "site" / "vllm" / "v1" / "worker"
    package.mkdir(parents=True)
    for folder in (package, package.parent, package.parent.parent):
        (folder / "__init__.py").write_text("")
    (package / "gpu_worker.py").write_text("class Worker:\n    def load_model(self): ...\n")
    out = tmp_path / "out"
    out.mkdir()
    env = {k: v for k, v in os.environ.items() if not k.startswith("LAZYGRAPH_")}
    env["PYTHONPATH"] = str(ROOT / "worker" / "src")
    if given:
        env["LAZYGRAPH_STARTUP_DIR"] = str(out)
    script = STAND_IN.format(folder=str(tmp_path / "site"))
    subprocess.run([sys.executable, "-c", script], env=env, check=True)
    assert [span["name"] for span in spans(out)] == (["imports", "weights"] if given else [])


def test_the_drift_check_looks_at_every_phase() -> None:
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        from vllm_drift.expected import GENERATIONS
    finally:
        sys.path.pop(0)
    # torch's, Triton's and FlashInfer's are not in vLLM's sources.
    own = [phase for phase in PHASES if phase.module.startswith("vllm.")]
    assert {phase.name for phase in PHASES if phase not in own} == {"JIT", "Inductor patterns"}
    for phase in own:
        file = phase.module.removeprefix("vllm.").replace(".", "/") + ".py"
        assert any(
            hook.file == file and hook.name == phase.path for g in GENERATIONS for hook in g.hooks
        ), phase
