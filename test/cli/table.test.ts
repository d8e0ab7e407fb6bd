import { expect, test } from "vitest";
import { printable } from "../../src/base/printable.ts";
import { enginesTable, graphsTable, settledTable, settledText } from "../../src/cli/table.ts";
import { createEngineRecord } from "../../src/engine/record.ts";
import { type EngineSnapshot, type GraphSnapshot, snapshotOf } from "../../src/engine/snapshot.ts";

const MIB = 1024 * 1024;

function snapshot(changes: Partial<EngineSnapshot>): EngineSnapshot {
  const record = createEngineRecord(
    {
      type: "hello",
      versionMin: 1,
      versionMax: 1,
      engine: "gpu-0",
      session: "s",
      pluginVersion: "0.1.0",
      vllmVersion: "0.26.0",
      model: "llama",
      host: "h",
      pid: 1,
      phase: "serving",
      mode: "idle",
      tensorParallel: 1,
      pipelineParallel: 1,
    },
    "idle",
  );
  return { ...snapshotOf(record), ...changes };
}

/** Rows of a table as their cells. */
function cells(table: string): string[][] {
  return table
    .split("\n")
    .filter((line) => line.startsWith("│"))
    .map((line) =>
      line
        .split("│")
        .slice(1, -1)
        .map((cell) => cell.trim()),
    );
}

test("the settled table has the figures that were asked for", () => {
  const table = settledTable(
    snapshot({
      captureBeforeReadySeconds: 0.0704,
      readyToSettledSeconds: 12.34,
      longestCaptureMs: 46.25,
      graphsPlanned: 102,
      graphsCaptured: 99,
      graphsRefused: 2,
      graphsFailed: 1,
      takenBytes: 931.4 * MIB,
      stepsExact: 10,
      stepsPadded: 5,
      stepsUngraphed: 1,
    }),
  );
  expect(Object.fromEntries(cells(table))).toEqual({
    engine: "gpu-0",
    "model, mode": "llama, idle",
    "capture before ready": "0.070 s",
    "ready to settled": "12.3 s",
    "longest capture": "46.3 ms",
    "graphs captured": "99 of 102",
    "graph memory": "931 MiB",
    "steps so far": "10 exact, 5 padded, 1 ungraphed",
    "not captured": "0 left, 2 refused, 1 failed",
  });
});

test("what is not known yet says so, and a simulated engine is labelled", () => {
  const table = settledTable(snapshot({ simulated: "llama-3.1-8b-h200" }));
  const rows = Object.fromEntries(cells(table));
  expect(rows).toMatchObject({
    engine: "gpu-0 (simulated: llama-3.1-8b-h200)",
    "capture before ready": "not yet",
    "ready to settled": "not yet",
    "longest capture": "none",
  });
  expect(rows).not.toHaveProperty("not captured");
});

test("the line for logs leaves out what a later controller didn't see", () => {
  const seen = { captureBeforeReadySeconds: 0.07, readyToSettledSeconds: 12.34 };
  expect(settledText(snapshot(seen), "done")).toContain(
    "0.070 s before ready, first settled 12.3 s after, longest",
  );
  expect(settledText(snapshot({}), "done")).not.toMatch(/ready|not yet/);
  expect(settledText(snapshot({ settled: true }), undefined)).toContain("gpu-0 is settled (");
});

test("one row per engine, lost, sleeping and settled ones marked", () => {
  const engines = [
    snapshot({ settled: true }),
    snapshot({ engine: "gpu-1", connected: false }),
    snapshot({ engine: "gpu-2" }),
    snapshot({ engine: "gpu-3", asleep: ["weights"] }),
  ];
  const rows = cells(enginesTable(engines)).slice(1);
  expect(rows.map((row) => [row[0], row[2]])).toEqual([
    ["gpu-0", "serving, settled"],
    ["gpu-1", "lost"],
    ["gpu-2", "serving"],
    ["gpu-3", "serving, asleep"],
  ]);
});

test("what is wrong with an engine is noted, where there is something", () => {
  expect(enginesTable([snapshot({})])).not.toContain("note");
  const { problems } = snapshot({});
  const engines = [
    snapshot({}),
    snapshot({ connected: false, lostReason: "It was silent for 5 s." }),
    snapshot({ unsupported: "LoRA was not tried", problems: { ...problems, replaced: 1 } }),
  ];
  const notes = cells(enginesTable(engines)).map((row) => row.at(-1));
  expect(notes).toEqual([
    "note",
    "",
    "It was silent for 5 s.",
    "runs as stock: LoRA was not tried; " +
      "took its name from another engine: if that still runs, give each its own LAZYGRAPH_ENGINE",
  ]);
});

test("one row per graph with its reason", () => {
  const graph: GraphSnapshot = {
    id: "FULL:24",
    kind: "FULL",
    tokens: 24,
    loras: 0,
    queryLength: undefined,
    microbatches: 1,
    status: "captured",
    ms: 21.96,
    bytes: 1.6 * MIB,
    replays: 7,
    wanted: 9,
    reason: "wanted by 3 steps",
  };
  const planned: GraphSnapshot = {
    ...graph,
    id: "FULL:16",
    status: "planned",
    ms: undefined,
    bytes: undefined,
    reason: undefined,
  };
  expect(cells(graphsTable([graph, planned])).slice(1)).toEqual([
    ["FULL:24", "captured", "22.0", "1.6", "7", "9", "wanted by 3 steps"],
    ["FULL:16", "planned", "", "", "7", "9", ""],
  ]);
  const adapted: GraphSnapshot = { ...planned, id: "FULL:16:l2", loras: 2 };
  expect(cells(graphsTable([planned, adapted])).map((row) => row.slice(0, 3))).toEqual([
    ["graph", "adapters", "status"],
    ["FULL:16", "0", "planned"],
    ["FULL:16:l2", "2", "planned"],
  ]);
});

test("a reason doesn't repeat its graph, and on a narrow terminal no line is cut", () => {
  const reason = "FULL:8: account 0.25 ≥ price 0.21, the dearest of those that wait";
  const graph = { id: "FULL:8", status: "planned", replays: 0, wanted: 3, reason } as GraphSnapshot;
  expect(graphsTable([graph])).toContain("│ account 0.25 ≥ price 0.21");
  const narrow = graphsTable([graph], 70);
  expect(narrow).toContain("\n  account 0.25 ≥ price 0.21, the dearest of those that wait");
  expect(Math.max(...narrow.split("\n").map((line) => line.length))).toBeLessThanOrEqual(70);
  // Both say the same.
  for (const word of ["FULL:8", "planned", "wanted"]) expect(narrow).toContain(word);
});

test("sentences are shown whole, in as many lines as they take", () => {
  const words = Array.from({ length: 60 }, (_, at) => `word${at}`);
  const sentence = words.join(" ");
  const graph = { id: "FULL:8", status: "refused", replays: 0, wanted: 3, reason: sentence };
  const stock = snapshot({ unsupported: sentence, vllmVersion: "0.33.0", adapter: "v31" });
  const lost = snapshot({ connected: false, lostReason: sentence });
  for (const table of [
    (columns?: number) => graphsTable([graph as GraphSnapshot], columns),
    (columns?: number) => enginesTable([stock], columns),
    (columns?: number) => enginesTable([lost], columns),
  ]) {
    expect(table()).toContain(sentence);
    const lines = table(60).split("\n");
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(60);
    expect(lines.join(" ").replaceAll(/ +/g, " ")).toContain(sentence);
  }
  expect(enginesTable([stock], 60)).toContain("\nvLLM, adapter  0.33.0, v31\n");
});

test("an engine that said goodbye has left, one that fell silent is lost", () => {
  const engines = [
    snapshot({ connected: false, phase: "stopping" }),
    snapshot({ engine: "gpu-1", connected: false }),
  ];
  expect(cells(enginesTable(engines)).map((row) => row[2])).toEqual(["phase", "left", "lost"]);
});

test("which of the plugin's adapters serves an engine, where one tells", () => {
  const told = snapshot({ vllmVersion: "0.33.0", adapter: "v31" });
  const rows = cells(enginesTable([told, snapshot({ vllmVersion: "0.26.0" })]));
  expect(rows.map((row) => row.at(-1))).toEqual(["vLLM, adapter", "0.33.0, v31", "0.26.0"]);
  expect(cells(enginesTable([snapshot({})]))[0]).not.toContain("vLLM, adapter");
});

test("text from an engine can't drive the terminal", () => {
  expect(printable("a\u001b[31mb\r\n\u202ec")).toBe("a [31mb c");
  expect(printable("x".repeat(1000))).toHaveLength(300);
  const table = settledTable(snapshot({ model: "evil\u001b[2J" }));
  expect(table).not.toContain("\u001b");
});

test("on a terminal too narrow for a row each engine is a block", () => {
  const engines = [snapshot({ graphsPlanned: 102, graphsCaptured: 8 }), snapshot({ engine: "b" })];
  const wide = enginesTable(engines, 200);
  expect(wide).toBe(enginesTable(engines));
  const narrow = enginesTable(engines, 40);
  expect(Math.max(...narrow.split("\n").map((line) => line.length))).toBeLessThanOrEqual(40);
  expect(narrow).toMatch(/^engine +gpu-0\nmode +idle\nphase /);
  expect(narrow).toContain("graphs  8 of 102");
  expect(narrow).toContain("\n\nengine  b\n");
});
