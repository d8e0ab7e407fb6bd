/** bench/gpu/families.sh against stand-ins: what is run, kept, left and summed up. */

import { spawn } from "node:child_process";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeEach, describe, expect, test } from "vitest";
import type { StartResult } from "../../bench/gpu/lib/family-result.ts";
import type { CompilationRecord } from "../../src/bench/samples.ts";
import { temporaryFolder } from "../helpers/folder.ts";

const root = new URL("../../", import.meta.url).pathname;
const fake = `python3 ${join(root, "worker/tests/fake_stream_serve.py")}`;
const TEST_MS_MAX = 120_000;
const FAMILY = {
  name: "small",
  shape: "/models/small",
  starts: { stock: 1, "stock-plan": 1, lazy: 1, idle: 1 },
  parity: { rate: 20, seconds: 1, rounds: 1 },
  verify: true,
};
let folder: string;

beforeEach(async () => {
  folder = await temporaryFolder();
  writeFileSync(join(folder, "spec.json"), JSON.stringify({ families: [FAMILY] }));
});

interface Ended {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

function families(env: NodeJS.ProcessEnv = {}): Promise<Ended> {
  return new Promise((resolve) => {
    const child = spawn("bash", [join(root, "bench/gpu/families.sh"), folder], {
      cwd: root,
      env: {
        ...process.env,
        ...{ SPEC: join(folder, "spec.json"), VLLM_SERVE: `${fake} serve`, LAZYGRAPH: fake },
        ...{ LEVELS: "1,2", REPETITIONS: "1" },
        ...env,
      },
    });
    let [out, err] = ["", ""];
    child.stdout.on("data", (data) => (out += data));
    child.stderr.on("data", (data) => (err += data));
    child.on("close", (code) => resolve({ code, out, err }));
  });
}

function cells(): string[] {
  return readdirSync(join(folder, "cells"))
    .filter((file) => file.endsWith(".json") || file.endsWith(".failed"))
    .sort();
}

function read<T>(file: string): T {
  return JSON.parse(readFileSync(join(folder, file), "utf8")) as T;
}

describe("families.sh", () => {
  test(
    "every cell leaves its figures, and what is there is not run again",
    async () => {
      const { code, err } = await families();
      expect(err).not.toContain("FAILED");
      expect(code).toBe(0);
      expect(cells()).toEqual([
        "small.parity.0.idle.json",
        "small.parity.0.lazy.json",
        "small.parity.0.stock.json",
        "small.start.0.idle.json",
        "small.start.0.lazy.json",
        "small.start.0.stock-plan.json",
        "small.start.0.stock.json",
        "small.start.warm.stock.json",
        "small.verify.0.idle.json",
      ]);
      const stock = read<StartResult>("cells/small.start.0.stock.json");
      expect(stock.timing).toMatchObject({ profileSeconds: 2, allCaptureSeconds: 4 });
      expect(stock.kvTokens).toBe(913_456);
      expect(stock.deviceToFirstTokenSeconds).toBeGreaterThan(0);
      expect(stock.deviceToFirstTokenSeconds).toBeLessThan(stock.spawnToFirstTokenSeconds);
      expect(stock.decode.map(({ concurrent }) => concurrent)).toEqual([1, 2]);
      // The engine's own steps, of 2 ms and whatever this machine adds.
      expect(stock.decode[0]?.stepMs).toEqual([expect.any(Number)]);
      expect(stock.decode[0]?.stepMs?.[0]).toBeGreaterThanOrEqual(2);
      const idle = read<StartResult>("cells/small.start.0.idle.json");
      expect(idle.timing.allCaptureSeconds).toBeCloseTo(0.04);
      expect(idle.ours).toMatchObject({
        graphsPlanned: 4,
        graphsAtReady: 1,
        graphsBeforeDecode: 4,
      });
      // All four graphs, as they were forecast at ready and as they came.
      expect(idle.ours).toMatchObject({ forecastBytes: 4 << 20, takenBytes: 4 << 20 });
      const parity = read<{ loadSeconds: number; requests: object[] }>(
        "cells/small.parity.0.stock.json",
      );
      const ours = read<{ readySeconds: number }>("cells/small.parity.0.idle.json");
      expect(parity.loadSeconds).toBeCloseTo(ours.readySeconds);
      expect(parity.requests.length).toBeGreaterThan(5);
      // What held requests up: kernels that were compiled after ready, and captures of ours.
      const [stalls, unheld] = ["idle", "stock"].map((arm) =>
        read<{ compilations: CompilationRecord[] }>(`cells/small.parity.0.${arm}.json`),
      );
      expect(stalls).toMatchObject({ ours: { graphsPlanned: 4, longestCaptureMs: 20 } });
      expect(unheld).not.toHaveProperty("ours");
      const lasted = stalls?.compilations.map(({ startSeconds, endSeconds }) =>
        Math.round((endSeconds - startSeconds) * 10),
      );
      expect(lasted).toEqual([5]);
      const verified = read<{ report: object }>("cells/small.verify.0.idle.json");
      expect(verified.report).toMatchObject({ graphs: 4, bitForBit: 4 });
      expect(read<{ cells: object[] }>("families.json").cells).toHaveLength(8);
      const again = await families({ VLLM_SERVE: "/nowhere" });
      expect(again.err).toContain("8 cells, 0 failed");
    },
    TEST_MS_MAX,
  );

  test(
    "no cell is started that the time left doesn't hold",
    async () => {
      const { err } = await families({ SECONDS_MAX: "30" });
      expect(cells()).toEqual([]);
      expect(err).toContain("small.start.0.stock: left, ");
    },
    TEST_MS_MAX,
  );

  test(
    "a server that isn't ready in its time costs no more than that",
    async () => {
      const stuck = join(folder, "stuck");
      writeFileSync(stuck, "#!/bin/sh\nexec sleep 600\n", { mode: 0o755 });
      const one = { VLLM_SERVE: stuck, CELLS: ".start.0.stock." };
      await families({ ...one, READY_WITHIN: "1" });
      const [{ reason }] = read<{ failed: [{ reason: string }] }>("families.json").failed;
      expect(reason).toContain("expected it ready within 1 s");
    },
    TEST_MS_MAX,
  );

  test(
    "a family that fails twice is left, with its reasons",
    async () => {
      const { err } = await families({ FAKE_DIES: "1", CELLS: ".start.0." });
      expect(cells()).toHaveLength(2);
      expect(cells().every((file) => file.endsWith(".failed"))).toBe(true);
      const [{ reason }] = read<{ failed: [{ reason: string }] }>("families.json").failed;
      expect(reason).toContain("it ended with code 1");
      expect(err).toContain("0 cells, 2 failed");
    },
    TEST_MS_MAX,
  );

  test(
    "LIST tells what is open and runs nothing",
    async () => {
      const { out } = await families({ LIST: "1", CELLS: ".parity." });
      expect(out).toContain("small.parity.0.idle\t");
      expect(out).not.toContain("start");
      expect(cells()).toEqual([]);
    },
    TEST_MS_MAX,
  );

  test(
    "an unknown family is told by name",
    async () => {
      const { code, err } = await families({ FAMILIES: "smal" });
      expect(code).toBe(1);
      expect(err).toContain("Expected FAMILIES to be of small, got smal.");
    },
    TEST_MS_MAX,
  );
});
