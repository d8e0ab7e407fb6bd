"""The part of checks.py that is about LoRA adapters: their traffic, and captures beside it.

Every prompt is asked of the base model and of each adapter, more adapters than there are slots, so
that they come and go. No step has more tokens than ``TOKENS_MAX``: LoRA's kernels sum up in another
order from 128 on, even with batch-invariant kernels, and an ungraphed step of 127 tokens would be
held against a padded one of 128.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from check_prompts import token_ids

REQUESTS_MAX = 96
TOKENS_MAX = 120
PROMPTS = 6
CAPTURES_MIN = 100
# Of the sequences of one prompt: adapters that answer as the base model does check nothing.
APART_MIN = 0.9


def adapters_of(options: dict[str, Any]) -> int:
    """How many adapters there are for an engine with these arguments: two more than slots."""
    return int(options["max_loras"]) + 2


def folders_of(models: Path, shape: str) -> Path:
    """Where a shape's adapters are, by their numbers."""
    return models / f"{shape}.adapters"


def requests_of(folder: Path, numbers: Iterable[int]) -> dict[str, tuple[list[int], Any]]:
    """Prompt and adapter (``None``: the base model) by name, ``PROMPT/ADAPTER``."""
    from vllm.lora.request import LoRARequest

    numbers = list(numbers)
    found: dict[str, tuple[list[int], Any]] = {}
    for prompt in range(PROMPTS):
        tokens = token_ids(prompt, 8 + 9 * prompt)
        for number in numbers:
            # vLLM refuses a request for adapter 0, which stands for none.
            folder_of = str(folder / str(number))
            adapter = LoRARequest(f"a{number}", number, folder_of) if number else None
            found[f"{prompt}/{number}"] = (tokens, adapter)
    return found


def next_capture(worker: Any) -> str | None:
    """Capture the next graph on this rank, one that was captured before if none is missing.

    Returns:
        Why it failed; ``None``: it did not.
    """
    from types import SimpleNamespace

    from lazygraph_vllm.rank import calls as rank

    wrapper = SimpleNamespace(worker=worker, global_rank=worker.rank)
    state = worker.model_runner.lazygraph.state
    turn = worker.lazygraph_turn = getattr(worker, "lazygraph_turn", -1) + 1
    missing = [name for name in state.descs if name not in state.captured]
    tops = {id(descs[0]) for descs in state.lists.values() if descs}
    if missing:
        name = missing[turn % len(missing)]
    else:
        again = [name for name, desc in state.descs.items() if id(desc) not in tops]
        name = again[turn % len(again)]
        rank.purge(wrapper, {name: "captured anew"})
        state.failed.pop(name, None)
    error: str | None = rank.capture(wrapper, name).get("error")
    return error


def keep_stale_metadata(worker: Any) -> None:
    """Positive control: a capture leaves its metadata, and the next step takes it for its own."""
    import contextlib

    graphs = worker.model_runner.lazygraph
    adapter = graphs.state.adapter
    careful = adapter.between_steps

    @contextlib.contextmanager
    def careless(runner: Any) -> Any:
        manager = runner.lora_manager._adapter_manager
        last = manager._last_mapping
        with careful(runner):
            yield
        manager._last_mapping = last

    adapter.between_steps = careless


def ask(
    engine: Any, requests: dict[str, tuple[list[int], Any]], captures: int = 0
) -> tuple[dict[str, list[int]], dict[str, Any]]:
    """Greedy sequences of all requests; with captures, one after every step until so many."""
    from vllm import SamplingParams

    core = engine.llm_engine
    for index, (name, (prompt, adapter)) in enumerate(requests.items()):
        params = SamplingParams(
            temperature=0, max_tokens=24 + index % 60, detokenize=False, ignore_eos=True
        )
        core.add_request(name, {"prompt_token_ids": prompt}, params, lora_request=adapter)
    tokens: dict[str, list[int]] = {}
    captured, errors, steps = 0, [], 0
    while core.has_unfinished_requests():
        for output in core.step():
            if output.finished:
                tokens[output.request_id] = list(output.outputs[0].token_ids)
        steps += 1
        if captured < captures and core.has_unfinished_requests():
            captured += 1
            errors += [error for error in engine.collective_rpc(next_capture) if error]
    return tokens, {"steps": steps, "capturedInTraffic": captured, "errors": errors[:5]}


def run_tokens(engine: Any, part: str, folder: Path, count: int) -> dict[str, Any]:
    """Three passes: before captures, among them, and after them."""
    requests = requests_of(folder, range(count + 1))
    if part == "control":
        engine.collective_rpc(keep_stale_metadata)
    passes: dict[str, Any] = {}
    seen: dict[str, Any] = {}
    for name in ("before", "during", "after"):
        captures = 2 * CAPTURES_MIN if name == "during" and part != "stock" else 0
        passes[name], told = ask(engine, requests, captures)
        if name == "during":
            seen = told
    return {"passes": passes, **seen}


def run_lazy(engine: Any, folder: Path, states: Any) -> dict[str, Any]:
    """Traffic over three adapters and nothing else: which graphs does it earn?"""
    import time

    [first, *_] = engine.collective_rpc(states)
    requests = requests_of(folder, (1, 2, 3))
    for _ in range(4):
        ask(engine, requests)
        time.sleep(2)  # an idle engine captures what traffic missed
    [last, *_] = engine.collective_rpc(states)
    earned = [name for name in last["captured"] if name not in first["captured"]]
    return {"first": first["captured"], "earned": earned, "planned": len(last["planned"])}


def verdict_tokens(parts: dict[str, dict[str, Any]], adapters: int) -> dict[str, Any]:
    """Equal adapter by adapter in every pass, and the control is not."""
    stock = parts["stock"]["passes"]
    ours, control = parts["ours"], parts["control"]

    def wrong(passes: dict[str, Any]) -> dict[str, list[str]]:
        return {
            name: [key for key in stock[name] if stock[name][key] != tokens.get(key)]
            for name, tokens in passes.items()
        }

    by_adapter = {
        str(number): sum(
            ours["passes"][name].get(key) == sequence
            for name, sequences in stock.items()
            for key, sequence in sequences.items()
            if key.endswith(f"/{number}")
        )
        for number in range(adapters + 1)
    }
    base = stock["before"]
    apart = sum(
        base[key][:24] != base[f"{key.split('/')[0]}/0"][:24]
        for key in base
        if not key.endswith("/0")
    ) / max(1, PROMPTS * adapters)
    differing = {name: len(keys) for name, keys in wrong(ours["passes"]).items()}
    crashed = control.get("crashed")
    found = {name: len(keys) for name, keys in wrong(control.get("passes", {})).items()}
    return {
        "fine": not any(differing.values())
        and apart >= APART_MIN
        and ours["capturedInTraffic"] >= CAPTURES_MIN
        and not ours["errors"]
        and (crashed is not None or found["during"] > 0),
        "sequencesEach": PROMPTS * len(stock),
        "sameByAdapter": by_adapter,
        "differing": differing,
        "apartFromBase": apart,
        "controlDiffers": found,
        "controlCrashed": crashed,
        **{key: ours[key] for key in ("steps", "capturedInTraffic", "errors")},
    }


def verdict_lazy(parts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Only graphs of the case that there was traffic of."""
    ours = parts["ours"]
    other = [name for name in ours["earned"] if ":l" not in name]
    return {"fine": bool(ours["earned"]) and not other, "unused": other, **ours}
