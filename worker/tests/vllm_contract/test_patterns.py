"""That Inductor has the same patterns where a launcher has made them, and makes none anew."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM isn't installed here: its torch is the test bed")
pytestmark = pytest.mark.vllm_contract

# Each in a process of its own: what is made stays made.
SCRIPT = """
import json, sys
import torch
from torch._inductor.fx_passes import fuse_attention, joint_graph, misc_patterns, pad_mm
from torch._inductor.pattern_matcher import PatternPrettyPrinter
from torch._subclasses.fake_tensor import init_gpu_context
from lazygraph_vllm.launcher.patterns import keep_patterns

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
    keep_patterns()
before, remembered, made = asked, init_gpu_context.cache_info().currsize, 0
joint_graph.lazy_init(torch.device(sys.argv[2]))
patterns = {
    str(key): [PatternPrettyPrinter.run(entry.pattern) for entry in entries]
    for key, entries in joint_graph.patterns.patterns.items()
}
print(json.dumps([before, remembered, asked, made, patterns]))
"""


def made(how: str, device: str) -> Any:
    command = [sys.executable, "-c", SCRIPT, how, device]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("device", ["cuda:0", "cuda:1"])
def test_a_server_finds_them_made(device: str) -> None:
    before, remembered, _, again, patterns = made("kept", device)
    # CUDA's driver would be initialised by the question how many GPUs there are.
    assert (before, remembered, again) == (0, 0, 0)
    _, _, asked, anew, stock = made("stock", device)
    assert asked > 0 and anew > 0
    assert patterns == stock
    assert sum(len(each) for each in patterns.values()) > anew / 2


def test_they_are_a_step_of_the_launcher() -> None:
    from lazygraph_vllm.launcher import later, patterns

    assert patterns.keep_patterns in later.steps().values()
