import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { type Following, followEngines } from "../../src/cli/progress.ts";
import type { Controller } from "../../src/controller/controller.ts";
import { publish } from "../../src/engine/events.ts";
import type { EngineSnapshot } from "../../src/engine/snapshot.ts";

const BASE = { engine: "gpu-0", session: "s", atUnixMs: 0 };
const SNAPSHOT = {
  engine: "gpu-0",
  model: "llama",
  mode: "idle",
  graphsPlanned: 8,
  graphsCaptured: 8,
  graphsRefused: 0,
  graphsFailed: 0,
  longestCaptureMs: 1,
  takenBytes: 0,
} as EngineSnapshot;

let written: string;
let following: Following | undefined;
let engines: EngineSnapshot[];

beforeEach(() => {
  written = "";
  engines = [SNAPSHOT];
  vi.spyOn(process.stderr, "write").mockImplementation((text) => {
    written += String(text);
    return true;
  });
});

afterEach(() => {
  following?.stop();
  following = undefined;
  vi.restoreAllMocks();
});

function follow(options?: Parameters<typeof followEngines>[1]): Following {
  following = followEngines({ engines: () => engines } as unknown as Controller, options);
  return following;
}

function join(): void {
  const event = { model: "llama", mode: "idle", reconnected: false, simulated: false } as const;
  publish("lazygraph:engine:join", { ...BASE, ...event });
}

function capture(count: number): void {
  publish("lazygraph:capture:end", {
    ...BASE,
    graph: `FULL:${count}`,
    ms: 22.4,
    stallMs: 23,
    bytes: 1,
    graphsCaptured: count,
    graphsPlanned: 8,
  });
}

function settle(): void {
  const event = { reason: "no graph is left to capture", graphsCaptured: 8, graphsPlanned: 8 };
  publish("lazygraph:engine:settled", { ...BASE, ...event });
}

test("in a log: the memory line, a line per quarter, the table once", () => {
  let settled = 0;
  const { joined, stop } = follow({ onSettled: () => settled++ });
  expect(joined()).toBe(false);
  join();
  expect(joined()).toBe(true);
  publish("lazygraph:engine:memory", {
    ...BASE,
    takenBytes: 1,
    freeBytes: 2,
    forecast: { bytes: 3, errorBytes: 1, graphs: 6, provisional: true },
    verdict: "fits",
    line: "gpu-0: took 1, free 2",
  });
  for (let count = 1; count <= 8; count++) capture(count);
  settle();
  stop();
  expect(settled).toBe(1);
  expect(written.split("┌")[0]).toBe(
    [
      "lazygraph: gpu-0 joined: llama, mode idle",
      "lazygraph: gpu-0: took 1, free 2",
      "lazygraph: gpu-0: 2 of 8 graphs, last FULL:2 22 ms",
      "lazygraph: gpu-0: 4 of 8 graphs, last FULL:4 22 ms",
      "lazygraph: gpu-0: 6 of 8 graphs, last FULL:6 22 ms",
      "lazygraph: gpu-0: 8 of 8 graphs, last FULL:8 22 ms",
      "lazygraph: gpu-0 is settled: no graph is left to capture",
      "",
    ].join("\n"),
  );
  expect(written.match(/graphs captured/g)).toHaveLength(1);
});

test("memory that runs out is told once, and what comes of it each time", () => {
  const { stop } = follow();
  const refused = { ...BASE, graphs: ["FULL:8"], needBytes: 2, availableBytes: 1 };
  publish("lazygraph:memory:refused", { ...refused, repeated: false, line: "gpu-0: no room" });
  publish("lazygraph:memory:refused", { ...refused, repeated: true, line: "gpu-0: again" });
  const graphs = ["FULL:8"];
  publish("lazygraph:memory:dropped", { ...BASE, graphs, freedBytes: 1, line: "gpu-0: dropped" });
  publish("lazygraph:memory:room", { ...BASE, graphs, availableBytes: 9, line: "gpu-0: room" });
  expect(written).toBe(
    "lazygraph: gpu-0: no room\nlazygraph: gpu-0: dropped\nlazygraph: gpu-0: room\n",
  );
  stop();
});

describe("on a terminal", () => {
  const { isTTY, columns } = process.stderr;

  beforeEach(() => Object.assign(process.stderr, { isTTY: true, columns: 60 }));
  afterEach(() => Object.assign(process.stderr, { isTTY, columns }));

  test("one bar is drawn over itself, and cleared for each line", () => {
    follow();
    join();
    capture(4);
    capture(8);
    settle();
    const [joined, bar] = written.split("┌")[0]?.split("joined: llama, mode idle\n") ?? [];
    expect(joined).toBe("lazygraph: gpu-0 ");
    expect(bar).toBe(
      [
        "lazygraph: [============------------] 4 of 8 graphs, last FU",
        "lazygraph: [========================] 8 of 8 graphs, last FU",
        "",
        "lazygraph: gpu-0 is settled: no graph is left to capture\n",
      ]
        .map((text) => (text.endsWith("\n") ? text : `\r\u001b[K${text.slice(0, 59)}`))
        .join(""),
    );
  });

  test("the cursor never leaves its line", () => {
    follow();
    for (let count = 1; count <= 8; count++) {
      capture(count);
      join();
    }
    settle();
    following?.stop();
    // biome-ignore lint/suspicious/noControlCharactersInRegex: escape sequences are the subject.
    const sequences = new Set(written.match(/\u001b[^a-zA-Z0-9]*[a-zA-Z0-9]/g));
    expect([...sequences]).toEqual(["\u001b[K"]);
  });
});

test("captures that end twice have one table, unless there is something new in it", () => {
  follow();
  join();
  settle();
  settle();
  expect(written.match(/graphs captured/g)).toHaveLength(1);
  engines = [{ ...SNAPSHOT, mode: "lazy" }];
  settle();
  expect(written.match(/graphs captured/g)).toHaveLength(2);
});

test("a loss has its code, a goodbye has its reason", () => {
  follow();
  const lost = { ...BASE, code: "ERR_LAZYGRAPH_ENGINE_LOST", reason: "It was silent." };
  publish("lazygraph:engine:lost", lost);
  publish("lazygraph:engine:lost", { ...lost, goodbye: "shut down" });
  expect(written).toBe(
    "lazygraph: gpu-0 is gone: It was silent. [ERR_LAZYGRAPH_ENGINE_LOST]\n" +
      "lazygraph: gpu-0 left: shut down\n",
  );
});

test("an engine that never settled gets its table at the end", () => {
  const { stop } = follow();
  join();
  expect(written).not.toContain("graphs captured");
  stop();
  expect(written).toContain("graphs captured");
});

test("an engine that ran as stock says why", () => {
  engines = [{ ...SNAPSHOT, graphsPlanned: 0, unsupported: "a model with LoRA was not tried" }];
  follow().stop();
  expect(written).toBe("lazygraph: gpu-0 ran as stock: a model with LoRA was not tried\n");
});

test("complaints are bounded", () => {
  follow();
  for (let count = 0; count < 1000; count++) {
    publish("lazygraph:problem", { engine: "gpu-0", atUnixMs: 0, code: "ERR_X", message: "bad" });
  }
  expect(written.split("\n").length).toBeLessThan(30);
  expect(written).toContain("lazygraph: gpu-0: bad [ERR_X]\n");
  expect(written).toContain("more of this is not shown");
});

test("quiet prints problems, which are errors, up to a number", () => {
  follow({ quiet: true });
  const miss = { ...BASE, graph: "FULL:1", reason: "12 MiB short" };
  for (let count = 0; count < 100; count++) publish("lazygraph:capture:refused", miss);
  const problem = { engine: "gpu-0", atUnixMs: 0, code: "ERR_X", message: "bad" };
  publish("lazygraph:problem", problem);
  expect(written).toBe("lazygraph: gpu-0: bad [ERR_X]\n");
  for (let count = 0; count < 100; count++) publish("lazygraph:problem", problem);
  expect(written.split("\n").length).toBeLessThan(30);
});

test("quiet prints nothing else and still knows who joined", () => {
  const { joined, stop } = follow({ quiet: true });
  join();
  capture(4);
  settle();
  stop();
  expect({ written, joined: joined() }).toEqual({ written: "", joined: true });
});

test("after the end nothing is printed", () => {
  engines = [];
  follow().stop();
  join();
  settle();
  expect(written).toBe("");
});

test("a new process of a name that was tabled before has a table of its own at the end", () => {
  const { stop } = follow();
  join();
  settle();
  join();
  const before = written.split("graphs captured").length;
  stop();
  expect(written.split("graphs captured")).toHaveLength(before + 1);
});
