"""The plugin's real Agent and Link in a process of their own: no torch, no vLLM, real sockets.

    python worker/tests/engine_process.py --endpoint tcp://127.0.0.1:5757 [--mode idle] [--ranks 2]
        [--loras 2] [--version-max 1]

The TypeScript tests start it, so that the two sides speak to each other. Only the ranks are
stand-ins: an executor that keeps a set of graphs per rank. It works until its standard input
closes; a line `load SECONDS` there makes it busy for that long. With `--loras` it has every graph
for so many active adapters too, and its steps have them; with `--version-max 1` it speaks the
protocol as an older plugin does. It prints one JSON line per event: `ready`, `captured` with what
every rank holds, `end`, and with `--tell-orders` `ordered` whenever it has taken orders in.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from typing import Any

from msgspec.structs import replace

from fake_engine import Engine, FakeRank, make_config
from lazygraph_vllm.engine import session as session_module
from lazygraph_vllm.engine.agent import Agent
from lazygraph_vllm.keys import load_curve
from lazygraph_vllm.protocol.messages import Captured, Orders, StepCount
from lazygraph_vllm.settings import Settings
from test_dispatch import plan

SIZES = [1, 2, 4, 8, 16, 24, 32, 64, 128, 256, 512]
STEP_SECONDS = 0.002
# Seven requests decode: their ideal graph is the one of 8 tokens.
STEP = StepCount(
    tokens=7, requests=7, uniform=1, served="", count=1, seconds=0.01, timed=1, context_tokens=64.0
)


def say(event: str, **fields: Any) -> None:
    # In one piece: it is called on two threads.
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


class SlowRank(FakeRank):
    """A capture takes time, and every one is told, so that a test sees one captured twice."""

    capture_seconds = 0.0

    def take(self, name: str) -> Captured:
        time.sleep(self.capture_seconds)
        return super().take(name)


class ProcessEngine(Engine):
    """Turns its loop by itself, in the order of ``EngineCoreProc.run_busy_loop``."""

    busy_until = 0.0
    steps_taken = 0
    step_shape = STEP

    def has_work(self) -> bool:
        return time.monotonic() < self.busy_until

    def loop(self) -> None:
        while self.running:
            if not self.has_work():
                self.agent.on_idle(self)
            while not self.has_work() and self.running:
                self.handle(*self.input_queue.get())
            self.agent.on_work(self)
            while not self.input_queue.empty():
                self.handle(*self.input_queue.get_nowait())
            if self.has_work():
                self.step()
        self.agent.detach()

    def handle(self, kind: str, request: Any) -> None:
        if kind == "load":
            self.busy_until = time.monotonic() + request
        elif kind == "stop":
            self.running = False
        else:
            before = len(self.captured())
            self.agent.execute(self, request)
            if len(self.captured()) != before:
                say("captured", ranks=[sorted(r.captured) for r in self.ranks])

    def step(self) -> None:
        time.sleep(STEP_SECONDS)
        self.steps_taken += 1
        self.ranks[0].steps.append(self.step_shape)
        self.agent.after_step(self)


def tell_orders(session: session_module.Session) -> None:
    """Says what the engine was ordered, once it keeps it."""
    keep = session._ordered

    def ordered(orders: Orders | None) -> None:
        keep(orders)
        if orders is not None:
            say("ordered", mode=orders.mode, frozen=orders.frozen is not None)

    session._ordered = ordered  # type: ignore[method-assign]


def follow_stdin(engine: ProcessEngine) -> None:
    for line in sys.stdin:
        words = line.split()
        if len(words) == 2 and words[0] == "load":
            engine.input_queue.put(("load", float(words[1])))
    engine.input_queue.put(("stop", None))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--mode", default="idle")
    parser.add_argument("--engine", default="python")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--capture-ms", type=float, default=2)
    parser.add_argument("--loras", type=int, default=0)
    parser.add_argument("--version-max", type=int, default=session_module.PROTOCOL_VERSION)
    parser.add_argument("--tell-orders", action="store_true")
    args = parser.parse_args()
    session_module.PROTOCOL_VERSION = args.version_max
    SlowRank.capture_seconds = args.capture_ms / 1000
    settings = Settings(
        mode=args.mode,
        endpoint=args.endpoint,
        engine=args.engine,
        handshake_ms=60_000,
        curve=load_curve(os.environ),
    )
    graphs = plan(SIZES)
    if args.loras:
        graphs += [replace(g, id=f"{g.id}:l{args.loras}", loras=args.loras) for g in graphs]
    graphs.sort(key=lambda g: (g.kind != "PIECEWISE", -g.tokens))
    agent = Agent(settings, make_config(), "0.26.0")
    ProcessEngine.step_shape = replace(STEP, loras=args.loras)
    engine = ProcessEngine(agent, [SlowRank(i, graphs) for i in range(args.ranks)])
    if args.tell_orders:
        tell_orders(agent.session)
    agent.begin()
    rpc = engine.model_executor.collective_rpc
    agent.before_capture(rpc)
    rpc("compile_or_warm_up_model")
    agent.after_capture(rpc)
    agent.attach(engine, "wakeup")
    threading.Thread(target=follow_stdin, args=(engine,), daemon=True).start()
    say("ready", captured=sorted(engine.captured()))
    engine.loop()
    say("end", ranks=[sorted(r.captured) for r in engine.ranks], steps=engine.steps_taken)


if __name__ == "__main__":
    main()
