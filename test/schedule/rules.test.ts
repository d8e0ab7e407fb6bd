import { describe, expect, test } from "vitest";
import { topGraphs } from "../../src/base/graph.ts";
import { createEagerPolicy } from "../../src/schedule/modes/eager.ts";
import { createPolicy } from "../../src/schedule/modes/modes.ts";
import type { Decision, EngineEvent, Policy } from "../../src/schedule/policy.ts";
import { excludedGraphs, unmatchedRules, withRules } from "../../src/schedule/rules.ts";
import { createEngineState, type WritableState } from "../../src/schedule/state.ts";
import { plan } from "../helpers/fake-engine.ts";

const planned = plan(1, 8, 24, 512);

function started(policy: Policy, state: WritableState = createEngineState(planned)): string[] {
  const [start] = policy.decide(state, { type: "inventory", atSeconds: 0 });
  if (start?.type !== "start") throw new Error("a start was expected");
  return start.graphs.map(({ id }) => id);
}

/** Everything the policy captures after ready while idle, answered at once. */
function filled(policy: Policy, state: WritableState): { ids: string[]; settled: string[] } {
  for (const id of started(policy, state)) {
    const entry = state.graphs.get(id);
    if (entry !== undefined) entry.status = "captured";
  }
  state.ready = true;
  state.idle = true;
  const ids: string[] = [];
  const settled: string[] = [];
  let event: EngineEvent = { type: "ready", atSeconds: 1 };
  for (let round = 0; round < 100; round++) {
    const decisions: readonly Decision[] = policy.decide(state, event);
    for (const decision of decisions) {
      if (decision.type !== "settled") continue;
      settled.push(decision.reason);
      state.settled = true;
    }
    const capture = decisions.find((decision) => decision.type === "capture");
    if (capture === undefined) break;
    ids.push(capture.graph.id);
    const entry = state.graphs.get(capture.graph.id);
    if (entry !== undefined) entry.status = "captured";
    event = { type: "captured", graph: capture.graph.id, atSeconds: 1 };
  }
  return { ids, settled };
}

describe("rules", () => {
  test("entries name a graph, a kind, a size, or sizes above or below one", () => {
    const excluded = (...exclude: string[]) => excludedGraphs(planned, { exclude });
    expect(excluded("FULL:24")).toEqual(["FULL:24"]);
    expect(excluded("PIECEWISE").every((id) => id.startsWith("PIECEWISE:"))).toBe(true);
    expect(excluded("PIECEWISE")).toHaveLength(4);
    expect(excluded("24").sort()).toEqual(["FULL:24", "PIECEWISE:24"]);
    expect(excluded(">24").sort()).toEqual(["FULL:512", "PIECEWISE:512"]);
    expect(excluded("<8").sort()).toEqual(["FULL:1", "PIECEWISE:1"]);
    expect(excluded("FULL:2", "full", "<1", ">512", "0", "08", "1e2", "")).toEqual([]);
  });

  test("what matches nothing is told, once", () => {
    const rules = { pin: ["FULL:8", "FULL:9", "16"], exclude: ["16", ">512", "PIECEWISE"] };
    expect(unmatchedRules(planned, rules)).toEqual(["FULL:9", "16", ">512"]);
    expect(unmatchedRules(planned, {})).toEqual([]);
  });

  test("the policy's tops are those that are left, and pinned ones join them", () => {
    const policy = withRules(createPolicy("lazy"), { exclude: [">24"], pin: ["FULL:1", "512"] });
    expect(policy.name).toBe("lazy-simple");
    expect(started(policy)).toEqual(["PIECEWISE:24", "FULL:24", "FULL:1"]);
  });

  test("what the user pinned comes whatever it takes, also beside a budget", () => {
    const eager: Policy = {
      name: "budgeted",
      decide: (state) => [
        {
          type: "start",
          graphs: topGraphs(state.planned),
          more: state.planned,
          budgetMs: 100,
          reason: "a test",
        },
      ],
    };
    const policy = withRules(eager, { pin: ["FULL:1"], graphsMax: 5 });
    const [start] = policy.decide(createEngineState(planned), { type: "inventory", atSeconds: 0 });
    const named = (ids: readonly string[]) => ids.map((id) => expect.objectContaining({ id }));
    expect(start).toMatchObject({
      budgetMs: 100,
      graphs: named(["PIECEWISE:512", "FULL:512", "FULL:1"]),
      more: named(["PIECEWISE:24", "PIECEWISE:8"]),
    });
  });

  test("a limit keeps the tops, then the pinned, then the policy's order", () => {
    const eager = (graphsMax: number) =>
      started(withRules(createEagerPolicy(), { graphsMax, pin: ["FULL:1"] }));
    expect(eager(2)).toEqual(["PIECEWISE:512", "FULL:512"]);
    expect(eager(3)).toEqual(["PIECEWISE:512", "FULL:512", "FULL:1"]);
    expect(eager(4)).toEqual(["PIECEWISE:512", "PIECEWISE:24", "FULL:512", "FULL:1"]);
    expect(eager(0)).toEqual([]);
  });

  test("what may come besides before ready is cut to the limit, and comes once", () => {
    const some = (...of: string[]) => planned.filter(({ id }) => of.includes(id));
    const policy: Policy = {
      name: "more",
      decide: () => [
        {
          type: "start",
          graphs: some("PIECEWISE:512", "FULL:512"),
          more: some("FULL:1", "FULL:8", "FULL:24"),
          reason: "both",
        },
      ],
    };
    const more = (rules: Parameters<typeof withRules>[1]): string[] | undefined => {
      const state = createEngineState(planned);
      const [start] = withRules(policy, rules).decide(state, { type: "inventory", atSeconds: 0 });
      return start?.type === "start" ? start.more?.map(({ id }) => id) : undefined;
    };
    expect(more({})).toEqual(["FULL:24", "FULL:8", "FULL:1"]);
    expect(more({ graphsMax: 4 })).toEqual(["FULL:24", "FULL:8"]);
    expect(more({ pin: ["FULL:24"], graphsMax: 4 })).toEqual(["FULL:8"]);
    expect(more({ graphsMax: 2 })).toBeUndefined();
  });

  test("fill ends at the limit, settled with the figures", () => {
    const state = createEngineState(planned);
    const { ids, settled } = filled(withRules(createPolicy("idle"), { graphsMax: 5 }), state);
    expect(ids).toHaveLength(3);
    expect(settled).toEqual(["5 graphs are captured, and the user allows 5"]);
  });

  test("fill leaves out what is excluded, and settles without it", () => {
    const state = createEngineState(planned);
    const rules = { exclude: ["PIECEWISE"] };
    for (const id of excludedGraphs(planned, rules)) {
      const entry = state.graphs.get(id);
      if (entry !== undefined) entry.status = "refused";
    }
    const { ids, settled } = filled(withRules(createPolicy("idle"), rules), state);
    expect(ids.sort()).toEqual(["FULL:1", "FULL:24", "FULL:8"]);
    expect(settled).toEqual(["no graph is left to capture"]);
  });
});
