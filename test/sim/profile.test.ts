import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { readResult } from "../../bench/lib/result-file.ts";
import { frontEndSeconds } from "../../src/calibrate/front-end.ts";
import { type CellFigures, planeSlopes } from "../../src/calibrate/robust-fit.ts";
import type { Wave } from "../../src/calibrate/waves.ts";
import { loadProfile, parseProfile } from "../../src/profile/load.ts";
import { createCostModel } from "../../src/sim/model/cost.ts";
import { set, tinyDocument } from "./helpers.ts";

/** Measured decode steps of the 8B: requests; milliseconds by exact graph, ungraphed, padded. */
const MEASURED = [
  [1, 4.9, 9.9, 13.2],
  [3, 4.9, 10.8, 13.2],
  [8, 5.0, 9.6, 13.3],
  [20, 5.5, 10.0, 13.5],
  [64, 5.8, 10.5, 13.7],
  [100, 6.3, 11.0, 14.4],
  [256, 9.9, 11.8, 15.2],
  [500, 16.8, 17.1, 16.9],
] as const;

describe("the shipped profile", () => {
  const profile = loadProfile();
  const costs = createCostModel(profile);
  const graphs = profile.captures.costs.map(({ graph }) => graph);

  test("has the 102 graphs of the measured engine, in stock's order", () => {
    expect(graphs).toHaveLength(102);
    expect(graphs[0]?.id).toBe("PIECEWISE:512");
    expect(graphs.at(-1)).toEqual({
      id: "FULL:1",
      kind: "FULL",
      tokens: 1,
      requests: 1,
      uniform: 1,
    });
  });

  test.each(MEASURED)("gives back the measured steps of %i requests within 8%%", (n, ...ms) => {
    const work = { tokens: n, requests: n, contextTokens: 0, promptPairs: 0 };
    const full = graphs.filter(({ kind }) => kind === "FULL");
    const sizes = full.filter(({ tokens }) => tokens >= n).map(({ tokens }) => tokens);
    const exact = full.find(({ tokens }) => tokens === Math.min(...sizes));
    const top = full.find(({ tokens }) => tokens === 512);
    const modelled = [exact, undefined, top].map((graph) => costs.stepSeconds(graph, work) * 1000);
    for (const [index, value] of modelled.entries()) {
      expect(Math.abs(value / (ms[index] ?? 0) - 1)).toBeLessThan(0.08);
    }
  });

  test("gives back the measured capture seconds before ready", () => {
    const all = graphs.reduce((sum, graph) => sum + costs.startSeconds(graph, true), 0);
    expect(all).toBeGreaterThan(2.8);
    expect(all).toBeLessThan(3);
    const tops = graphs.filter(({ tokens }) => tokens === 512);
    const seconds = tops.reduce((sum, graph) => sum + costs.startSeconds(graph, true), 0);
    expect(seconds).toBeCloseTo(0.0731, 4);
  });

  test("says where every number comes from", () => {
    const fields = Object.keys(profile.provenance);
    for (const name of Object.keys(profile.steps)) expect(fields).toContain(`steps.${name}`);
    for (const name of ["warmMs", "captureMs", "laterMs", "bytes"]) {
      expect(fields).toContain(`captures.rows.${name}`);
    }
    expect(profile.provenance["steps.piecewise"]?.kind).toBe("estimated");
    expect(profile.provenance["steps.secondsPerTokenBeyond"]?.kind).toBe("estimated");
  });
});

describe("the shipped profile of a calibration", () => {
  const profile = loadProfile("llama-3.1-8b-h200-serve");
  const file = new URL("../../profiles/llama-3.1-8b-h200-serve.json", import.meta.url);
  const { provenance } = JSON.parse(readFileSync(file, "utf8")) as {
    provenance: { cells: readonly (CellFigures & { cell: string })[]; waves: string };
  };
  const { waves: measured } = readResult<{
    waves: readonly (Wave & { seconds: readonly number[] })[];
  }>(new URL(`../../${provenance.waves}`, import.meta.url));

  test("says where every number comes from", () => {
    const fields = Object.keys(profile.provenance);
    for (const name of Object.keys(profile.steps)) expect(fields).toContain(`steps.${name}`);
    for (const name of Object.keys(profile.limits)) expect(fields).toContain(`limits.${name}`);
    expect(fields).toContain("frontEndSeconds");
  });

  test("has the slopes of its waves of long prompts", () => {
    const points = measured
      .filter(({ table, requests, outputTokens }) => {
        return table === "none" && requests === 1 && outputTokens === 1;
      })
      .filter(({ promptTokens }) => promptTokens > 512)
      .flatMap(({ promptTokens, seconds }) => {
        const x = [promptTokens, (promptTokens * (promptTokens + 1)) / 2] as const;
        return seconds.map((y) => ({ x, y, weight: 1 }));
      });
    expect(points).toHaveLength(30);
    const [perToken, perPair] = planeSlopes(points) ?? [];
    expect(Number(perToken?.toPrecision(4))).toBe(profile.steps.secondsPerTokenBeyond);
    expect(Number(perPair?.toPrecision(4))).toBe(profile.steps.secondsPerPromptPair);
  });

  test("has the front end of its waves of short ones", () => {
    const piecewise = provenance.cells
      .filter(({ cell }) => cell.startsWith("PIECEWISE:"))
      .map((cell) => ({ ...cell, tokens: Number(cell.cell.slice("PIECEWISE:".length)) }));
    const waves = measured.map(({ seconds, ...wave }) => ({ wave, seconds }));
    const steps = { ...profile.steps, full: [], piecewise, ungraphed: [] };
    expect(frontEndSeconds(waves, steps)).toBeCloseTo(profile.frontEndSeconds, 7);
    expect(profile.frontEndSeconds).toBeGreaterThan(0.004);
  });
});

test("a profile of before front ends and steps ahead were known has none", () => {
  const profile = loadProfile();
  expect(profile.frontEndSeconds).toBe(0);
  expect(profile.limits.stepsAhead).toBe(0);
});

describe("a bad profile is one sentence", () => {
  test.each([
    ["frontEndSeconds", -1, "frontEndSeconds to be a number from 0 up, got -1"],
    ["limits.stepsAhead", 2, "limits.stepsAhead to be 0 or 1, got 2"],
    ["limits.stepsAhead", "1", 'limits.stepsAhead to be 0 or 1, got "1"'],
    ["schema", 2, "schema to be 1, got 2"],
    ["name", undefined, "name to be a text of 1 to 2048 characters, got nothing"],
    ["startupSeconds", -1, "startupSeconds to be a number from 0 up, got -1"],
    ["startupSeconds", "8", 'startupSeconds to be a number from 0 up, got "8"'],
    ["limits.maxRequests", 0.5, "limits.maxRequests to be a whole number from 1 up, got 0.5"],
    ["memory.freeBytes", null, "memory.freeBytes to be a number from 0 up, got null"],
    ["steps.full", [], "steps.full to be a list of 1 to 4096 entries, got []"],
    ["steps.full", [[1, -2]], "steps.full[0][1] to be a number from 0 up, got -2"],
    ["steps.full", [[1, 0]], "steps.full[0][1] to be seconds above 0, got 0"],
    [
      "steps.full",
      [
        [4, 1],
        [4, 1],
      ],
      "steps.full[1][0] to be tokens above 4, got 4",
    ],
    [
      "steps.full",
      [
        [1, 1],
        [2, 2],
      ],
      "steps.full to be rows from 1 to 4 tokens, the sizes of its graphs, got rows from 1 to 2",
    ],
    ["steps.piecewise", undefined, "steps.piecewise to be a list"],
    ["steps.ungraphed", [[2, 1]], "steps.ungraphed to be rows from 1 token up"],
    ["captures.columns", ["kind"], "captures.columns to be"],
    [
      "captures.rows",
      [["HALF", 1, 1, 1, 1, 1]],
      'captures.rows[0][0] to be FULL or PIECEWISE, got "HALF"',
    ],
    [
      "captures.rows",
      [["FULL", 1, 1, -1, 1, 1]],
      "captures.rows[0][3] to be a number from 0 up, got -1",
    ],
    ["captures.withoutWarmUp", 1.5, "captures.withoutWarmUp to be a number from 0 to 1, got 1.5"],
    ["memory.freeBytes", 1001, "memory.freeBytes to be at most memory.totalBytes, 1000, got 1001"],
    [
      "steps.ungraphed",
      [
        [1, 1],
        [1e12, 1],
      ],
      "steps.ungraphed[1][0] to be a whole number from 1 to 1048576, got 1000000000000",
    ],
    [
      "captures.rows",
      [["FULL", 1, 1]],
      "captures.rows[0][3] to be a number from 0 up, got nothing",
    ],
    ["captures.rows", [], "captures.rows to be a list of 1 to 4096 entries, got []"],
    ["provenance.fields", { steps: { kind: "guessed", how: "x" } }, "provenance.fields.steps.kind"],
  ])("%s = %j", (path, value, sentence) => {
    const document = tinyDocument();
    set(document, path, value);
    expect(() => parseProfile(JSON.stringify(document), "mine.json")).toThrow(
      expect.objectContaining({
        code: "ERR_LAZYGRAPH_PROFILE",
        message: expect.stringContaining(`Profile mine.json: expected ${sentence}`),
      }),
    );
  });

  test("one graph twice", () => {
    const document = tinyDocument();
    const row = ["FULL", 1, 1, 1, 1, 1];
    set(document, "captures.rows", [row, row]);
    expect(() => parseProfile(JSON.stringify(document), "mine.json")).toThrow("FULL:1 again");
  });

  test("broken JSON is one line, whatever it looks like", () => {
    const broken = '{"schema": 1,\n "name": }';
    expect(() => parseProfile(broken, "mine.json")).toThrow(
      /^Profile mine\.json: expected the file to be JSON, got [^\n]+\.$/,
    );
  });

  test("no JSON, and no file", () => {
    expect(() => parseProfile("{", "mine.json")).toThrow(
      expect.objectContaining({ code: "ERR_LAZYGRAPH_PROFILE" }),
    );
    expect(() => loadProfile("no-such-profile")).toThrow(
      "Profile no-such-profile: expected the file to be the name of a shipped profile " +
        "(llama-3.1-8b-h200, llama-3.1-8b-h200-serve) or the path of a .json file, got ENOENT: there is no such file, so check its name.",
    );
  });
});
