"""The part of checks.py that is about sleep mode: cycles of sleep and wake, and the tokens after.

By vLLM's own calls, as anybody makes them. Dummy weights are on no disk, so that after level 2 they
are drawn again by the loader that drew them at first; vLLM's ``reload_weights`` is not run here.
Of ours every second cycle drops all graphs while asleep, and they are captured again after it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

CYCLES = 20
# Device memory in use asleep may differ by this much from cycle to cycle of one sort, and not grow.
GROWTH_BYTES_MAX = 64 << 20


def used_bytes(worker: Any) -> int:
    """Device memory that this process has; of a driver that doesn't tell it, all that is in use."""
    import torch

    own = own_bytes(torch.cuda.current_device())
    if own is not None:
        return own
    free, total = torch.cuda.mem_get_info(worker.device)
    return int(total - free)


def own_bytes(device: int) -> int | None:
    """What NVML tells of this process, which shares its GPU with other engines."""
    import os

    import torch
    from vllm.third_party import pynvml

    uuid = torch.cuda.get_device_properties(device).uuid
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        found = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
    except pynvml.NVMLError:
        return None
    return next((process.usedGpuMemory for process in found if process.pid == os.getpid()), None)


def draw_weights(worker: Any) -> None:
    """The weights that a level-2 sleep gave up, as they were."""
    from vllm.config import set_current_vllm_config
    from vllm.model_executor.model_loader.dummy_loader import DummyModelLoader

    config = worker.vllm_config
    with set_current_vllm_config(config):
        model = worker.model_runner.get_model()
        DummyModelLoader(config.load_config).load_weights(model, config.model_config)


def drop_graphs(worker: Any) -> list[str]:
    """Drop all graphs on this rank; which they were."""
    graphs = worker.model_runner.lazygraph
    names = list(graphs.state.captured)
    graphs.drop_all()
    return names


def capture_graphs(worker: Any, names: list[str]) -> list[str]:
    """Capture these on this rank; what went wrong."""
    from types import SimpleNamespace

    from lazygraph_vllm.rank import calls

    wrapper = SimpleNamespace(worker=worker, global_rank=worker.rank)
    answers = [calls.capture(wrapper, name) for name in names]
    return [answer["error"] for answer in answers if "error" in answer]


def run(engine: Any, level: int, part: str, sequences: Callable[[Any], Any]) -> dict[str, Any]:
    """Cycles of sleep and wake; the control gives weights up and draws none."""
    first, _ = sequences(engine)
    cycles, errors = [], []
    for cycle in range(CYCLES if part != "control" else 1):
        engine.sleep(level=2 if part == "control" else level)
        drops = part == "ours" and cycle % 2 == 1
        gone = engine.collective_rpc(drop_graphs) if drops else []
        asleep = engine.collective_rpc(used_bytes)
        began = time.monotonic()
        if level == 2 and part != "control":
            engine.wake_up(tags=["weights"])
            engine.collective_rpc(draw_weights)
            engine.wake_up(tags=["kv_cache"])
        else:
            engine.wake_up()
        woken = time.monotonic() - began
        if drops:
            answers = engine.collective_rpc(capture_graphs, args=(gone[0],))
            errors += [error for answer in answers for error in answer]
        tokens, _ = sequences(engine)
        same = sum(tokens[name] == sequence for name, sequence in first.items())
        cycles.append({"asleepBytes": asleep, "dropped": drops, "same": same, "wakeSeconds": woken})
    return {"tokens": first, "cycles": cycles, "errors": errors[:5]}


def verdict(parts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Tokens as stock's in every cycle, nothing that grows, and a control that is found out."""
    stock, ours, control = parts["stock"], parts["ours"], parts["control"]
    count = len(stock["tokens"])
    exact = ours["tokens"] == stock["tokens"] and all(
        cycle["same"] == count for part in (stock, ours) for cycle in part["cycles"]
    )
    grown = {dropped: growth(ours["cycles"], dropped) for dropped in (False, True)}
    crashed = control.get("crashed")
    same_in_control = 0 if crashed else control["cycles"][0]["same"]
    found = same_in_control < count
    return {
        "fine": exact
        and found
        and not ours["errors"]
        and all(bytes_ <= GROWTH_BYTES_MAX for bytes_ in grown.values()),
        "sequences": count,
        "exact": exact,
        "controlSame": same_in_control,
        "controlCrashed": crashed,
        "grownBytesKept": grown[False],
        "grownBytesDropped": grown[True],
        "asleepBytes": {
            "stock": stock["cycles"][-1]["asleepBytes"],
            "kept": ours["cycles"][-2]["asleepBytes"],
            "dropped": ours["cycles"][-1]["asleepBytes"],
        },
        "wakeSeconds": {
            name: [round(cycle["wakeSeconds"], 3) for cycle in parts[name]["cycles"]]
            for name in ("stock", "ours")
        },
        "errors": ours["errors"],
    }


def growth(cycles: list[dict[str, Any]], dropped: bool) -> int:
    """From the second cycle of a sort to its last, on the rank where it is most."""
    alike = [cycle["asleepBytes"] for cycle in cycles if cycle["dropped"] is dropped]
    if len(alike) < 3:
        return 0
    return max(last - early for early, last in zip(alike[1], alike[-1], strict=True))
