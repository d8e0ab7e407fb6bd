import { spawn } from "node:child_process";
import { once } from "node:events";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { MAIN } from "../helpers/built.ts";

const checkout = fileURLToPath(new URL("../..", import.meta.url));

async function demo(...options: string[]) {
  const child = spawn(process.execPath, [MAIN, "demo", ...options], {
    cwd: checkout,
    stdio: ["ignore", "pipe", "pipe"],
  });
  const [stdout, stderr, [exitCode]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, "exit"),
  ]);
  return { stdout, stderr, exitCode };
}

interface Run {
  readonly captureBeforeReadySeconds: number;
  readonly ttftSeconds: { readonly p50: number; readonly p99: number; readonly max: number };
  readonly graphsCaptured: number;
  readonly graphsPlanned: number;
  readonly requests: number;
}

describe("the demo", () => {
  test("--json prints one document and nothing else on stdout", { timeout: 120_000 }, async () => {
    const { stdout, stderr, exitCode } = await demo("--json", "--requests", "50", "--speed", "60");
    expect(stderr).toContain("The engine is SIMULATED");
    expect(exitCode).toBe(0);
    expect(stdout.endsWith("\n")).toBe(true);
    const document = JSON.parse(stdout) as { modes: Record<string, Run> };
    expect(Object.keys(document)).toEqual(["simulated", "profile", "modes"]);
    expect(document).toMatchObject({ simulated: true, profile: "llama-3.1-8b-h200" });
    expect(Object.keys(document.modes)).toEqual(["eager", "lazy", "idle"]);
    for (const run of Object.values(document.modes)) {
      expect(Object.keys(run).sort()).toEqual([
        "captureBeforeReadySeconds",
        "graphsCaptured",
        "graphsPlanned",
        "requests",
        "ttftSeconds",
      ]);
      expect(Object.keys(run.ttftSeconds)).toEqual(["p50", "p99", "max"]);
      expect(run.requests).toBe(50);
      expect(run.graphsPlanned).toBe(102);
      expect(run.ttftSeconds.p50).toBeGreaterThan(0);
      expect(run.ttftSeconds.p50).toBeLessThanOrEqual(run.ttftSeconds.p99);
      // The first request comes with the process and waits for its start.
      expect(run.ttftSeconds.max).toBeGreaterThan(8);
    }
    const { eager, lazy, idle } = document.modes;
    expect([eager?.graphsCaptured, idle?.graphsCaptured]).toEqual([102, 102]);
    expect(eager?.captureBeforeReadySeconds).toBeCloseTo(1.854, 3);
    expect(lazy?.captureBeforeReadySeconds).toBeCloseTo(0.0872, 3);
    expect(idle?.captureBeforeReadySeconds).toBeCloseTo(0.0872, 3);
  });

  test("ends with a table that says what it is and where it comes from", {
    timeout: 120_000,
  }, async () => {
    const { stdout, stderr, exitCode } = await demo("--requests", "3", "--speed", "60");
    expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
    for (const words of [
      "SIMULATED",
      "capture before ready",
      "TTFT p99",
      "102 of 102",
      "one NVIDIA H200",
      "Estimated in this profile: steps.piecewise",
      "Assumed in this profile: startupSeconds (8 s in every mode; it makes up most of the rows with *)",
      "start to ready *",
      "TTFT max *",
      "AzureLLMInferenceTrace_conv 2023",
      "CC-BY 4.0",
    ]) {
      expect(stdout).toContain(words);
    }
  });

  test.each([
    [["--requests", "0"], 'Expected --requests to be a whole number from 1 to 2000, got "0".'],
    [["--speed", "fast"], 'Expected --speed to be a number from 0.1 to 100, got "fast".'],
    [
      ["--profile", "nope"],
      "Profile nope: expected the file to be the name of a shipped profile (llama-3.1-8b-h200, llama-3.1-8b-h200-serve) or the path of a .json file, got ENOENT: there is no such file, so check its name.",
    ],
    [
      ["--trace", "nope.csv"],
      "Expected nope.csv to be a readable trace file, got ENOENT: there is no such file, so check its name.",
    ],
    [["--jsn"], 'got the unknown option "--jsn": did you mean --json?'],
  ])("%j is a usage error of one sentence", async (options, sentence) => {
    const { stdout, stderr, exitCode } = await demo(...options);
    expect(stderr).toContain(sentence);
    expect(stderr.trim().split("\n")).toHaveLength(1);
    expect(stdout).toBe("");
    expect(exitCode).toBe(2);
  });
});
