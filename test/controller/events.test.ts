import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { EVENT_NAMES, onEvent, publish } from "../../src/engine/events.ts";

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
  const events = new URL("../../src/engine/events.ts", import.meta.url).href;
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
