import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { createLog } from "../../src/cli/log.ts";
import { type Following, followEngines } from "../../src/cli/progress.ts";
import type { Controller } from "../../src/controller/controller.ts";
import { publish } from "../../src/engine/events.ts";
import type { EngineSnapshot } from "../../src/engine/snapshot.ts";
import { joinEngine, startController } from "../helpers/joined.ts";

const BASE = { engine: "gpu-0", session: "s", atUnixMs: 0 };
const LOST = { ...BASE, code: "ERR_LAZYGRAPH_ENGINE_LOST", reason: "It was silent." };
const SNAPSHOT = {
  engine: "gpu-0",
  model: "llama",
  mode: "idle",
  graphsPlanned: 8,
  graphsCaptured: 8,
  graphsRefused: 0,
  graphsFailed: 0,
  captureBeforeReadySeconds: 0.25,
  readyToSettledSeconds: 1.5,
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

/** Of which no line of a log may have any. */
const TABLE = /[─│┌┐└┘├┤┬┴┼]/;

test("in a log: the memory line, a line per quarter, one line of what it came to", () => {
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
  expect(written).toBe(
    [
      "lazygraph: gpu-0 joined: llama, mode idle",
      "lazygraph: gpu-0: took 1, free 2",
      "lazygraph: gpu-0: 2 of 8 graphs, last FULL:2 22 ms",
      "lazygraph: gpu-0: 4 of 8 graphs, last FULL:4 22 ms",
      "lazygraph: gpu-0: 6 of 8 graphs, last FULL:6 22 ms",
      "lazygraph: gpu-0: 8 of 8 graphs, last FULL:8 22 ms",
      "lazygraph: gpu-0 is settled: no graph is left to capture (8 of 8 graphs, 0 MiB, " +
        "0.250 s before ready, first settled 1.500 s after, longest capture 1.0 ms, mode idle)",
      "",
    ].join("\n"),
  );
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
    // What the log must not have, a terminal has.
    expect(written).toMatch(TABLE);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: escape sequences are the subject.
    const sequences = new Set(written.match(/\u001b[^a-zA-Z0-9]*[a-zA-Z0-9]/g));
    expect([...sequences]).toEqual(["\u001b[K"]);
  });
});

test("captures that end twice are told once, unless there is something new: a mode is none", () => {
  follow();
  join();
  settle();
  settle();
  engines = [{ ...SNAPSHOT, mode: "lazy" }];
  settle();
  expect(written.match(/is settled/g)).toHaveLength(1);
  engines = [{ ...SNAPSHOT, mode: "lazy", graphsCaptured: 7, graphsRefused: 1 }];
  settle();
  expect(written.match(/is settled/g)).toHaveLength(2);
  expect(written).toContain("(7 of 8 graphs, 0 left, 1 refused, 0 failed, 0 MiB,");
  expect(written).not.toMatch(TABLE);
});

test("engines that the controller forgot are forgotten", () => {
  follow();
  for (const engine of ["gpu-0", "gpu-1", "gpu-2", "gpu-0"]) {
    engines = [{ ...SNAPSHOT, engine }];
    const event = { reason: "done", graphsCaptured: 8, graphsPlanned: 8 };
    publish("lazygraph:engine:settled", { ...BASE, engine, ...event });
  }
  expect(written.match(/gpu-0 is settled/g)).toHaveLength(2);
});

test("a line of JSON has the engine, and the code of what went wrong, as fields", () => {
  const lines: string[] = [];
  follow({ log: createLog("json", (text) => lines.push(text)) });
  join();
  for (let count = 1; count <= 8; count++) capture(count);
  publish("lazygraph:engine:lost", LOST);
  publish("lazygraph:problem", { engine: "gpu-0", atUnixMs: 0, code: "ERR_X", message: "bad" });
  publish("lazygraph:capture:refused", { ...BASE, graph: "FULL:1", reason: "12 MiB short" });
  settle();
  const parsed = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
  expect(parsed.map(({ engine }) => engine)).toEqual(lines.map(() => "gpu-0"));
  const coded = parsed.filter(({ code }) => code !== undefined);
  expect(coded.map(({ code, message }) => [code, message])).toEqual([
    ["ERR_LAZYGRAPH_ENGINE_LOST", "gpu-0 is gone: It was silent."],
    ["ERR_X", "gpu-0: bad"],
  ]);
  expect(parsed.at(-1)?.["message"]).toMatch(
    /^gpu-0 is settled: no graph is left to capture \(8 of/,
  );
  expect(lines.join("")).not.toMatch(TABLE);
});

test("of an engine that comes and goes all the time few lines are written, with their number", () => {
  follow();
  for (let count = 0; count < 1000; count++) {
    join();
    publish("lazygraph:engine:lost", LOST);
  }
  expect(written.split("\n")).toHaveLength(11);
  vi.spyOn(performance, "now").mockReturnValue(performance.now() + 60_000);
  join();
  expect(written).toMatch(
    /joined: llama, mode idle \(995 times more since the last such line\)\n$/,
  );
});

test("a loss has its code, a goodbye has its reason", () => {
  follow();
  publish("lazygraph:engine:lost", LOST);
  publish("lazygraph:engine:lost", { ...LOST, goodbye: "shut down" });
  expect(written).toBe(
    "lazygraph: gpu-0 is gone: It was silent. [ERR_LAZYGRAPH_ENGINE_LOST]\n" +
      "lazygraph: gpu-0 left: shut down\n",
  );
});

test("an engine that never settled is told at the end", () => {
  const { stop } = follow();
  join();
  expect(written).not.toContain("settled");
  stop();
  expect(written).toContain("gpu-0 is not settled (8 of 8 graphs, 0 MiB, 0.250 s before ready,");
});

test("an engine that ran as stock says why", () => {
  engines = [{ ...SNAPSHOT, graphsPlanned: 0, unsupported: "a model with LoRA was not tried" }];
  follow().stop();
  expect(written).toBe("lazygraph: gpu-0 ran as stock: a model with LoRA was not tried\n");
});

test("an engine that joins as stock is not said to be in a mode", () => {
  engines = [{ ...SNAPSHOT, phase: "stock" }];
  follow();
  join();
  expect(written).toBe("lazygraph: gpu-0 joined: llama, runs as stock, and its log says why\n");
});

test("complaints are bounded", () => {
  follow();
  for (let count = 0; count < 1000; count++) {
    publish("lazygraph:problem", { engine: "gpu-0", atUnixMs: 0, code: "ERR_X", message: "bad" });
  }
  expect(written.split("\n").length).toBeLessThan(30);
  expect(written).toContain("lazygraph: gpu-0: bad [ERR_X]\n");
  vi.spyOn(performance, "now").mockReturnValue(performance.now() + 60_000);
  publish("lazygraph:problem", { engine: "gpu-9", atUnixMs: 0, code: "ERR_X", message: "new" });
  expect(written).toContain("gpu-9: new (979 times more since the last such line) [ERR_X]\n");
  const code = "ERR_LAZYGRAPH_KEYS";
  publish("lazygraph:problem", { engine: "gpu-0", atUnixMs: 0, code, message: "another" });
  expect(written).toContain("lazygraph: gpu-0: another [ERR_LAZYGRAPH_KEYS]\n");
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

test("a new process of a name that was told before is told by itself at the end", () => {
  const { stop } = follow();
  join();
  settle();
  join();
  const before = written.split("of 8 graphs,").length;
  stop();
  expect(written.split("of 8 graphs,")).toHaveLength(before + 1);
});

test("no picture of all engines is taken for one that settles", async () => {
  await using controller = await startController({ mode: "eager", plan: false });
  const looks = vi.spyOn(controller, "engines");
  following = followEngines(controller);
  await using _engine = await joinEngine(controller);
  await controller.waitForEngine({ settled: true });
  await expect.poll(() => written).toContain("no graph is left");
  expect(looks).not.toHaveBeenCalled();
});
