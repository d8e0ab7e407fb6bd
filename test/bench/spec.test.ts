import { describe, expect, test } from "vitest";
import { parseSpec } from "../../src/bench/spec.ts";

const LOAD = { arrivals: "poisson", requestRate: 5, seconds: 10 };
/** Written so that no editor takes it for a template. */
const MODEL = `\u0024{MODEL}`;
const SPEC = {
  modes: {
    stock: { command: ["vllm", "serve", MODEL, "--port", "{port}"] },
    idle: { command: ["vllm", "serve", MODEL, "--port", "{port}"], mode: "idle" },
  },
  loads: { calm: LOAD, other: { ...LOAD, start: "spawn" } },
};

describe("a specification", () => {
  test("takes variables from the environment, and has defaults", () => {
    const spec = parseSpec(SPEC, { MODEL: "some/model" });
    expect(spec.modes["idle"]?.command?.[2]).toBe("some/model");
    expect(spec).toMatchObject({
      baseline: "stock",
      runs: 1,
      endpoint: "completions",
      ignoreEos: true,
      textPrompts: false,
    });
    expect(spec.cells).toHaveLength(4);
  });

  test("runs all cells in turn, each round from another one on", () => {
    const cells = [
      { mode: "stock", load: "calm" },
      { mode: "idle", load: "calm", runs: 1 },
      { mode: "idle", load: "other" },
    ];
    const spec = parseSpec({ ...SPEC, runs: 2, cells }, { MODEL: "m" });
    expect(spec.cells.map(({ mode, load, run }) => `${mode} ${load} ${run}`)).toEqual([
      "stock calm 1",
      "idle calm 1",
      "idle other 1",
      "idle other 2",
      "stock calm 2",
    ]);
  });

  const changed = (change: object) => ({ ...SPEC, ...change });
  const load = (change: object) => changed({ loads: { calm: { ...LOAD, ...change } } });
  const mode = (change: object) => changed({ modes: { stock: change } });

  test.for<[unknown, string]>([
    [undefined, "Expected spec to be an object, got nothing."],
    [changed({ modes: {} }), "Expected spec.modes to be an object with at least one entry"],
    [changed({ modes: { "a/b": { simulated: {} } } }), 'got "a/b"'],
    [changed({ baseline: "lazy" }), "Expected spec.baseline to be one of stock, idle"],
    [changed({ runs: 0 }), "Expected spec.runs to be a whole number from 1 to 1000, got 0."],
    [changed({ rus: 1 }), 'Expected spec to have the field runs, got "rus".'],
    [changed({ cells: [{ mode: "stock", load: "no" }] }), "spec.cells[0].load to be one of calm"],
    [load({ requestRate: 0 }), "spec.loads.calm.requestRate to be a number from 0.0001 to 10000"],
    [load({ requestRate: 1e9 }), "spec.loads.calm.requestRate to be a number from"],
    [load({ arrivals: "never" }), "one of constant, poisson, gamma, ramp, trace"],
    [load({ arrivals: "trace" }), "spec.loads.calm.trace to be given"],
    [load({ arrivals: "ramp" }), "rampUpStartRps and rampUpEndRps"],
    [load({ seconds: undefined }), "numPrompts or seconds, else it never ends"],
    [load({ inputLen: [9, 3] }), "spec.loads.calm.inputLen"],
    [load({ burstiness: -1 }), "spec.loads.calm.burstiness"],
    [mode({}), "one of command, simulated and url"],
    [mode({ command: ["vllm", "serve"] }), "a command with {port}"],
    [mode({ url: "ftp://x" }), "an http:// or https:// URL"],
    [mode({ url: "http://x", mode: "idle" }), "no engine is started"],
    [mode({ simulated: {}, controller: {} }), "stock has none"],
    [mode({ simulated: {}, mode: "idle", controller: { heartbeatMs: 0 } }), "heartbeatMs"],
    [mode({ simulated: {}, mode: "idle", controller: { nonsense: 0 } }), "nonsense"],
    [mode({ simulated: { jitter: 2 } }), "spec.modes.stock.simulated.jitter"],
    [mode({ simulated: {}, env: { A: "b" } }), "env.A only of engines in real time"],
    [
      mode({ simulated: {}, mode: "idle", controller: { reserve: "top" } }),
      'controller.reserve only of engines in real time: it has no effect in virtual time. Leave it out, or add "realTime": true',
    ],
    [
      mode({ simulated: {}, mode: "idle", controller: { plan: true } }),
      "controller.plan only of engines in real time",
    ],
  ])("%# says in a sentence what is wrong", ([value, sentence]) => {
    expect(() => parseSpec(value, { MODEL: "m" })).toThrow(sentence);
  });

  test("a variable that isn't set is named", () => {
    expect(() => parseSpec(SPEC, {})).toThrow("Expected the variable MODEL to be set");
  });
});
