"""Greedy tokens of one engine on a fixed schedule, before, during and after the fill.

    python3 bench/gpu/tokens.py MODEL_DIR OUT.json --config stock|ungraphed|lazygraph [options]

Three passes of 952 prompts in waves of 1 ... 500 concurrent requests, with other requests arriving
all the time. With `--config lazygraph` the top graphs are captured before ready, the rest while the
second pass runs, one command after the other, paced over the pass. `compare_tokens.py` compares two
such files. Needs the lazygraph-vllm and lazygraph-vllm-testing plugins on the path; the weights are
drawn at fan-in scale, so that a fault shows.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "worker" / "tests"))

WAVES = (1, 2, 3, 5, 8, 13, 20, 32, 48, 64, 100, 156, 500)
PROMPT_TOKENS = 32
OUTPUT_TOKENS = 24
TRICKLE_SECONDS = 0.015
TRICKLE_OUTPUT_TOKENS = 6
PASSES = ("before", "during", "after")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("out")
    parser.add_argument(
        "--config", choices=("stock", "ungraphed", "lazygraph"), required=True
    )
    parser.add_argument("--tp", type=int, default=1, help="tensor parallelism")
    parser.add_argument(
        "--invariant", action="store_true", help="batch-invariant kernels: exact"
    )
    parser.add_argument(
        "--verify", action="store_true", help="check each graph against ungraphed"
    )
    parser.add_argument(
        "--fault", default="", help="positive control, e.g. dead:FULL:24"
    )
    parser.add_argument(
        "--no-trickle", action="store_true", help="no other requests meanwhile"
    )
    parser.add_argument("--max-model-len", type=int, default=4096)
    parser.add_argument(
        "--engine-args", type=json.loads, default={}, help="others of vLLM, as JSON"
    )
    return parser.parse_args()


def environment(args: argparse.Namespace, endpoint: str | None) -> None:
    os.environ["LAZYGRAPH_TEST_WEIGHTS"] = "fan-in"
    os.environ["LAZYGRAPH_TEST_TIMING"] = timing_file(args)
    if args.invariant:
        os.environ["VLLM_BATCH_INVARIANT"] = "1"
    if args.config != "lazygraph":
        os.environ["LAZYGRAPH_DISABLE"] = "1"
        return
    assert endpoint is not None
    os.environ.update(
        LAZYGRAPH_ENDPOINT=endpoint,
        LAZYGRAPH_MODE="lazy",
        LAZYGRAPH_HANDSHAKE_MS="5000",
        LAZYGRAPH_VERIFY="1" if args.verify else "0",
    )
    if args.fault:
        os.environ["LAZYGRAPH_TEST_FAULT"] = args.fault


def timing_file(args: argparse.Namespace) -> str:
    return str(Path(args.out).with_suffix(".timing").absolute())


def capture_timing(args: argparse.Namespace) -> list[dict]:
    """Seconds in capture before ready, and memory, per rank."""
    path = Path(timing_file(args))
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


class Fill:
    """Captures what is left, one graph at a time, paced by the share of the pass that is done."""

    def __init__(self, controller) -> None:  # noqa: ANN001
        from lazygraph_vllm.protocol.messages import Inventory, Ready

        self.controller = controller
        self.inventory = controller.wait_for(
            Inventory, 600, lambda m: m.phase == "capturing"
        )
        self.ready = controller.wait_for(Ready, 600)
        self.captured = {c.graph for c in self.ready.captured}
        self.left = [g for g in self.inventory.graphs if g.id not in self.captured]
        random.Random(5).shuffle(self.left)  # no order of sizes or kinds is special
        self.total = len(self.left)
        self.results: list[dict] = []
        self.push_table()

    def push_table(self) -> None:
        from lazygraph_vllm.rules.dispatch import default_table

        graphs = [g for g in self.inventory.graphs if g.id in self.captured]
        self.controller.send(default_table(graphs, decode_length=1))

    async def run(self, progress) -> None:  # noqa: ANN001
        from lazygraph_vllm.protocol.messages import Capture, Result

        for index, graph in enumerate(self.left):
            while progress() < index / self.total:
                await asyncio.sleep(0.002)
            command = Capture(command=index + 1, graph=graph.id, when_idle=False)
            self.controller.send(command)
            result = await asyncio.to_thread(
                self.controller.wait_for,
                Result,
                120,
                lambda m, i=index: m.command == i + 1,
            )
            self.results.append(
                {
                    "graph": graph.id,
                    "outcome": result.outcome,
                    "reason": result.reason,
                    "ms": result.ms,
                    "stallMs": result.stall_ms,
                    "bytes": result.bytes,
                    "epoch": result.epoch,
                }
            )
            if result.outcome == "captured":
                self.captured.add(graph.id)
                self.push_table()


class Load:
    """Runs passes of waves, and a trickle of other requests beside them."""

    def __init__(self, engine) -> None:  # noqa: ANN001
        self.engine = engine
        self.prompts = prompts()
        self.done = 0
        self.trickled = 0
        self._number = 0

    async def one(self, tokens: list[int], output_tokens: int) -> list[int]:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        self._number += 1
        params = SamplingParams(
            temperature=0,
            max_tokens=output_tokens,
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        prompt = {"prompt_token_ids": tokens}
        async for output in self.engine.generate(prompt, params, f"r{self._number}"):
            result = output
        return list(result.outputs[0].token_ids)

    async def run_pass(self) -> list[list[int]]:
        self.done = 0
        answers: list[list[int]] = []
        for size in WAVES:
            wave = self.prompts[len(answers) : len(answers) + size]
            answers += await asyncio.gather(*(self.counted(p) for p in wave))
        return answers

    async def counted(self, tokens: list[int]) -> list[int]:
        answer = await self.one(tokens, OUTPUT_TOKENS)
        self.done += 1
        return answer

    async def trickle(self) -> None:
        source = random.Random(99)
        running: set[asyncio.Task] = set()
        try:
            while True:
                tokens = [
                    source.randrange(300, 100_000)
                    for _ in range(source.randrange(1, 64))
                ]
                task = asyncio.create_task(self.one(tokens, TRICKLE_OUTPUT_TOKENS))
                running.add(task)
                task.add_done_callback(running.discard)
                self.trickled += 1
                await asyncio.sleep(TRICKLE_SECONDS)
        finally:
            await asyncio.gather(*running, return_exceptions=True)


def prompts() -> list[list[int]]:
    source = random.Random(7)
    return [
        [source.randrange(300, 100_000) for _ in range(PROMPT_TOKENS)]
        for _ in range(sum(WAVES))
    ]


async def run(args: argparse.Namespace, controller) -> dict:  # noqa: ANN001
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    extra = dict(args.engine_args)
    if args.config == "ungraphed":
        extra["compilation_config"] = {"cudagraph_mode": "NONE"}
    started = time.time()
    engine = AsyncLLM.from_engine_args(
        AsyncEngineArgs(
            model=args.model,
            load_format="dummy",
            skip_tokenizer_init=True,
            tensor_parallel_size=args.tp,
            max_model_len=args.max_model_len,
            # What `vllm serve` takes on a GPU of this size: 102 graphs, up to 512 requests a step.
            max_num_seqs=1024,
            max_num_batched_tokens=8192,
            enable_prefix_caching=False,
            disable_log_stats=True,
            **extra,
        )
    )
    init_seconds = time.time() - started
    load = Load(engine)
    await asyncio.gather(
        *(load.one(p, 4) for p in load.prompts[:8])
    )  # first-time JIT of sampling
    fill = Fill(controller) if controller is not None else None
    answers: dict[str, list[list[int]]] = {}
    served: dict[str, dict[str, int]] = {}
    seconds: dict[str, float] = {}
    mark = len(controller.received) if controller else 0
    for name in PASSES:
        began = time.time()
        side = [] if args.no_trickle else [asyncio.create_task(load.trickle())]
        if name == "during" and fill is not None:
            filling = asyncio.create_task(
                fill.run(lambda: load.done / len(load.prompts))
            )
            answers[name] = await load.run_pass()
            await filling
        else:
            answers[name] = await load.run_pass()
        for task in side:
            task.cancel()
        await asyncio.gather(*side, return_exceptions=True)
        seconds[name] = time.time() - began
        if controller is not None:
            await asyncio.sleep(0.4)  # the last telemetry batch
            served[name] = served_steps(controller.received[mark:])
            mark = len(controller.received)
    engine.shutdown()
    report = {
        "config": args.config,
        "model": args.model.rstrip("/").split("/")[-1],
        "tensorParallel": args.tp,
        "invariant": args.invariant,
        "verify": args.verify,
        "fault": args.fault,
        "prompts": len(load.prompts),
        "otherRequests": load.trickled,
        "captureByRank": capture_timing(args),
        "initSeconds": init_seconds,
        "passSeconds": seconds,
        "stepsByServed": served,
        "tokens": answers,
    }
    if fill is not None:
        report["captureBeforeReadySeconds"] = fill.ready.capture_seconds
        report["graphsPlanned"] = len(fill.inventory.graphs)
        report["graphsCaptured"] = len(fill.captured)
        report["captures"] = fill.results
    return report


def served_steps(messages: list) -> dict[str, int]:
    from lazygraph_vllm.protocol.messages import Telemetry

    counts: Counter[str] = Counter()
    for message in messages:
        if isinstance(message, Telemetry):
            for step in message.steps:
                counts[step.served or "ungraphed"] += step.count
    return dict(counts)


def main() -> None:
    args = arguments()
    controller = None
    if args.config == "lazygraph":
        from fake_controller import FakeController

        controller = FakeController(mode="lazy")
    environment(args, controller.endpoint if controller else None)
    report = asyncio.run(run(args, controller))
    Path(args.out).write_text(json.dumps(report))
    outcomes = Counter(c["outcome"] for c in report.get("captures", []))
    print(
        f"{args.config}: init {report['initSeconds']:.1f} s, passes "
        + ", ".join(f"{k} {v:.1f} s" for k, v in report["passSeconds"].items())
        + f", {report['otherRequests']} other requests, captures {dict(outcomes)}"
    )
    for capture in report.get("captures", []):
        if capture["outcome"] != "captured":
            print(f"  {capture['graph']}: {capture['outcome']}: {capture['reason']}")


if __name__ == "__main__":
    main()
