"""That a launcher's server has nothing left to import until it has answered with a token."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from vllm.version import __version__

import lazygraph_vllm
import small_model
import start_bed
from lazygraph_vllm.vllm.model import import_model

pytestmark = pytest.mark.skipif(
    not __version__.startswith("0.33."), reason="its start is 0.33's, as is what is loaded late"
)

HERE = Path(__file__).resolve().parent
CLIENT = Path(lazygraph_vllm.__file__).parent / "launcher" / "client.py"
SECONDS_MAX = 300
PROCESSES = re.compile(r"\(APIServer pid=(\d+)\).*\(EngineCore pid=(\d+)\)", re.DOTALL)
LATE = {
    # Imported by the API server alone: its import sets the root logger's level.
    "model_hosting_container_standards",
    # Made anew by each process that asks transformers for it.
    "transformers_modules",
}


@dataclass(frozen=True)
class Bed:
    """A launcher, and what its servers are started with."""

    socket: Path
    model: str
    folder: Path
    env: dict[str, str]

    @contextlib.contextmanager
    def server(self, notes: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
        """One that answers, by its client, and its address; see start_bed.py for its notes."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        serve = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", self.model]
        executor = ["--distributed-executor-backend", "start_bed_imported.Executor"]
        log = self.folder / "server.log"
        with log.open("w") as output:
            server = subprocess.Popen(
                [sys.executable, "-I", str(CLIENT), str(self.socket), "--no-spawn", "--", *serve]
                + [*executor, "--port", str(port)],
                env={
                    **self.env,
                    "LAZYGRAPH_MODE": "lazy",
                    "LAZYGRAPH_TEST_NOTES": str(self.folder / notes),
                },
                stdout=output,
                stderr=output,
            )
        try:
            address = f"http://127.0.0.1:{port}"
            until = time.monotonic() + SECONDS_MAX
            while not answers(f"{address}/health"):
                assert server.poll() is None, log.read_text()[-4000:]
                assert time.monotonic() < until, log.read_text()[-4000:]
                time.sleep(0.05)
            yield server, address
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(SECONDS_MAX)


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    folder = tmp_path_factory.mktemp("start")
    model_folder = folder / "model"
    model_folder.mkdir()
    model = small_model.write(model_folder)
    plugin = folder / "site" / "lazygraph_vllm-0.1.0.dist-info"
    plugin.mkdir(parents=True)
    (plugin / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: lazygraph-vllm\nVersion: 0.1.0\n"
    )
    entry = "[vllm.general_plugins]\nlazygraph = lazygraph_vllm.plugin:register\n"
    (plugin / "entry_points.txt").write_text(entry)
    path = os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(HERE), str(plugin.parent)])
    env = {
        **os.environ,
        "PYTHONPATH": path,
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CACHE_ROOT": str(folder / "caches"),
    }
    where = folder / "socket"
    words = ["--socket", str(where), "--main", "start_bed:serve", "--tokenizer", model]
    with (folder / "launcher.log").open("w") as log:
        launcher = subprocess.Popen(
            [sys.executable, str(HERE / "start_bed.py"), *words],
            env=env,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        assert launcher.stdout is not None
        line = launcher.stdout.readline()
        assert line, (folder / "launcher.log").read_text()
        assert json.loads(line)["listening"] == str(where)
        yield Bed(where, model, folder, env)
    finally:
        launcher.terminate()
        launcher.wait(SECONDS_MAX)


@pytest.fixture(scope="module")
def start(bed: Bed) -> tuple[list[str], str]:
    """Modules that a server and its engine looked for until its first token, and what it logged."""
    with bed.server("notes") as (_, address):
        body = {"model": bed.model, "prompt": "hi", "max_tokens": 1}
        request = urllib.request.Request(
            f"{address}/v1/completions",
            json.dumps(body).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=SECONDS_MAX) as response:
            answer: Any = json.load(response)
        assert answer["usage"]["completion_tokens"] == 1
        noted = (bed.folder / "notes").read_text().splitlines()
    return noted, (bed.folder / "server.log").read_text()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=SECONDS_MAX):
            return True
    except OSError:  # or it was closed before an answer, which urllib passes on as is
        return False


# It reads the list of files of every package: seconds.
packages = cache(importlib.metadata.packages_distributions)


def installed(name: str) -> bool:
    """Whether there is such a package: what isn't there is looked for at each start."""
    return name.partition(".")[0] in packages() or name.startswith(("vllm", "lazygraph_vllm"))


def test_nothing_is_imported_after_the_fork_but_what_was_withheld(
    start: tuple[list[str], str],
) -> None:
    noted, log = start
    late = [name for name in noted if installed(name) and name.partition(".")[0] not in LATE]
    # The positive control is in the same start: what its launcher has left out is looked for.
    assert late == [start_bed.WITHHELD]
    # Nor is it for want of the plugin in the engine, which takes no executor that it doesn't know.
    assert "EngineCore" in log
    assert "lazygraph: running as stock: not supported: the executor backend" in log


# Each in a process of its own: what is made stays made.
PATTERNS = """
import json, sys
import torch
from torch._inductor.fx_passes import fuse_attention, joint_graph, misc_patterns, pad_mm
from torch._inductor.pattern_matcher import PatternPrettyPrinter
from torch._subclasses.fake_tensor import init_gpu_context
from lazygraph_vllm.launcher.later import keep_patterns, steps

asked = made = 0
count = torch._C._cuda_getDeviceCount
def counted():
    global asked
    asked += 1
    return count()
torch._C._cuda_getDeviceCount = counted
for module in (fuse_attention, pad_mm):
    def register(*args, own=module.gen_register_replacement, **kwargs):
        global made
        made += 1
        return own(*args, **kwargs)
    module.gen_register_replacement = register

if sys.argv[1] == "kept":
    assert keep_patterns in steps().values()
    keep_patterns()
before, remembered, made = asked, init_gpu_context.cache_info().currsize, 0
joint_graph.lazy_init(torch.device(sys.argv[2]))
patterns = {
    str(key): [PatternPrettyPrinter.run(entry.pattern) for entry in entries]
    for key, entries in joint_graph.patterns.patterns.items()
}
print(json.dumps([before, remembered, asked, made, patterns]))
"""


def patterns_made(how: str, device: str) -> Any:
    command = [sys.executable, "-c", PATTERNS, how, device]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("device", ["cuda:0", "cuda:1"])
def test_a_server_finds_the_same_patterns_made(device: str) -> None:
    before, remembered, _, again, patterns = patterns_made("kept", device)
    # CUDA's driver would be initialised by the question how many GPUs there are.
    assert (before, remembered, again) == (0, 0, 0)
    _, _, asked, anew, stock = patterns_made("stock", device)
    assert asked > 0 and anew > 0
    assert patterns == stock
    assert sum(len(each) for each in patterns.values()) > anew / 2


def test_what_a_model_can_do_is_noted_without_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm.model_executor.models import registry

    monkeypatch.setattr(registry, "_SUBPROCESS_COMMAND", ["false"])
    monkeypatch.setenv("VLLM_CACHE_ROOT", str(tmp_path / "caches"))
    llama = registry.ModelRegistry.models["LlamaForCausalLM"]
    with pytest.raises(RuntimeError):  # positive control
        llama.inspect_model_cls()
    import_model(small_model.write(tmp_path))
    assert llama.inspect_model_cls().architecture == "LlamaForCausalLM"


def test_of_a_killed_server_the_signal_is_told_and_its_engine_ends(bed: Bed) -> None:
    with bed.server("notes of one that is killed") as (client, _):
        found = PROCESSES.search((bed.folder / "server.log").read_text())
        assert found is not None
        api, engine = (int(pid) for pid in found.groups())
        os.kill(api, signal.SIGKILL)
        assert client.wait(SECONDS_MAX) == -signal.SIGKILL
        # vLLM's engine looks for its parent by itself, as of a spawned server: not at once.
        until = time.monotonic() + SECONDS_MAX
        while Path(f"/proc/{engine}").exists():
            assert time.monotonic() < until, "an engine is left"
            time.sleep(0.05)
