"""Right tokens, of many engines at once: graphs against ungraphed runs, sequences against stock's.

    python3 bench/gpu/checks.py OUT_DIR [--gpus 0,1] [--seconds 400] [--seconds-each 180]
        [--spec FILE] CHECK ...

A check is `FAMILY.KIND`, its family one of families.json, whose `env` its engines get, or of another
file of that form:

- verify: every graph is captured while the engine is idle, and its first replay is compared with an
  ungraphed run of the same padded inputs, on all ranks.
- control: the same with one graph of each kind made wrong. A check that finds nothing here is none.
- control-rank: the same with one graph made wrong on rank 1 alone, which no other rank may report.
- ranks: every rank holds and serves the same graphs at every step, through a fill in traffic and a
  tier that is dropped and captured again (rank_checks.py). Its control is in it.
- tokens: greedy sequences with VLLM_BATCH_INVARIANT=1, where the composition of a batch doesn't
  matter: stock's, and those of an engine whose graphs are captured one by one in the middle of this
  traffic. They must be the same to the last token. Of a model that takes images every second
  request has one.
- aside: for families without a batch-invariant mode. No graph serves a step in any of four runs of
  ours, so that all compute alike; in one of them graphs are captured in traffic all the same. It
  must differ from the first no more than the second does, and no capture may touch the recurrent
  state of a live request (state_checks.py). Its control captures with blocks of live requests, so
  that what those hold is spoilt. Of a family with prefix caching prompts begin alike: some of them
  must have been cached, and some requests must have passed the end of a block of states.
- lora-tokens: as tokens, for families with adapters: more of them than slots, each asked the same
  prompts before, among and after at least 100 captures between steps. Its control leaves a
  capture's metadata in place, and must be found out.
- sleep: 20 cycles of sleep and wake at level 1 and 20 at level 2, tokens as stock's after each and
  nothing that grows, and the seconds from wake to a first token; of ours every second one drops all
  graphs. Beside stock's are those of stock with its graphs moved to the host. Its control gives the
  weights up for good. vLLM counts the whole GPU's memory around a sleep: its engines run one after
  the other.
- reload: level 2 with real weights on disk (random_weights.py), which vLLM's reload_weights reads
  again with each of its loaders, the page cache warm: tokens as before, and the seconds of each part
  of the way back. Its control reads none. A loader whose package isn't there is told.
- lora-lazy: traffic over three adapters earns graphs of its own case and no others.
- offload-tokens: as tokens, for families that offload their KV cache (offload_checks.py): prompts
  whose blocks come back from host memory, captures while they are copied. One control loads blocks
  in the wrong order, another one captures with slots of live blocks.
- spec-tokens: as tokens, for families that draft (draft_checks.py), twice: among captures, and with
  all graphs; as much must be accepted as in two runs of stock's, and no run of the drafter may have
  another shape than its target's. Its control's drafter graphs do nothing.
- spec-steps: decode steps with all graphs against stock's, by the engine's own step times: stock,
  ours twice, stock, so that what drifts in a host cancels. One after the other, so give it a GPU of
  its own.

No figure of others is a time: engines share GPUs and cores, each with a KV cache of fixed size.
With --seconds-each they run one by one, and one that takes longer is ended and has no result.
Every engine is forked from a process that has imported vLLM for its GPUs. OUT_DIR/CHECK.json has
what was seen, with why the plugin would have run this engine as stock without
LAZYGRAPH_ALLOW_UNTESTED, which all checks set; what stands in it already isn't run again, nor a part of a check that was cut off
(CHECK.PART.part), but for spec-steps, whose parts are compared in time. Needs both plugins in vLLM's Python:

    pip install ./worker ./worker/testing
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import adapter_checks
import check_prompts
import draft_checks
import offload_checks
import rank_checks
import sleep_checks
import state_checks
from check_verdicts import FAULTS, untested, verdict
from process_tree import kill_below
from random_adapters import write_adapters

HERE = Path(__file__).parent
# Enough for 128 short sequences on every family, so that engines fit side by side.
KV_CACHE_BYTES = 4 << 30
# Which engines a check needs, by its kind.
PARTS = {
    "verify": ("ours",),
    "control": ("ours",),
    "control-rank": ("ours",),
    "ranks": ("ours",),
    "tokens": ("stock", "ours"),
    "aside": ("plain", "again", "ours", "control"),
    "lora-tokens": ("stock", "ours", "control"),
    "lora-lazy": ("ours",),
    "offload-tokens": ("stock", "ours", "control", "writes"),
    "sleep": ("ours", "stock", "offload", "control"),
    "reload": (*sleep_checks.LOADERS, "control"),
    "spec-tokens": ("stock", "again", "ours", "control"),
    "spec-steps": ("stock", "ours", "ours-again", "again"),
}
# Parts that a fault may keep from ending, and how much longer than all others they get.
CONTROLS = ("control", "writes")
CONTROL_SECONDS_MAX = 60.0
# Their parts run one after the other.
ALONE = ("spec-steps", "sleep", "reload")
STOCK = {
    "spec-tokens": ("stock", "again"),
    "spec-steps": ("stock", "again"),
    "sleep": ("stock", "offload"),
}
SETTLED_SECONDS_MAX = 150
# Twenty times what 96 requests of this kind take to be asked for.
HELD_SECONDS = 4.0
# At once, in the traffic of most checks.
REQUESTS = 96
# torch's, and a kernel's own with its file and line.
CUDA_ERROR = re.compile(r"CUDA error(?: \([^)]*\))?: (.*)")
ENVIRONMENT = {
    "LAZYGRAPH_ALLOW_UNTESTED": "1",
    "LAZYGRAPH_TEST_WEIGHTS": "fan-in",
    "VLLM_ALLOW_INSECURE_SERIALIZATION": "1",
    "VLLM_WORKER_MULTIPROC_METHOD": "fork",
}


# ------------------------------------------------------------------ on a rank


def state_of(worker: Any) -> dict[str, Any]:
    """What a rank holds of graphs."""
    graphs = getattr(worker.model_runner, "lazygraph", None)
    if graphs is None:
        return {"stock": True}
    state = graphs.state
    return {
        "adapter": state.adapter.name,
        "breakable": breakable_entries(state.manager),
        "planned": list(state.descs),
        "captured": list(state.captured),
        "verified": dict(state.verified),
        "mismatched": {name: str(worst) for name, worst in state.mismatched.items()},
        "failed": dict(state.failed),
        "untested": why_stock(worker),
        "hash": state.hash(),
    }


def why_stock(worker: Any) -> str | None:
    """Why an engine like this one runs as stock by default; ``None``: it doesn't."""
    import vllm
    from lazygraph_vllm.vllm.allowed import config_reason, not_shown
    from lazygraph_vllm.vllm.options import chosen

    new = min(chosen(worker.model_runner), default=None)
    reason = config_reason(worker.vllm_config, vllm.__version__, allow_untested=False)
    return reason or (new and not_shown(new, vllm.__version__))


def breakable_entries(manager: Any) -> int | None:
    """How many breakable graphs this rank holds; ``None``: it has a compiler's."""
    if not manager.use_breakable_cg:
        return None
    runner = manager.breakable_cg_runner
    return 0 if runner is None else len(runner.entries)


def capture(worker: Any, graph: str) -> str | None:
    """Capture one graph on this rank, between two steps; why not."""
    from types import SimpleNamespace

    from lazygraph_vllm.rank import calls as rank

    answer = rank.capture(SimpleNamespace(worker=worker, global_rank=worker.rank), graph)
    error: str | None = answer.get("error")
    return error


# ------------------------------------------------------------------ an engine


def make_engine(family: dict[str, Any], models: Path, **more: Any) -> Any:
    """VLLM's engine for this family, in this process and those that it starts."""
    from vllm import LLM

    return LLM(**engine_options(family, models, **more))


def engine_options(family: dict[str, Any], models: Path, **more: Any) -> dict[str, Any]:
    """What ``LLM`` gets for this family; ``more`` goes before all else."""
    given = engine_arguments(family.get("args", []))
    return {
        "model": str(models / family["shape"]),
        "load_format": "dummy",
        # Offloaded is only what a prefix can bring back.
        "enable_prefix_caching": "kv_offloading_size" in given,
        "gpu_memory_utilization": 0.1,
        "kv_cache_memory_bytes": KV_CACHE_BYTES,
        "max_num_seqs": 512,
        "max_model_len": 4096,
        **given,
        **draft_checks.options(family, models),
        **more,
    }


def engine_arguments(words: list[str]) -> dict[str, Any]:
    """``vllm serve``'s options as ``LLM`` takes them, but for the model's length."""
    options: dict[str, Any] = {}
    rest = list(words)
    while rest:
        name = rest.pop(0).removeprefix("--").replace("-", "_")
        if rest and not rest[0].startswith("--"):
            value = rest.pop(0)
            try:
                options[name] = json.loads(value)
            except ValueError:
                options[name] = value
        else:
            options[name] = True
    options.pop("max_model_len", None)
    return options


def serve_ungraphed(worker: Any) -> str | None:
    """Let no captured graph serve a step on this rank."""
    from types import SimpleNamespace

    from lazygraph_vllm.protocol.messages import Dispatch
    from lazygraph_vllm.rank import calls as rank

    return rank.set_table(SimpleNamespace(worker=worker), Dispatch(uniform=(), mixed=()))


def sequences(
    engine: Any,
    capture_every: int = 0,
    watch: state_checks.Watch | None = None,
    prompt: Callable[[int], dict[str, Any]] = check_prompts.prompt,
) -> tuple[dict[str, list[int]], dict[str, Any]]:
    """Greedy sequences of all requests; with a rest of graphs to capture, one every few steps."""
    from vllm import SamplingParams

    missing = missing_graphs(engine) if capture_every else []
    core = engine.llm_engine
    with held(engine):
        for index in range(REQUESTS):
            params = SamplingParams(
                temperature=0, max_tokens=24 + index % 60, detokenize=False, ignore_eos=True
            )
            core.add_request(str(index), prompt(index), params)
    tokens: dict[str, list[int]] = {}
    captured, errors, steps, cached = [], {}, 0, 0
    while core.has_unfinished_requests():
        for output in core.step():
            if output.finished:
                tokens[output.request_id] = list(output.outputs[0].token_ids)
                cached += output.num_cached_tokens or 0
        steps += 1
        if missing and steps % capture_every == 0 and core.has_unfinished_requests():
            name = missing.pop(0)
            captured.append(name)
            if watch is None:
                found = engine.collective_rpc(capture, args=(name,))
            else:
                found = watch.capture(name)
            if any(found):
                errors[name] = str(found)
    told = {"steps": steps, "capturedInTraffic": len(captured), "errors": errors}
    return tokens, told | {"cachedTokens": cached}


@contextlib.contextmanager
def held(engine: Any) -> Iterator[None]:
    """Keep an engine from its next step: what is asked of it meanwhile comes in one step together.

    Otherwise the first steps have as many requests as happened to be there, and where kernels go by
    a batch's size, two runs of the same engine differ in those.

    Raises:
        RuntimeError: it went on before the end, so that some requests may have come later.
    """
    with ThreadPoolExecutor(1) as threads:
        nap_of_engine = threads.submit(engine.collective_rpc, nap, args=(HELD_SECONDS,))
        # What is sent first is done first.
        time.sleep(HELD_SECONDS / 4)
        yield
        if nap_of_engine.done():
            nap_of_engine.result()
            raise RuntimeError(f"expected all requests within {HELD_SECONDS} s, got later ones")


def nap(worker: Any, seconds: float) -> None:
    """Keep a rank from everything else."""
    time.sleep(seconds)


def missing_graphs(engine: Any) -> list[str]:
    """What is not captured yet, both kinds in turns.

    A FULL graph is recorded and no more, of a PIECEWISE one attention runs: the first traffic
    should see some of each.
    """
    [state, *_] = engine.collective_rpc(state_of)
    rest = [name for name in state["planned"] if name not in state["captured"]]
    kinds = [
        [n for n in rest if n.startswith("PIECEWISE") is piecewise] for piecewise in (True, False)
    ]
    return [name for pair in itertools.zip_longest(*kinds) for name in pair if name is not None]


def capture_rest(engine: Any) -> None:
    """Capture all that is missing, on all ranks."""
    [state, *_] = engine.collective_rpc(state_of)
    for name in state["planned"]:
        if name not in state["captured"]:
            engine.collective_rpc(capture, args=(name,))


def settled(engine: Any) -> list[dict[str, Any]]:
    """The ranks' states once nothing is left to capture, or after a time."""
    end = time.monotonic() + SETTLED_SECONDS_MAX
    while True:
        states: list[dict[str, Any]] = engine.collective_rpc(state_of)
        [first, *_] = states
        done = {*first.get("captured", ()), *first.get("failed", ())}
        if first.get("stock") or done >= set(first["planned"]) or time.monotonic() > end:
            return states
        time.sleep(0.5)


def run_check(family: dict[str, Any], kind: str, part: str, models: Path) -> dict[str, Any]:
    """One engine's part of a check."""
    os.environ.update(ENVIRONMENT)
    os.environ["LAZYGRAPH_TEST_WEIGHTS"] = family.get("weights", "fan-in")
    if part not in STOCK.get(kind, ("stock",)):
        idle = kind in ("verify", "spec-steps")
        os.environ["LAZYGRAPH_MODE"] = "idle" if idle else "lazy"
    if kind == "verify" or kind in FAULTS:
        os.environ["LAZYGRAPH_VERIFY"] = "1"
    if kind in FAULTS:
        os.environ["LAZYGRAPH_TEST_FAULT"] = FAULTS[kind]
        os.environ["LAZYGRAPH_MODE"] = "lazy"  # the two tops are enough
    if kind.endswith("tokens") or kind in ("sleep", "reload"):
        # Batch invariance turns breakable graphs on for some shapes: those have a family.
        os.environ |= {"VLLM_BATCH_INVARIANT": "1", "VLLM_USE_BREAKABLE_CUDAGRAPH": "0"}
    os.environ |= family.get("env", {})
    if kind.startswith("lora-"):
        return run_adapter_check(family, kind, part, models)
    controller = rank_checks.controlled() if kind == "ranks" else None
    more = offload_checks.LIMITS if kind == "offload-tokens" else {}
    if kind == "sleep":
        more = sleep_checks.OPTIONS.get(part, {})
    if kind == "reload":
        if why := sleep_checks.without_package(part):
            return {"skipped": why}
        more = {"load_format": "auto", **sleep_checks.LOADERS.get(part, {})}
    engine = make_engine(family, models, **more)
    result: dict[str, Any]
    if controller is not None:
        result = rank_checks.run(engine, controller, sequences, state_of)
    elif kind == "offload-tokens":
        result = offload_checks.run_tokens(engine, part)
    elif kind == "spec-tokens":
        result = draft_checks.run_tokens(engine, part, sequences, capture_rest)
    elif kind == "spec-steps":
        settled(engine)
        result = draft_checks.run_steps(engine)
    elif kind == "sleep":
        result = sleep_checks.run(engine, part, sequences, REQUESTS)
    elif kind == "reload":
        result = sleep_checks.run_reload(engine, part, sequences, REQUESTS)
    elif kind in ("tokens", "aside"):
        if kind == "aside":
            engine.collective_rpc(serve_ungraphed)
        if part == "control":
            engine.collective_rpc(state_checks.lend_blocks_in_use)
        captures = part in ("ours", "control")
        watch = state_checks.Watch(engine, capture) if kind == "aside" and captures else None
        images = check_prompts.image_tokens(models / family["shape"])
        prompt = partial(check_prompts.prompt, images=images)
        if caches_prefixes(family):
            prompt = check_prompts.prompt_of_prefix
        tokens, seen = sequences(engine, int(captures), watch, prompt)
        seen["images"] = 0 if images is None else REQUESTS // check_prompts.IMAGE_EVERY
        if caches_prefixes(family):
            size = engine.llm_engine.vllm_config.cache_config.mamba_block_size
            seen["blocksPassed"] = blocks_passed(tokens, prompt, size)
        result = {"tokens": tokens, **seen, **({} if watch is None else watch.told())}
    else:
        result = {} if kind in FAULTS else {"ranks": settled(engine)}
    return ended(engine, result)


def ended(engine: Any, result: dict[str, Any]) -> dict[str, Any]:
    """End the engine; its result, with what its ranks held in the end."""
    if "ranks" not in result:
        result["ranks"] = engine.collective_rpc(state_of)
    engine.llm_engine.engine_core.shutdown()
    return result


def run_adapter_check(family: dict[str, Any], kind: str, part: str, models: Path) -> dict[str, Any]:
    """One engine's part of a check of adapters."""
    limits = {
        "max_num_seqs": adapter_checks.REQUESTS_MAX,
        "max_num_batched_tokens": adapter_checks.TOKENS_MAX,
    }
    engine = make_engine(family, models, **limits)
    folder = adapter_checks.folders_of(models, family["shape"])
    if kind == "lora-lazy":
        result = adapter_checks.run_lazy(engine, folder, state_of)
    else:
        count = adapter_checks.adapters_of(engine_arguments(family["args"]))
        result = adapter_checks.run_tokens(engine, part, folder, count)
        result["adapters"] = count
    return ended(engine, result)


def caches_prefixes(family: dict[str, Any]) -> bool:
    """Whether this family's requests are to find blocks of others."""
    return "--enable-prefix-caching" in family.get("args", ())


def blocks_passed(
    tokens: dict[str, list[int]], prompt: Callable[[int], dict[str, Any]], size: int
) -> int:
    """Ends of blocks of so many tokens that sequences passed while they were decoded."""
    lengths = {name: len(prompt(int(name))["prompt_token_ids"]) for name in tokens}
    return sum(
        (lengths[name] + len(sequence) - 1) // size - (lengths[name] - 1) // size
        for name, sequence in tokens.items()
    )


def asks_breakable(family: dict[str, Any]) -> bool:
    """Whether this family's graphs are to be breakable ones."""
    return bool(family.get("env", {}).get("VLLM_USE_BREAKABLE_CUDAGRAPH") == "1")


# ------------------------------------------------------------------ many of them


def fork_engine(log: Path, result: Path, *what: Any) -> int:
    """Run one engine's part in a process of its own; returns its pid."""
    pid = os.fork()
    if pid > 0:
        return pid
    code = 1
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1), os.dup2(file, 2)
        family, *_ = what
        told = run_check(*what)
        what_family = {
            "asksBreakable": asks_breakable(family),
            "agrees": family.get("agrees", False),
        }
        whole = result.with_suffix(".whole")
        whole.write_text(json.dumps(told | what_family))
        whole.rename(result)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        # What a failed part has left would take the GPU's memory from those that come after it.
        kill_below(os.getpid())
        os._exit(code)


def parts_left(out: Path, name: str) -> list[str]:
    """The parts of a check that an earlier run, cut off since, has not ended."""
    kind = name.rpartition(".")[2]
    again = kind == "spec-steps"
    return [part for part in PARTS[kind] if again or not (out / f"{name}.{part}.part").exists()]


def run_group(
    out: Path,
    models: Path,
    families: dict[str, Any],
    names: list[str],
    seconds_each: float | None,
) -> None:
    """All parts of these checks, at once or each alone, on the GPUs that this process sees."""
    import torch
    import vllm.v1.engine.core
    import vllm.v1.executor.multiproc_executor
    import vllm.v1.executor.uniproc_executor
    import vllm.v1.worker.gpu.model_runner
    import vllm.v1.worker.gpu_worker  # noqa: F401

    if torch.cuda.is_initialized():
        sys.exit("expected imports of vLLM that leave the GPU alone, got a CUDA context")
    pids = {}
    for name in names:
        family, _, kind = name.rpartition(".")
        for part in parts_left(out, name):
            result = out / f"{name}.{part}.part"
            log = out / f"{name}.{part}.log"
            pid = fork_engine(log, result, families[family], kind, part, models)
            if seconds_each is not None:
                end_within({pid}, seconds_each)
            elif kind in ALONE:
                os.waitpid(pid, 0)
            else:
                pids[pid] = part
    wait_for(pids)


def wait_for(parts: dict[int, str], after_seconds: float = CONTROL_SECONDS_MAX) -> None:
    """Wait for processes, by the part that each is; then a while longer for controls.

    A fault may leave one waiting for an engine that is gone: it is ended, and its log tells.
    """
    controls = {pid for pid, part in parts.items() if part in CONTROLS}
    for pid in parts.keys() - controls:
        os.waitpid(pid, 0)
    end_within(controls, after_seconds)


def end_within(pids: set[int], seconds: float) -> None:
    """Wait for processes; those that take longer are ended, with all that they have begun."""
    end = time.monotonic() + seconds
    while pids and time.monotonic() < end:
        pids = {pid for pid in pids if not os.waitpid(pid, os.WNOHANG)[0]}
        time.sleep(0.05)
    for pid in pids:
        kill_below(pid)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def crash_of(log: Path) -> str | None:
    """The first error of CUDA's in an engine's log; ``None``: it ended for another reason."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    errors = (CUDA_ERROR.search(line) for line in lines)
    return next((error[1] for error in errors if error is not None), None)


def sum_up(out: Path, name: str) -> dict[str, Any]:
    """Write OUT_DIR/CHECK.json from its parts; what is missing is said."""
    kind = name.rpartition(".")[2]
    files = {part: out / f"{name}.{part}.part" for part in PARTS[kind]}
    parts: dict[str, dict[str, Any]] = {
        part: json.loads(file.read_text()) for part, file in files.items() if file.exists()
    }
    # A fault that ends the engine hides from nobody.
    if "control" in files and "control" not in parts:
        crash = crash_of(out / f"{name}.control.log")
        if crash is not None:
            parts["control"] = {"crashed": crash}
    gone = [part for part in files if part not in parts]
    if gone:
        return {"check": name, "fine": False, "why": f"no result of {', '.join(gone)}: see its log"}
    told = {"check": name, **verdict(kind, parts), "untested": untested(parts)}
    (out / f"{name}.json").write_text(json.dumps(told, indent=1, allow_nan=False) + "\n")
    return told


def main() -> None:
    """Run checks side by side: those of one GPU on each in turn, those of several after them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("checks", nargs="+")
    parser.add_argument("--gpus", default="0")
    parser.add_argument("--models", type=Path)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seconds-each", type=float, help="engines one by one, each so long")
    parser.add_argument("--spec", type=Path, default=HERE / "families.json")
    parser.add_argument("--group", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    models = args.models or args.out / "models"
    document = json.loads(args.spec.read_text())
    families = {family["name"]: family for family in document["families"]}
    families |= draft_checks.FAMILIES
    for name in args.checks:
        family, _, kind = name.rpartition(".")
        drafts = kind.startswith("spec-") and family not in draft_checks.FAMILIES
        if family not in families or kind not in PARTS or drafts:
            parser.error(f"expected FAMILY.KIND with a kind of {', '.join(PARTS)}, got {name}")
        if kind.startswith("offload-") and not offload_checks.offloads(families[family]):
            parser.error(f"expected a family with --kv-offloading-size for {kind}, got {name}")
    args.out.mkdir(parents=True, exist_ok=True)
    if args.group:
        run_group(args.out, models, families, args.checks, args.seconds_each)
        return
    open_checks = [name for name in args.checks if not (args.out / f"{name}.json").exists()]
    wanted = [families[name.rpartition(".")[0]] for name in open_checks]
    for shape in {shape for family in wanted for shape in draft_checks.shapes_of(family)}:
        if not (models / shape / "config.json").exists():
            random_model = [sys.executable, str(HERE / "random_model.py"), shape]
            subprocess.run([*random_model, str(models / shape)], check=True)
    for name in open_checks:
        family, _, kind = name.rpartition(".")
        folder = models / families[family]["shape"]
        if kind == "reload" and not (folder / "model.safetensors.index.json").exists():
            random_weights = [sys.executable, str(HERE / "random_weights.py"), str(folder)]
            subprocess.run(random_weights, check=True)
        if kind.startswith("lora-"):
            shape, options = families[family]["shape"], engine_arguments(families[family]["args"])
            folder = adapter_checks.folders_of(models, shape)
            write_adapters(shape, folder, adapter_checks.adapters_of(options))
    gpus = args.gpus.split(",")
    groups: dict[str, list[str]] = {}
    for index, name in enumerate(open_checks):
        several = families[name.rpartition(".")[0]].get("gpus", 1) > 1
        groups.setdefault(args.gpus if several else gpus[index % len(gpus)], []).append(name)
    end = time.monotonic() + args.seconds
    command = [sys.executable, __file__, str(args.out), "--group", "--models", str(models)]
    command += ["--spec", str(args.spec)]
    if args.seconds_each is not None:
        command += ["--seconds-each", str(args.seconds_each)]
    running = [
        subprocess.Popen(
            [*command, *names],
            env={**os.environ, "CUDA_VISIBLE_DEVICES": visible},
            start_new_session=True,
        )
        for visible, names in groups.items()
    ]
    for process in running:
        try:
            process.wait(timeout=max(1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
    told = [sum_up(args.out, name) for name in open_checks]
    for line in told:
        print(json.dumps(line))
    sys.exit(0 if all(line["fine"] for line in told) else 1)


if __name__ == "__main__":
    main()
