import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { EVENT_NAMES, onEvent, publish } from "../../src/events.ts";
import { memoryLine } from "../../src/memory-line.ts";

test("a subscription ends when its function is called", () => {
  const seen: string[] = [];
  const stop = onEvent("lazygraph:problem", (event) => seen.push(event.message));
  const problem = { engine: "e", atUnixMs: 1, code: "ERR_X" };
  publish("lazygraph:problem", { ...problem, message: "first" });
  stop();
  publish("lazygraph:problem", { ...problem, message: "second" });
  expect(seen).toEqual(["first"]);
});

test("names are distinct and carry the package's prefix", () => {
  expect(new Set(EVENT_NAMES).size).toBe(EVENT_NAMES.length);
  for (const name of EVENT_NAMES) expect(name).toMatch(/^lazygraph:[a-z]+(:[a-z]+)?$/);
});

test("NODE_DEBUG=lazygraph writes events to stderr, control characters escaped", async () => {
  const events = new URL("../../src/events.ts", import.meta.url).href;
  const script = `const { publish } = await import(${JSON.stringify(events)});
    publish("lazygraph:problem", { engine: "e", atUnixMs: 1, code: "X", message: "\\u001b[2J" });`;
  const { stderr } = await promisify(execFile)(
    process.execPath,
    ["--import", "tsx", "--input-type=module", "--eval", script],
    { env: { ...process.env, NODE_DEBUG: "lazygraph" } },
  );
  expect(stderr).toMatch(
    /LAZYGRAPH \d+: lazygraph:problem \{"engine":"e",.*"message":"\\u001b\[2J"\}/,
  );
});

const MIB = 1024 * 1024;
test.for([
  [10, "they fit"],
  [3, "they may not fit"],
  [0.5, "they will not fit"],
] as const)("the memory line with %d MiB free: %s", ([freeMib, verdict]) => {
  const forecast = { bytes: 4 * MIB, errorBytes: 2 * MIB, graphs: 2, provisional: true };
  const figures = { engine: "e", graphsCaptured: 2, takenBytes: MIB, forecast };
  expect(memoryLine({ ...figures, freeBytes: freeMib * MIB })).toBe(
    "e: 2 graphs took 1.0 MiB; the other 2 will take about 4.0 MiB ± 2.0 MiB (provisional); " +
      `${freeMib.toFixed(1)} MiB are free: ${verdict}`,
  );
});

test("the memory line says when nothing is left or free memory is unknown", () => {
  const forecast = { bytes: 0, errorBytes: 0, graphs: 0, provisional: true };
  const figures = {
    engine: "e",
    graphsCaptured: 2,
    takenBytes: MIB,
    freeBytes: undefined,
    forecast,
  };
  expect(memoryLine(figures)).toBe(
    "e: 2 graphs took 1.0 MiB; none is left; free memory is unknown",
  );
});
