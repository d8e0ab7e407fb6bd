"""The part of checks.py that is about sleep mode: cycles of sleep and wake, and the tokens after.

By vLLM's own calls, as anybody makes them, at level 1 and then at level 2 of one engine. Dummy
weights are on no disk, so that after level 2 they are drawn again by the loader that drew them at
first; vLLM's ``reload_weights`` has a check of its own, with weights on disk. Of ours every second
cycle drops all graphs while asleep, and they are captured again after the first token. It holds
those that its traffic decodes with, so that most of the tokens come out of graphs.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

LEVELS = (1, 2)
# At each level, of our engine; stock's tell their tokens and seconds in fewer.
CYCLES = {"ours": 20, "stock": 4, "offload": 4}
# What of vLLM's own an engine's part has besides: its graphs go to the host while it sleeps.
OPTIONS: dict[str, dict[str, Any]] = {"offload": {"sleep_mode_offload_cudagraph": True}}
# vLLM's loaders, for weights that are read again after level 2; and the package that one needs.
LOADERS: dict[str, dict[str, Any]] = {
    "default": {},
    "prefetch": {"safetensors_load_strategy": "prefetch"},
    "eager": {"safetensors_load_strategy": "eager"},
    "fastsafetensors": {"load_format": "fastsafetensors"},
    "runai_streamer": {"load_format": "runai_streamer"},
}
PACKAGES = {"fastsafetensors": "fastsafetensors", "runai_streamer": "runai_model_streamer"}
RELOADS = 3
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


def decode_graphs(worker: Any, requests: int) -> list[str]:
    """The FULL graphs that a batch of at most so many requests decodes with."""
    sizes = {
        name: int(name[5:])
        for name in worker.model_runner.lazygraph.state.descs
        if name.startswith("FULL:")
    }
    top = min((size for size in sizes.values() if size >= requests), default=requests)
    return [name for name, size in sizes.items() if size <= top]


def capture_graphs(worker: Any, names: list[str]) -> list[str]:
    """Capture these on this rank; what went wrong."""
    from types import SimpleNamespace

    from lazygraph_vllm.rank import calls

    wrapper = SimpleNamespace(worker=worker, global_rank=worker.rank)
    answers = [calls.capture(wrapper, name) for name in names]
    return [answer["error"] for answer in answers if "error" in answer]


def wake(engine: Any, level: int) -> None:
    """Wake an engine from a sleep of this level, with its weights."""
    if level == 1:
        engine.wake_up()
        return
    engine.wake_up(tags=["weights"])
    engine.collective_rpc(draw_weights)
    engine.wake_up(tags=["kv_cache"])


def first_token(engine: Any) -> None:
    """One request of 128 tokens to its first one."""
    from vllm import SamplingParams

    prompt = {"prompt_token_ids": [place * 31 % 30000 + 100 for place in range(128)]}
    params = SamplingParams(temperature=0, max_tokens=1, detokenize=False)
    engine.generate([prompt], params, use_tqdm=False)


def cycle_of(engine: Any, level: int, drops: bool) -> dict[str, Any]:
    """One sleep, and how long the way back to a first token takes."""
    engine.sleep(level=level)
    gone = engine.collective_rpc(drop_graphs) if drops else []
    asleep = engine.collective_rpc(used_bytes)
    began = time.monotonic()
    wake(engine, level)
    woken = time.monotonic()
    first_token(engine)
    told = {
        "level": level,
        "dropped": drops,
        "asleepBytes": asleep,
        "wakeSeconds": woken - began,
        "firstTokenSeconds": time.monotonic() - began,
    }
    answers = engine.collective_rpc(capture_graphs, args=(gone[0],)) if drops else []
    return told | {"errors": [error for answer in answers for error in answer]}


def compared(
    engine: Any, sequences: Callable[[Any], Any]
) -> tuple[dict[str, list[int]], Callable[[], int]]:
    """The traffic's tokens, and how many of its sequences are the same when it is asked again."""
    first, _ = sequences(engine)

    def same() -> int:
        tokens, _ = sequences(engine)
        return sum(tokens[name] == sequence for name, sequence in first.items())

    return first, same


def run(engine: Any, part: str, sequences: Callable[[Any], Any], requests: int) -> dict[str, Any]:
    """Cycles of sleep and wake, between traffic of at most so many requests at once.

    The control gives weights up and draws none.
    """
    first, same = compared(engine, sequences)
    if part == "control":
        engine.sleep(level=2)
        engine.wake_up()
        return {"tokens": first, "same": same()}
    if part == "ours":
        [names, *_] = engine.collective_rpc(decode_graphs, args=(requests,))
        errors = engine.collective_rpc(capture_graphs, args=(names,))
        if any(errors):
            raise RuntimeError(f"expected {len(names)} graphs to sleep with, got {errors}")
    cycles = []
    for level in LEVELS:
        for cycle in range(CYCLES[part]):
            told = cycle_of(engine, level, drops=part == "ours" and cycle % 2 == 1)
            cycles.append(told | {"same": same()})
    return {"tokens": first, "cycles": cycles}


def verdict(parts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Tokens as stock's in every cycle, nothing that grows, and a control that is found out.

    Beside stock's sleeps are those with its graphs on the host (--sleep-mode-offload-cudagraph).
    """
    stock, ours, control = parts["stock"], parts["ours"], parts["control"]
    count = len(stock["tokens"])
    exact = ours["tokens"] == stock["tokens"] and all(
        cycle["same"] == count for name in CYCLES for cycle in parts[name]["cycles"]
    )
    errors = [error for cycle in ours["cycles"] for error in cycle["errors"]]
    crashed = control.get("crashed")
    same_in_control = 0 if crashed else control["same"]
    sorts = {
        f"{name}.{level}": [
            cycle
            for cycle in parts[name if name in parts else "ours"]["cycles"]
            if cycle["level"] == level and cycle["dropped"] is (name == "dropped")
        ]
        for level in LEVELS
        for name in ("stock", "offload", "kept", "dropped")
    }
    told = {name: sort_of(cycles) for name, cycles in sorts.items()}
    return {
        "fine": exact
        and same_in_control < count
        and not errors
        and all(sort["grownBytes"] <= GROWTH_BYTES_MAX for sort in told.values()),
        "sequences": count,
        "exact": exact,
        "controlSame": same_in_control,
        "controlCrashed": crashed,
        "sorts": told,
        "errors": errors[:5],
    }


def sort_of(cycles: list[dict[str, Any]]) -> dict[str, Any]:
    """What cycles of one sort have in common: memory of the first rank, seconds of each."""
    return {
        "cycles": len(cycles),
        "grownBytes": growth(cycles),
        "asleepBytes": cycles[-1]["asleepBytes"][0],
        "wakeSeconds": [round(cycle["wakeSeconds"], 3) for cycle in cycles],
        "firstTokenSeconds": [round(cycle["firstTokenSeconds"], 3) for cycle in cycles],
    }


def growth(cycles: list[dict[str, Any]]) -> int:
    """From the second cycle of a sort to its last, on the rank where it is most."""
    alike = [cycle["asleepBytes"] for cycle in cycles]
    if len(alike) < 3:
        return 0
    return max(last - early for early, last in zip(alike[1], alike[-1], strict=True))


# ------------------------------------------------------------------ weights that are read again


def without_package(part: str) -> str | None:
    """Why an engine with this loader can't start here; ``None``: it can."""
    from importlib.util import find_spec

    package = PACKAGES.get(part)
    return f"no {package} here" if package is not None and find_spec(package) is None else None


def reload_cycle(engine: Any) -> dict[str, float]:
    """One sleep at level 2, and the parts of the way back to a first token, in seconds."""
    engine.sleep(level=2)
    marks = [time.monotonic()]
    steps: dict[str, Callable[[], Any]] = {
        "wakeWeightsSeconds": lambda: engine.wake_up(tags=["weights"]),
        "reloadSeconds": lambda: engine.collective_rpc("reload_weights"),
        "wakeKvCacheSeconds": lambda: engine.wake_up(tags=["kv_cache"]),
        "firstRequestSeconds": lambda: first_token(engine),
    }
    for step in steps.values():
        step()
        marks.append(time.monotonic())
    seconds = dict(zip(steps, (b - a for a, b in itertools.pairwise(marks)), strict=True))
    return seconds | {"firstTokenSeconds": marks[-1] - marks[0]}


def run_reload(
    engine: Any, part: str, sequences: Callable[[Any], Any], requests: int
) -> dict[str, Any]:
    """Level 2 with weights read from disk by one loader, graphs kept. The control reads none."""
    first, same = compared(engine, sequences)
    if part == "control":
        engine.sleep(level=2)
        engine.wake_up()
        return {"tokens": first, "same": same()}
    [names, *_] = engine.collective_rpc(decode_graphs, args=(requests,))
    answers = engine.collective_rpc(capture_graphs, args=(names,))
    errors = [error for answer in answers for error in answer]
    cycles = [reload_cycle(engine) | {"same": same()} for _ in range(RELOADS)]
    return {"tokens": first, "cycles": cycles, "errors": errors}


def verdict_reload(parts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Tokens as before each sleep with every loader that is here, and a control that is found."""
    ran = {name: parts[name] for name in LOADERS if "skipped" not in parts[name]}
    control = parts["control"]
    count = len(next(iter(ran.values()))["tokens"])
    exact = all(cycle["same"] == count for part in ran.values() for cycle in part["cycles"])
    errors = [error for part in ran.values() for error in part["errors"]]
    crashed = control.get("crashed")
    same_in_control = 0 if crashed else control["same"]
    return {
        "fine": exact and same_in_control < count and not errors,
        "sequences": count,
        "exact": exact,
        "controlSame": same_in_control,
        "controlCrashed": crashed,
        "loaders": {name: reloads_of(part["cycles"]) for name, part in ran.items()},
        "skipped": {name: parts[name]["skipped"] for name in LOADERS if name not in ran},
        "errors": errors[:5],
    }


def reloads_of(cycles: list[dict[str, float]]) -> dict[str, list[float]]:
    """By part of the way back, each cycle's seconds."""
    return {
        name: [round(cycle[name], 3) for cycle in cycles] for name in cycles[0] if name != "same"
    }
