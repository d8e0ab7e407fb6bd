import { describe, expect, test } from "vitest";
import type { Graph } from "../../src/base/graph.ts";
import { refusalOf, spokenVersion, versionFor } from "../../src/wire/version.ts";
import { FakeEngine, plan } from "../helpers/fake-engine.ts";

describe("the version that is spoken", () => {
  test.for([
    [1, 1, 1],
    [1, 2, 2],
    [2, 2, 2],
    [0, 5, 2],
    [2, 9, 2],
  ] as const)("with an engine of %i to %i is %i", ([versionMin, versionMax, spoken]) => {
    expect(spokenVersion({ versionMin, versionMax })).toBe(spoken);
    expect(refusalOf({ ...new FakeEngine().hello, versionMin, versionMax })).toBeUndefined();
  });

  test.for([
    [0, 0, "got version 0: upgrade lazygraph-vllm, the plugin in the engine."],
    [3, 4, "got versions 3 to 4: upgrade lazygraph, the controller."],
    [3, 3, "got version 3: upgrade lazygraph, the controller."],
  ] as const)("none with one of %i to %i, and why", ([versionMin, versionMax, end]) => {
    expect(spokenVersion({ versionMin, versionMax })).toBeUndefined();
    expect(refusalOf({ ...new FakeEngine().hello, versionMin, versionMax })).toEqual({
      type: "refuse",
      code: "ERR_LAZYGRAPH_PROTOCOL_VERSION",
      message: `Expected engine engine-0 to speak protocol versions 1 to 2, ${end}`,
    });
  });

  test("a range that holds nothing is refused", () => {
    expect(spokenVersion({ versionMin: 2, versionMax: 1 })).toBeUndefined();
  });
});

describe("the version that graphs need", () => {
  const graph: Graph = { id: "FULL:8", kind: "FULL", tokens: 8, requests: 8, uniform: 1 };

  test("is the first where none has a case of its own", () => {
    expect(versionFor([])).toBe(1);
    expect(versionFor([...plan(1, 8), { ...graph, loras: 0, microbatches: 1 }])).toBe(1);
  });

  test.for([{ loras: 1 }, { queryLength: 4 }, { microbatches: 2 }])("%o is the second", (its) => {
    expect(versionFor([graph, { ...graph, ...its }])).toBe(2);
  });
});
