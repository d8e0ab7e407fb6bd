import { describe, expect, test } from "vitest";
import type { Graph } from "../../src/base/graph.ts";
import type { Policy } from "../../src/schedule/policy.ts";
import { createEngineState } from "../../src/schedule/state.ts";
import { exactTable } from "../../src/sim/virtual/comparators/exact.ts";
import { createLadderPolicy } from "../../src/sim/virtual/comparators/ladder.ts";
import { createLargestFirstPolicy } from "../../src/sim/virtual/comparators/largest-first.ts";
import { createNonePolicy } from "../../src/sim/virtual/comparators/none.ts";
import { pr23184Capture } from "../../src/sim/virtual/comparators/pr23184.ts";
import { createStockPolicy } from "../../src/sim/virtual/comparators/stock.ts";
import { plan } from "../helpers/fake-engine.ts";
import { decode, graphOf, mixed, SEED } from "./seed.ts";

const planned = plan(1, 4, 6, 8);

/** What a policy captures before ready, and its decisions once ready and idle. */
function begin(policy: Policy) {
  const state = createEngineState(planned);
  const started = policy
    .decide(state, { type: "inventory", atSeconds: 0 })
    .flatMap((decision) => (decision.type === "start" ? decision.graphs : []));
  for (const { id } of started) {
    const entry = state.graphs.get(id);
    if (entry !== undefined) entry.status = "captured";
  }
  state.ready = true;
  state.idle = true;
  const decisions = policy.decide(state, { type: "ready", atSeconds: 1 });
  return { started: started.map(({ id }) => id), decisions, state };
}

describe("comparators", () => {
  test("stock captures everything before ready, in its own order, and settles", () => {
    const { started, decisions } = begin(createStockPolicy());
    expect(started).toEqual(planned.map(({ id }) => id));
    expect(decisions.map(({ type }) => type)).toEqual(["dispatch", "settled"]);
  });

  test("none captures nothing and dispatches nothing", () => {
    const { started, decisions } = begin(createNonePolicy());
    expect(started).toEqual([]);
    expect(decisions.at(-1)).toMatchObject({ type: "settled" });
  });

  test("ladder captures tops and powers of two before ready, nothing after", () => {
    const { started, decisions } = begin(createLadderPolicy(SEED));
    expect(started).toEqual([
      "PIECEWISE:8",
      "FULL:8",
      "PIECEWISE:4",
      "FULL:4",
      "PIECEWISE:1",
      "FULL:1",
    ]);
    expect(decisions.at(-1)).toMatchObject({ type: "settled" });
  });

  test("largest-first captures the largest of the rest, and only while idle", () => {
    const policy = createLargestFirstPolicy();
    const { started, decisions, state } = begin(policy);
    expect(started).toEqual(["PIECEWISE:8", "FULL:8"]);
    expect(decisions.at(-1)).toMatchObject({ graph: { id: "PIECEWISE:6" }, whenIdle: true });
    state.idle = false;
    expect(policy.decide(state, { type: "busy", atSeconds: 2 })).toEqual([]);
  });

  test("exact dispatch takes the ideal graph or none: never a larger one, never another kind", () => {
    const captured = [graphOf(planned, "FULL:4"), graphOf(planned, "PIECEWISE:8")];
    expect(exactTable(planned, captured)).toEqual({
      uniform: [
        { upTo: 1, graphs: [] },
        { upTo: 4, graphs: ["FULL:4"] },
        { upTo: 6, graphs: [] },
        { upTo: 8, graphs: [] },
      ],
      mixed: [
        { upTo: 1, graphs: [] },
        { upTo: 4, graphs: [] },
        { upTo: 6, graphs: [] },
        { upTo: 8, graphs: ["PIECEWISE:8"] },
      ],
    });
  });

  test("pr23184 captures in each step its ideal graph, else the next largest", () => {
    const held = new Set(["PIECEWISE:8", "FULL:8"]);
    const captured = ({ id }: Graph) => held.has(id);
    expect(pr23184Capture(planned, decode(3), captured)?.id).toBe("FULL:4");
    expect(pr23184Capture(planned, mixed(3), captured)?.id).toBe("PIECEWISE:4");
    expect(pr23184Capture(planned, decode(7), captured)?.id).toBe("PIECEWISE:6");
    expect(pr23184Capture(planned, decode(100), captured)?.id).toBe("PIECEWISE:6");
    expect(pr23184Capture(planned, decode(7), () => true)).toBeUndefined();
  });
});
