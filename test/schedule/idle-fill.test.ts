import { expect, test } from "vitest";
import { resolveOptions } from "../../src/controller/options.ts";
import { createIdlePolicy } from "../../src/schedule/modes/idle.ts";
import type { Decision, EngineEvent } from "../../src/schedule/policy.ts";
import { createEngineState, type WritableState } from "../../src/schedule/state.ts";
import { plan } from "../helpers/fake-engine.ts";

const SIZES = [1, 2, 4, 8, 16, 32, 64];
const STALL_SECONDS = 0.05;

function readyState(): WritableState {
  const state = createEngineState(plan(...SIZES));
  state.ready = true;
  state.idle = false;
  return state;
}

/** An engine that never rests, for so many seconds: when each capture started. */
function busyFor(seconds: number, fillShare: number | undefined): number[] {
  const policy = createIdlePolicy(fillShare === undefined ? {} : { fillShare });
  const state = readyState();
  const startedAt: number[] = [];
  let event: EngineEvent = { type: "ready", atSeconds: 0 };
  for (let at = 0; at < seconds; at += 0.1) {
    for (;;) {
      const decisions: readonly Decision[] = policy.decide(state, event);
      const capture = decisions.find((decision) => decision.type === "capture");
      if (capture?.type !== "capture") break;
      expect(capture.whenIdle).toBe(false);
      startedAt.push(at);
      const entry = state.graphs.get(capture.graph.id);
      if (entry === undefined) throw new Error(`${capture.graph.id} is not in the plan`);
      entry.status = "captured";
      entry.captureMs = STALL_SECONDS * 1000;
      event = { type: "captured", graph: capture.graph.id, atSeconds: at };
    }
    event = { type: "demand", atSeconds: at + 0.1 };
  }
  return startedAt;
}

test("without a share nothing is filled while there is work", () => {
  expect(busyFor(60, undefined)).toEqual([]);
  expect(busyFor(60, 0)).toEqual([]);
});

test("with a share fill takes at most so much of the time, but for the reserve", () => {
  for (const share of [0.02, 0.1, 0.5]) {
    const starts = busyFor(10, share);
    expect(starts.length).toBeGreaterThan(0);
    for (const until of starts) {
      const stalled = starts.filter((at) => at <= until).length * STALL_SECONDS;
      expect(stalled).toBeLessThanOrEqual(0.1 + share * until + 1e-9);
    }
  }
  expect(busyFor(10, 0.1).length).toBeGreaterThan(busyFor(10, 0.02).length);
});

test("a whole share fills at once, and everything", () => {
  expect(busyFor(20, 1)).toHaveLength(2 * SIZES.length);
});

test("an idle engine fills whatever the share, by captures that wait for rest", () => {
  const policy = createIdlePolicy({ fillShare: 0.01 });
  const state = readyState();
  state.idle = true;
  const [table, capture] = policy.decide(state, { type: "ready", atSeconds: 0 });
  expect(table?.type).toBe("dispatch");
  expect(capture).toMatchObject({ type: "capture", whenIdle: true });
});

test("as an option it is a share, and goes with the policy that it bounds", () => {
  expect(resolveOptions({ fillShare: 0.1 }).policy("idle").name).toBe("idle-simple");
  expect(() => resolveOptions({ fillShare: 1.5 })).toThrow(/fillShare .*, got 1\.5/);
  expect(() => resolveOptions({ fillShare: 0.1, policy: "costed" })).toThrow(
    'Expected fillShare to go with the policy "simple", whose idle mode it bounds, got "costed".',
  );
});
