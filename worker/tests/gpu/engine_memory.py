"""One engine under a controller of a few lines: reservation, tiers, refusals, drop and recapture.

    python3 worker/tests/gpu/engine_memory.py MODEL_DIR OUT.json [--tiers] [--reserve MODE] [--tp N]

Run by test_memory.py, in a process of its own: a process that has touched CUDA can't fork an
engine.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

LARGE_FROM_TOKENS = 128
PROMPTS = 48
OUTPUT_TOKENS = 12


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("out")
    parser.add_argument("--tiers", action="store_true")
    parser.add_argument("--reserve", default="none")
    parser.add_argument("--tp", type=int, default=1)
    return parser.parse_args()


class Commands:
    """Sends one command after the other and waits for each answer."""

    def __init__(self, controller: Any) -> None:
        self.controller = controller
        self.number = 0

    def ask(self, kind: Any, answer: Any, **fields: Any) -> Any:
        self.number += 1
        self.controller.send(kind(command=self.number, **fields))
        number = self.number
        return self.controller.wait_for(answer, 120, lambda m: m.command == number)


def main() -> None:
    args = arguments()
    from fake_controller import FakeController
    from lazygraph_vllm.protocol.messages import (
        Capture,
        Drop,
        Dropped,
        Inventory,
        Ready,
        Result,
        Welcome,
    )
    from lazygraph_vllm.rules.dispatch import default_table

    class Controller(FakeController):
        def welcome(self) -> Welcome:
            return Welcome(
                version=1, incarnation=self.incarnation, heartbeat_ms=1000, mode="lazy",
                reserve=args.reserve,
            )  # fmt: skip

    controller = Controller()
    sizes = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
    ids = [f"{kind}:{n}" for n in sizes for kind in ("PIECEWISE", "FULL")]
    large = tuple(g for g in ids if int(g.split(":")[1]) >= LARGE_FROM_TOKENS)
    small = tuple(g for g in ids if g not in large)
    if args.tiers:
        controller.tiers = (small, large)
        controller.first = ["PIECEWISE:512", "FULL:512", "PIECEWISE:64", "FULL:64"]
    os.environ.update(
        LAZYGRAPH_ENDPOINT=controller.endpoint,
        LAZYGRAPH_HANDSHAKE_MS="20000",
        LAZYGRAPH_TEST_WEIGHTS="fan-in",
        # Same tokens whatever the batch: any difference is a fault.
        VLLM_BATCH_INVARIANT="1" if args.tiers else "0",
    )
    from vllm import LLM, SamplingParams

    llm = LLM(
        args.model, load_format="dummy", max_model_len=2048, gpu_memory_utilization=0.5,
        skip_tokenizer_init=True, max_num_seqs=512, tensor_parallel_size=args.tp,
        enable_prefix_caching=False,
        compilation_config={"cudagraph_capture_sizes": sizes},
    )  # fmt: skip
    inventory = controller.wait_for(Inventory, 600, lambda m: m.phase == "capturing")
    ready = controller.wait_for(Ready, 600)
    commands = Commands(controller)
    captured = {c.graph: c.bytes for c in ready.captured}

    def table() -> None:
        present = [g for g in inventory.graphs if g.id in captured]
        controller.send(default_table(present, decode_length=1, planned=inventory.graphs))

    def tokens() -> list[list[int]]:
        prompts = [
            {"prompt_token_ids": [1000 + (i * 7919 + j * 104729) % 90_000 for j in range(16)]}
            for i in range(PROMPTS)
        ]
        sampling = SamplingParams(
            temperature=0, max_tokens=OUTPUT_TOKENS, ignore_eos=True, detokenize=False
        )
        return [list(o.outputs[0].token_ids) for o in llm.generate(prompts, sampling)]

    def capture(graphs: tuple[str, ...] | list[str], need: int = 8 << 20) -> list[Result]:
        results = []
        for graph in graphs:
            if graph in captured:
                continue
            result = commands.ask(Capture, Result, graph=graph, when_idle=False, need_bytes=need)
            results.append(result)
            if result.outcome == "captured":
                captured[graph] = result.bytes
        table()
        return results

    report: dict[str, Any] = {
        "reserve": None if inventory.reserve is None else inventory.reserve.bytes,
        "reserveKvTokens": None if inventory.reserve is None else inventory.reserve.kv_tokens,
        "kvCacheTokens": inventory.kv_cache_tokens,
        "held": [[r.activation_held_bytes, r.activation_peak_bytes] for r in inventory.ranks],
    }
    refused = commands.ask(
        Capture, Result, graph="FULL:8", when_idle=False, need_bytes=inventory.ranks[0].total_bytes
    )
    report["tooMuch"] = [refused.outcome, refused.refusal, refused.reason]
    report["outcomes"] = [r.outcome for r in capture(ids)]
    report["graphBytes"] = dict(captured)
    report["before"] = tokens()
    if args.tiers:
        mixed = commands.ask(Drop, Dropped, graphs=("FULL:512",))
        report["part"] = [mixed.outcome, mixed.reason]
        free = commands.ask(Capture, Result, graph="FULL:1", when_idle=False).ranks
        dropped = commands.ask(Drop, Dropped, graphs=large)
        report["dropped"] = {
            "outcome": dropped.outcome,
            "freedBytes": dropped.freed_bytes,
            "tierBytes": sum(captured[g] for g in large),
            "poolBytes": [
                [a.pool_bytes, b.pool_bytes] for a, b in zip(free, dropped.ranks, strict=True)
            ],
        }
        for graph in large:
            del captured[graph]
        table()
        report["without"] = tokens()
        again = capture(large, need=512 << 20)
        report["again"] = [r.outcome for r in again]
        report["againBytes"] = sum(r.bytes for r in again)
        report["after"] = tokens()
    Path(args.out).write_text(json.dumps(report, indent=1) + "\n")
    controller.close()


if __name__ == "__main__":
    main()
