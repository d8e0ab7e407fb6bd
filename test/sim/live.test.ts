import { describe, expect, test } from "vitest";
import type { Clock } from "../../src/base/clock.ts";
import { loadProfile } from "../../src/profile/load.ts";
import { createPolicy } from "../../src/schedule/modes/modes.ts";
import { LiveEngine, type LiveEngineOptions, type LiveEvent } from "../../src/sim/live/live.ts";
import type { RequestSample } from "../../src/sim/model/batcher.ts";
import { simulate } from "../../src/sim/virtual/virtual.ts";
import type { TraceRequest } from "../../src/trace/trace.ts";
import { tinyProfile } from "./helpers.ts";

/** Time moves only when the test says so, from timer to timer. */
class ManualClock implements Clock {
  #now = 1000;
  readonly #timers = new Set<{ atSeconds: number; callback: () => void }>();

  now(): number {
    return this.#now;
  }

  after(seconds: number, callback: () => void): () => void {
    const timer = { atSeconds: this.#now + seconds, callback };
    this.#timers.add(timer);
    return () => void this.#timers.delete(timer);
  }

  advance(seconds: number): void {
    const end = this.#now + seconds;
    for (;;) {
      const [next] = [...this.#timers].sort((a, b) => a.atSeconds - b.atSeconds);
      if (next === undefined || next.atSeconds > end) break;
      this.#timers.delete(next);
      this.#now = Math.max(this.#now, next.atSeconds);
      next.callback();
    }
    this.#now = end;
  }
}

async function live(options: Partial<LiveEngineOptions>, seconds: number) {
  const clock = new ManualClock();
  const events: LiveEvent[] = [];
  const engine = new LiveEngine({
    profile: tinyProfile(),
    ...options,
    clock,
    onEvent: (event) => void events.push(event),
  });
  engine.start();
  clock.advance(seconds);
  await engine.close();
  const of = <T extends LiveEvent["type"]>(type: T) =>
    events.filter((event): event is Extract<LiveEvent, { type: T }> => event.type === type);
  return { engine, of };
}

const requests: TraceRequest[] = [
  { atSeconds: 0, promptTokens: 1, outputTokens: 2 },
  { atSeconds: 21, promptTokens: 1, outputTokens: 1 },
];

describe("an engine without a controller", () => {
  test("eager: everything before ready, nothing after", async () => {
    const { engine, of } = await live({ mode: "eager", requests }, 100);
    expect(of("ready")).toEqual([{ type: "ready", atSeconds: 16, captureSeconds: 6 }]);
    expect(of("capture")).toEqual([]);
    expect([...engine.model.captured.keys()]).toHaveLength(4);
    // FULL:1 replays both requests' steps, the prompt of one token included: 1 s each.
    expect(of("request").map((sample) => sample.completionSeconds)).toEqual([18, 22]);
    expect(of("drained")).toEqual([
      { type: "drained", atSeconds: 22, requests: 2, requestsRefused: 0 },
    ]);
  });

  test("lazy: the tops before ready, and nobody to earn the rest", async () => {
    const { engine, of } = await live({ mode: "lazy", requests }, 100);
    expect(of("ready")).toEqual([{ type: "ready", atSeconds: 14, captureSeconds: 4 }]);
    expect([...engine.model.captured.keys()]).toEqual(["PIECEWISE:4", "FULL:4"]);
    // Padded to FULL:4: 4 s a step.
    expect(of("request").map((sample) => sample.completionSeconds)).toEqual([22, 26]);
  });

  test("idle: the rest while nothing is to do, small decode graphs first, and used at once", async () => {
    const { of } = await live({ mode: "idle", requests: requests.slice(1) }, 100);
    // FULL:1 takes 2 s from 14; PIECEWISE:1 takes 3 s from 16; the request finds both.
    expect(of("capture").map(({ atSeconds, graph }) => [atSeconds, graph])).toEqual([
      [16, "FULL:1"],
      [19, "PIECEWISE:1"],
    ]);
    expect(of("request").map((sample) => sample.completionSeconds)).toEqual([22]);
  });

  test("a request that arrives during the fill waits for one capture", async () => {
    const late = { atSeconds: 15, promptTokens: 1, outputTokens: 1 };
    const { of } = await live({ mode: "idle", requests: [late] }, 100);
    // One token: FULL:1, just captured, serves it in 1 s, then PIECEWISE:1 has its turn.
    expect(of("request")[0]?.firstTokenSeconds).toBe(16 + 1);
    expect(of("capture").map(({ atSeconds }) => atSeconds)).toEqual([16, 20]);
  });

  test("an endpoint where nobody listens costs one bounded wait in real time", async () => {
    const endpoint = "tcp://127.0.0.1:9";
    const options = { mode: "lazy", endpoint, speed: 10, handshakeMs: 250 } as const;
    const { of } = await live(options, 1.24);
    // 10 simulated seconds are one real one; the wait is not sped up.
    expect([of("loaded").length, of("ready").length]).toEqual([1, 0]);
    const longer = await live(options, 5);
    expect(longer.of("ready")[0]?.atSeconds).toBeCloseTo(10 + 0.25 + 4, 6);
    expect(longer.of("problem")).toMatchObject([{ code: "ERR_LAZYGRAPH_CONTROLLER_UNREACHABLE" }]);
  });
});

test("in real time and in virtual time the same engine does the same", async () => {
  const profile = loadProfile();
  const trace: TraceRequest[] = Array.from({ length: 200 }, (_, index) => ({
    atSeconds: index * 0.37,
    promptTokens: 1 + ((index * 677) % 3000),
    outputTokens: 1 + ((index * 311) % 400),
  }));
  const { of } = await live({ profile, mode: "eager", requests: trace, speed: 3 }, 500);
  const virtual: RequestSample[] = [];
  await simulate({
    profile,
    policy: createPolicy("eager"),
    requests: trace,
    onRequest: (sample) => void virtual.push(sample),
  });
  const real = of("request").map(({ type: _, ...sample }) => sample);
  expect(real).toHaveLength(200);
  expect(real).toEqual(virtual);
});
