"""The part of checks.py that is about speculative decoding: tokens, acceptance, shapes, step times.

Two drafters agree with their target: a draft model with the target's own weights, and an EAGLE head
beside a target whose layers add next to nothing, so that both go by the last token's embedding. The
others have weights of their own, and nearly all that they draft is thrown away. Greedy tokens are
stock's in any case, since the target decides: that a drafter's graph is wrong shows in what is
accepted, and in the control, whose drafter's graphs do nothing.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from check_prompts import token_ids

# Drafts a request and step; requests of a step whose seconds are compared.
DRAFTS = 3
REQUESTS = (1, 4, 16, 64)
STEPS_EACH = 200
# Of a step's median seconds, ours against stock's.
RATIO_MAX = 1.01
# Of what a drafter that agrees with its target drafts: below it is none.
AGREES_MIN = 0.5
# Two standard errors: a fault is far outside, and two runs of stock's hardly ever.
ERRORS = 2.0
COUNTERS = {
    "drafted": "vllm:spec_decode_num_draft_tokens",
    "accepted": "vllm:spec_decode_num_accepted_tokens",
}


def _family(name: str, shape: str, speculative: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "shape": shape, "speculative": speculative, **more}


FAMILIES: dict[str, dict[str, Any]] = {
    family["name"]: family
    for family in (
        _family(
            "spec-ngram-8b",
            "llama-3.1-8b",
            {"method": "ngram", "prompt_lookup_min": 2, "prompt_lookup_max": 4},
        ),
        _family(
            "spec-same-3b",
            "llama-3.2-3b",
            {"method": "draft_model"},
            draft="llama-3.2-3b",
            agrees=True,
        ),
        _family("spec-other-3b", "llama-3.2-3b", {"method": "draft_model"}, draft="llama-3.2-1b"),
        _family("spec-eagle-8b", "llama-3.1-8b", {"method": "eagle"}, draft="llama-3.1-8b-eagle"),
        _family(
            "spec-eagle-agrees-8b",
            "llama-3.1-8b",
            {"method": "eagle"},
            draft="llama-3.1-8b-eagle",
            weights="echo",
            agrees=True,
        ),
        _family(
            "spec-eagle3-8b", "llama-3.1-8b", {"method": "eagle3"}, draft="llama-3.1-8b-eagle3"
        ),
        # Its own module drafts: there is no second model.
        _family("spec-mtp-v3", "deepseek-v3-3l", {"method": "mtp"}),
    )
}


def shapes_of(family: dict[str, Any]) -> list[str]:
    """The shapes whose folders an engine of this family reads."""
    return [family["shape"], *([family["draft"]] if "draft" in family else [])]


def options(family: dict[str, Any], models: Path) -> dict[str, Any]:
    """What ``LLM`` gets besides; nothing for a family that doesn't draft."""
    if "speculative" not in family:
        return {}
    speculative = {"num_speculative_tokens": DRAFTS, **family["speculative"]}
    if "draft" in family:
        speculative["model"] = str(models / family["draft"])
    # A drafter has a context of its own in the same cache; the counters are vLLM's own.
    return {"speculative_config": speculative, "disable_log_stats": False, "max_num_seqs": 256}


# ------------------------------------------------------------------ on a rank


def watch_shapes(worker: Any) -> None:
    """Note each step's graph of the target beside what its drafter asks for right after it."""
    runner = worker.model_runner
    seen = worker.lazygraph_shapes = {"steps": 0, "graphed": 0, "mismatches": []}
    spec = getattr(runner, "speculator", None)
    prefill = getattr(spec, "prefill_cudagraph_manager", None)
    last: list[Any] = [None]

    def noting(manager: Any, note: Any) -> None:
        dispatch = manager.dispatch

        def noted(*args: Any, **kwargs: Any) -> Any:
            desc = dispatch(*args, **kwargs)
            note(desc)
            return desc

        manager.dispatch = noted

    def target(desc: Any) -> None:
        last[0] = desc
        seen["steps"] += 1

    def drafter(desc: Any) -> None:
        ran = last[0]
        same = desc.num_tokens == ran.num_tokens and desc.cg_mode.name in ("NONE", ran.cg_mode.name)
        if desc.cg_mode.name == "FULL":
            seen["graphed"] += 1
            same = same and desc == ran
        if not same and len(seen["mismatches"]) < 20:
            seen["mismatches"].append(f"{desc} after {ran}")

    noting(runner.cudagraph_manager, target)
    if prefill is not None:
        noting(prefill, drafter)


def shapes_seen(worker: Any) -> dict[str, Any]:
    """What ``watch_shapes`` has noted on this rank."""
    found: dict[str, Any] = worker.lazygraph_shapes
    return found


class _DeadGraph:
    def replay(self) -> None:
        """Do nothing: drafts are then those of an earlier step."""


def kill_drafter(worker: Any) -> int:
    """Positive control: none of the drafter's FULL graphs does anything; how many there were."""
    spec = worker.model_runner.speculator
    killed = 0
    for name in ("prefill_cudagraph_manager", "decode_cudagraph_manager"):
        graphs = getattr(getattr(spec, name, None), "graphs", None) or {}
        killed += len(graphs)
        for desc in graphs:
            graphs[desc] = _DeadGraph()
    return killed


def time_steps(worker: Any) -> None:
    """Time each step by CUDA events around the model and all that samples and drafts."""
    import functools

    import torch

    runner = worker.model_runner
    taken = worker.lazygraph_steps_taken = []
    execute, sample = runner.execute_model, runner.sample_tokens

    @functools.wraps(execute)
    def execute_model(scheduled: Any, *args: Any, **kwargs: Any) -> Any:
        lengths = scheduled.num_scheduled_tokens
        begin = torch.cuda.Event(enable_timing=True)
        begin.record()
        result = execute(scheduled, *args, **kwargs)
        if lengths and not kwargs.get("dummy_run"):
            even = set(lengths.values()) == {1 + DRAFTS}
            taken.append([len(lengths) if even else 0, begin, None])
        return result

    @functools.wraps(sample)
    def sample_tokens(*args: Any, **kwargs: Any) -> Any:
        result = sample(*args, **kwargs)
        if taken and taken[-1][2] is None:
            taken[-1][2] = torch.cuda.Event(enable_timing=True)
            taken[-1][2].record()
        return result

    runner.execute_model, runner.sample_tokens = execute_model, sample_tokens


def steps_taken(worker: Any) -> dict[str, list[float]]:
    """Milliseconds of decode steps, by their requests."""
    import torch

    torch.cuda.synchronize()
    by_requests: dict[str, list[float]] = {}
    for requests, begin, end in worker.lazygraph_steps_taken:
        if requests and end is not None:
            by_requests.setdefault(str(requests), []).append(begin.elapsed_time(end))
    return by_requests


# ------------------------------------------------------------------ an engine's part


def counters(engine: Any) -> dict[str, int]:
    """Drafted and accepted tokens so far, by vLLM's own metrics."""
    metrics = {metric.name: metric for metric in engine.get_metrics()}
    return {what: int(metrics[name].value) for what, name in COUNTERS.items()}


def run_tokens(engine: Any, part: str, sequences: Any, capture_rest: Any) -> dict[str, Any]:
    """Greedy sequences: of ours one pass among captures, and one with all graphs.

    Args:
        engine: vLLM's ``LLM``.
        part: stock and again: vLLM alone; ours; control: the drafter's graphs do nothing.
        sequences: asks for them, with a capture every few steps, and tells of both.
        capture_rest: captures what is missing then.
    """
    seen: dict[str, Any] = {}
    if part != "stock" and part != "again":
        engine.collective_rpc(watch_shapes)
        first, traffic = sequences(engine, capture_every=1)
        seen |= {"during": first, **traffic}
        capture_rest(engine)
        if part == "control":
            seen["dead"] = max(engine.collective_rpc(kill_drafter))
    before = counters(engine)
    tokens, _ = sequences(engine)
    after = counters(engine)
    seen |= {"tokens": tokens, **{name: after[name] - before[name] for name in after}}
    if "during" in seen:
        seen["shapes"] = engine.collective_rpc(shapes_seen)
    return seen


def run_steps(engine: Any) -> dict[str, Any]:
    """Decode steps of one number of requests after the other, each of the same requests' tokens."""
    from vllm import SamplingParams

    engine.collective_rpc(time_steps)
    params = SamplingParams(temperature=0, max_tokens=STEPS_EACH, detokenize=False, ignore_eos=True)
    for count in REQUESTS:
        prompts = [{"prompt_token_ids": token_ids(row, 32)} for row in range(count)]
        engine.generate(prompts, params, use_tqdm=False)
    [taken, *_] = engine.collective_rpc(steps_taken)
    return {"milliseconds": {str(count): taken.get(str(count), []) for count in REQUESTS}}


# ------------------------------------------------------------------ what the parts say


def rate(part: dict[str, Any]) -> float:
    """Share of drafted tokens that were accepted."""
    return part["accepted"] / part["drafted"] if part["drafted"] else math.nan


def interval(parts: dict[str, dict[str, Any]]) -> tuple[float, float]:
    """What ours may accept, by two runs of stock's."""
    rates = [rate(parts["stock"]), rate(parts["again"])]
    drafted = min(parts["stock"]["drafted"], parts["again"]["drafted"])
    mean = sum(rates) / 2
    error = ERRORS * math.sqrt(mean * (1 - mean) / drafted)
    return min(rates) - error, max(rates) + error


def verdict_tokens(parts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Tokens are stock's, as much is accepted, no shape differs; and the control is found."""
    stock, ours, control = parts["stock"], parts["ours"], parts["control"]
    low, high = interval(parts)

    def differing(tokens: dict[str, list[int]]) -> int:
        return sum(sequence != tokens.get(name) for name, sequence in stock["tokens"].items())

    wrong = {name: differing(ours[name]) for name in ("during", "tokens")}
    mismatches = [text for shapes in ours["shapes"] for text in shapes["mismatches"]]
    crashed = control.get("crashed")
    accepted = {name: rate(part) for name, part in parts.items() if "drafted" in part}
    # Without graphs of its own, or where next to nothing is accepted, a dead drafter can't show.
    tells = control.get("dead", 0) > 0 and low > 0.1
    agrees = not ours.get("agrees", False) or low > AGREES_MIN
    found = crashed is not None or not low <= accepted["control"] <= high
    return {
        "fine": not any(wrong.values())
        and not mismatches
        and not ours["errors"]
        and ours["capturedInTraffic"] > 0
        and ours["drafted"] > 0
        and agrees
        and low <= accepted["ours"] <= high
        and (found or not tells),
        "sequences": len(stock["tokens"]),
        "differing": wrong,
        "accepted": accepted,
        "acceptedBetween": [low, high],
        "mismatches": mismatches[:5],
        "stepsWithGraphsOfTheDrafter": max(shapes["graphed"] for shapes in ours["shapes"]),
        "controlTells": tells,
        "controlFound": found,
        "controlCrashed": crashed,
        **{key: ours[key] for key in ("steps", "capturedInTraffic", "errors")},
    }


def verdict_steps(parts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The median step of ours against stock's, of two runs each.

    Stock's two say how far two engines are apart.
    """
    from statistics import median

    rows = {}
    for count in parts["ours"]["milliseconds"]:
        each = {name: part["milliseconds"][count] for name, part in parts.items()}
        few = min(len(values) for values in each.values())
        if few == 0:
            return {"fine": False, "why": f"no decode step of {count} requests was timed"}
        ms = {name: median(values) for name, values in each.items()}
        rows[count] = {
            "steps": few,
            "stockMs": ms["stock"],
            "againMs": ms["again"],
            "oursMs": ms["ours"],
            "oursAgainMs": ms["ours-again"],
            "ratio": (ms["ours"] + ms["ours-again"]) / (ms["stock"] + ms["again"]),
            "stockRatio": ms["again"] / ms["stock"],
        }
    return {"fine": all(row["ratio"] <= RATIO_MAX for row in rows.values()), "byRequests": rows}
