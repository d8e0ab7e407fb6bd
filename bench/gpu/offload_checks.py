"""The part of checks.py that is about KV offloading: prompts that come back from host memory.

A GPU KV cache for less than half of the prompts, asked in turns, a new one whenever one is done: by
the time one comes again its blocks have gone to others, and are loaded from the host. Meanwhile our
engine captures after every step, many times while copies are under way. What is loaded and what it
lies beside decide the tokens, and they must be stock's to the last one. That blocks were loaded, and
that copies were under way at captures, is counted on the rank: a run without either says nothing.

Two controls: one loads blocks in the wrong order, one captures with slots of live blocks.
"""

from __future__ import annotations

from typing import Any

import adapter_checks

PROMPTS = 40
# Tokens of the shortest prompt; of an 8B 128 KiB of KV cache each.
PROMPT_TOKENS = 448
PASSES = ("cold", "during", "again", "after")
# Those in which ours captures, and how often at the most in each.
CAPTURING = ("during", "again")
CAPTURES_EACH = 200
CAPTURES_MIN = 100
# Captures with copies under way.
UNDER_WAY_MIN = 10
# Of the prompts, in each pass but the first, those that were loaded.
LOADED_MIN = 0.5
# Requests at a time: nobody is preempted, and each is loaded at a step of its own.
CONCURRENT = 12
# A GPU KV cache for 8,192 tokens: those that run, and some of the others. Of graphs some for whole
# prompts, whose attention writes many blocks where a capture goes wrong.
LIMITS: dict[str, Any] = {
    "compilation_config": {"cudagraph_capture_sizes": [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]},
    "enable_prefix_caching": True,
    "kv_cache_memory_bytes": 1 << 30,
    "max_model_len": 1024,
    "max_num_batched_tokens": 2048,
    "max_num_seqs": CONCURRENT,
}


def offloads(family: dict[str, Any]) -> bool:
    """Whether engines of this family offload their KV cache."""
    return "--kv-offloading-size" in family.get("args", ())


def prompts() -> dict[str, list[int]]:
    """Token ids by name; none begins as another does."""
    return {
        str(index): [
            (index * 104729 + place * 31 + 7 * index * place) % 30000 + 100
            for place in range(PROMPT_TOKENS + index % 23)
        ]
        for index in range(PROMPTS)
    }


# ------------------------------------------------------------------ on a rank


def copies_of(worker: Any) -> tuple[Any, Any]:
    """What of the connector starts copies: its worker, or its backend with a queue; the other is
    ``None``."""
    connector = worker.model_runner.kv_connector.kv_connector
    own = getattr(connector, "connector_worker", None)
    return (own.worker, None) if own is not None else (None, connector.worker_handler)


def watch_copies(worker: Any, spoil: bool = False) -> None:
    """Count what is loaded and stored on this rank from now on.

    Args:
        worker: vLLM's.
        spoil: positive control: chunks are loaded in the reverse order.
    """
    seen = worker.lazygraph_copies = {"loads": 0, "loadedBlocks": 0, "stores": 0, "spoiled": 0}
    own, handler = copies_of(worker)

    def loaded(blocks: int) -> None:
        seen["loads"] += 1
        seen["loadedBlocks"] += blocks
        seen["spoiled"] += int(spoil and blocks > 1)

    if own is not None:
        load, store = own.submit_load, own.submit_store

        def submit_load(job_id: int, source: Any, target: Any, *more: Any, **named: Any) -> Any:
            loaded(len(target.block_ids))
            if spoil:
                source.block_ids = source.block_ids[::-1].copy()
            return load(job_id, source, target, *more, **named)

        def submit_store(*args: Any, **named: Any) -> Any:
            seen["stores"] += 1
            return store(*args, **named)

        own.submit_load, own.submit_store = submit_load, submit_store
        return
    launch = handler._backend.launch_copy

    def launch_copy(source: Any, target: Any, is_store: bool, *more: Any, **named: Any) -> Any:
        if is_store:
            seen["stores"] += 1
        elif source:  # a copy of no block is ours
            loaded(len(source))
            source = source[::-1] if spoil else source
        return launch(source, target, is_store, *more, **named)

    handler._backend.launch_copy = launch_copy


def copies_seen(worker: Any) -> dict[str, int]:
    """What ``watch_copies`` has counted on this rank."""
    found: dict[str, int] = worker.lazygraph_copies
    return dict(found)


def under_way(worker: Any) -> int:
    """Copies that this rank has begun and the device has not done, nor the thread begun."""
    own, handler = copies_of(worker)
    if own is None:
        events = [event for _, event in [*handler._load_events, *handler._store_events]]
        return handler._backend._queue.qsize() + sum(not event.query() for event in events)
    names = ("_store_handler", "_load_handler", "_expedited_load_handler")
    handlers = [getattr(own, name) for name in names if hasattr(own, name)]
    return sum(not each.end_event.query() for one in handlers for each in one._transfers)


def next_capture(worker: Any) -> dict[str, Any]:
    """Capture the next graph on this rank; how many copies were under way, and why it failed."""
    count = under_way(worker)
    return {"underWay": count, "error": adapter_checks.next_capture(worker)}


def write_live_blocks(worker: Any) -> None:
    """Positive control: a capture's dummy batch has slots of blocks in use, not of none."""
    import torch

    tables = worker.model_runner.block_tables
    careful = tables.get_dummy_slot_mappings
    written = 0

    def careless(tokens: int) -> Any:
        nonlocal written
        slots = careful(tokens)
        places = torch.arange(written, written + tokens, device=slots.device, dtype=slots.dtype)
        # Block by block over most of the cache; block 0 belongs to nobody.
        slots.copy_(16 + places % (7 << 10))
        written += tokens
        return slots

    tables.get_dummy_slot_mappings = careless


# ------------------------------------------------------------------ an engine


def ask(engine: Any, captures: int = 0) -> tuple[dict[str, list[int]], dict[str, Any]]:
    """Greedy sequences of all prompts; with captures, one after every step until so many."""
    from vllm import SamplingParams

    core = engine.llm_engine
    left = list(prompts().items())[::-1]

    def add_next() -> None:
        name, prompt = left.pop()
        params = SamplingParams(
            temperature=0, max_tokens=24 + int(name) % 33, detokenize=False, ignore_eos=True
        )
        core.add_request(name, {"prompt_token_ids": prompt}, params)

    for _ in range(CONCURRENT):
        add_next()
    tokens: dict[str, list[int]] = {}
    captured, among, errors, steps = 0, 0, [], 0
    while core.has_unfinished_requests():
        for output in core.step():
            if output.finished:
                tokens[output.request_id] = list(output.outputs[0].token_ids)
                if left:
                    add_next()
        steps += 1
        if captured < captures and core.has_unfinished_requests():
            captured += 1
            answers = engine.collective_rpc(next_capture)
            among += any(answer["underWay"] > 0 for answer in answers)
            errors += [answer["error"] for answer in answers if answer["error"]]
    seen = {"steps": steps, "capturedInTraffic": captured, "amongCopies": among}
    return tokens, {**seen, "errors": errors[:5]}


def run_tokens(engine: Any, part: str) -> dict[str, Any]:
    """All passes: into a cold cache, twice among captures, and after them."""
    engine.collective_rpc(watch_copies, args=(part == "control",))
    if part == "writes":
        engine.collective_rpc(write_live_blocks)
    passes: dict[str, Any] = {}
    copies: dict[str, Any] = {}
    seen = {"steps": 0, "capturedInTraffic": 0, "amongCopies": 0, "errors": []}
    for name in PASSES:
        captures = CAPTURES_EACH if name in CAPTURING and part in ("ours", "writes") else 0
        passes[name], told = ask(engine, captures)
        [copies[name], *_] = engine.collective_rpc(copies_seen)
        seen = {key: value + told[key] for key, value in seen.items()}
    return {"passes": passes, "copies": copies, **seen}


# ------------------------------------------------------------------ verdict


def loaded_in(part: dict[str, Any]) -> dict[str, int]:
    """Loads of each pass."""
    totals = [0, *(part["copies"][name]["loads"] for name in PASSES)]
    return {name: totals[i + 1] - totals[i] for i, name in enumerate(PASSES)}


def differing(stock: dict[str, Any], part: dict[str, Any]) -> dict[str, int]:
    """Sequences of each pass that are others than stock's of the same pass."""
    return {
        name: sum(
            sequence != part["passes"].get(name, {}).get(key) for key, sequence in tokens.items()
        )
        for name, tokens in stock["passes"].items()
    }


def void_because(parts: dict[str, dict[str, Any]]) -> str | None:
    """Why such a run says nothing, whatever its tokens are; ``None``: it does."""
    stock, ours = parts["stock"], parts["ours"]
    first = stock["passes"]["cold"]
    if len(first) != PROMPTS:
        return f"expected {PROMPTS} sequences of stock's, got {len(first)}"
    if len({tuple(sequence) for sequence in first.values()}) < PROMPTS:
        return "prompts answer alike: a block of another one would not show"
    later = [stock["passes"][name] for name in PASSES[1:]]
    if any(tokens != later[0] for tokens in later):
        return "stock's passes differ from one another: nothing can be held against them"
    for name, part in (("stock", stock), ("ours", ours)):
        few = {p: n for p, n in loaded_in(part).items() if p != "cold" and n < LOADED_MIN * PROMPTS}
        if few:
            return f"expected loads from the host in each later pass of {name}, got {few}"
    if ours["capturedInTraffic"] < CAPTURES_MIN:
        return f"expected {CAPTURES_MIN} captures in traffic, got {ours['capturedInTraffic']}"
    if ours["amongCopies"] < UNDER_WAY_MIN:
        return f"expected {UNDER_WAY_MIN} captures with copies under way, got {ours['amongCopies']}"
    return None


def verdict_tokens(parts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Equal to stock's in every pass, blocks were loaded, and both controls are found."""
    stock, ours = parts["stock"], parts["ours"]
    void = void_because(parts)
    wrong = differing(stock, ours)
    control, writes = parts["control"], parts["writes"]
    crashed = control.get("crashed")
    # Of a pass without a load, or before a capture, a control has nothing to show.
    found = {} if crashed else differing(stock, control)
    spoiled = 0 if crashed else control["copies"]["after"]["spoiled"]
    written = differing(stock, writes)
    controls = (crashed is not None or (found["during"] > 0 and spoiled > 0)) and any(
        written[name] > 0 for name in PASSES[1:]
    )
    return {
        "fine": void is None and not any(wrong.values()) and not ours["errors"] and controls,
        "void": void,
        "sequencesEach": PROMPTS * len(PASSES),
        "stockLoadsAsItComputes": stock["passes"]["cold"] == stock["passes"]["after"],
        "differing": wrong,
        "loads": {name: loaded_in(parts[name]) for name in ("stock", "ours")},
        "loadedBlocks": ours["copies"]["after"]["loadedBlocks"],
        "stores": ours["copies"]["after"]["stores"],
        "controlDiffers": found,
        "controlCrashed": crashed,
        "writesDiffers": written,
        **{key: ours[key] for key in ("steps", "capturedInTraffic", "amongCopies", "errors")},
    }
