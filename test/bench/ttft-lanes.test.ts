/** The matrix in lanes: which cell comes next, and two lanes of simulated engines in one folder. */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { describe, expect, onTestFinished, test } from "vitest";
import {
  cellSeconds,
  cellSecondsMax,
  coreShares,
  coresOf,
  matrixSeconds,
  nextCell,
} from "../../bench/gpu/ttft-plan.ts";
import type { RunHead } from "../../src/bench/samples.ts";
import { type CellName, parseSpec } from "../../src/bench/spec.ts";
import { readHeads, readRun } from "../../src/bench/store.ts";
import { MAIN, SIMULATED_ENGINE } from "../helpers/built.ts";
import { temporaryFolder } from "../helpers/folder.ts";
import { quickProfile } from "./helpers/profile.ts";

const ROOT = new URL("../../", import.meta.url).pathname;
const SLOW = { timeout: 240_000 };

describe("the plan of a matrix", () => {
  const spec = parseSpec({
    ...{ readySecondsMax: 100, requestSecondsMax: 30 },
    modes: { stock: { simulated: {} }, idle: { simulated: {}, mode: "idle" } },
    loads: {
      long: { arrivals: "constant", requestRate: 1, seconds: 100 },
      spawn: { arrivals: "constant", requestRate: 1, seconds: 60, start: "spawn" },
    },
  });
  const cell = (mode: string, load: string, run = 1): CellName => ({ mode, load, run });

  test("a cell's seconds: its start, its load and its end; or what it took before", () => {
    expect(cellSeconds(spec, cell("stock", "long"), 48)).toBe(160);
    // What is due before ready waits, and takes no time of its own.
    expect(cellSeconds(spec, cell("stock", "spawn"), 48)).toBe(72);
    expect(cellSeconds(spec, cell("stock", "spawn"), 90)).toBe(102);
    const head = { cell: cell("stock", "long", 2), times: { endSeconds: 130 } } as RunHead;
    expect(cellSeconds(spec, cell("stock", "long"), 48, [head])).toBe(142);
    expect(cellSeconds(spec, cell("idle", "long"), 48, [head])).toBe(160);
    expect(cellSecondsMax(spec, cell("stock", "long"))).toBe(290);
  });

  test("the first cell that still fits is next, and none when none does", () => {
    const open = [cell("stock", "long"), cell("stock", "spawn")];
    const seconds = (one: CellName): number => cellSeconds(spec, one, 48);
    expect(nextCell(open, Number.POSITIVE_INFINITY, seconds)).toBe(open[0]);
    expect(nextCell(open, 159, seconds)).toBe(open[1]);
    expect(nextCell(open, 60, seconds)).toBeUndefined();
    expect(nextCell([], 999, seconds)).toBeUndefined();
  });

  test("a mode doesn't keep to one GPU", () => {
    const open = [cell("stock", "long", 2), cell("idle", "long", 2), cell("idle", "spawn")];
    const seconds = (): number => 1;
    const stockWasHere = ({ mode }: CellName): number => (mode === "stock" ? 1 : 0);
    expect(nextCell(open, 9, seconds, stockWasHere)).toBe(open[1]);
    expect(nextCell(open, 9, seconds, () => 1)).toBe(open[0]);
    // It has the last word where nothing else is left.
    expect(nextCell(open.slice(0, 1), 9, seconds, stockWasHere)).toBe(open[0]);
  });

  test("two lanes take turns", () => {
    const cells = [cell("stock", "long"), cell("stock", "spawn"), cell("idle", "spawn")];
    const seconds = (one: CellName): number => (one.load === "long" ? 160 : 72);
    expect(matrixSeconds(cells, 1, seconds)).toBe(304);
    expect(matrixSeconds(cells, 2, seconds)).toBe(160);
    expect(matrixSeconds([], 2, seconds)).toBe(0);
  });

  test("each lane has its own cores, neighbours", () => {
    expect(coresOf("0-3,8,10-11\n")).toEqual([0, 1, 2, 3, 8, 10, 11]);
    expect(coreShares([0, 1, 2, 3, 8], 2)).toEqual([
      [0, 1],
      [2, 3],
    ]);
    expect(coreShares([0], 2)).toEqual([[], []]);
  });

  test("the matrices of this repository are sound, and their cells have an end", async () => {
    const environment = {
      VLLM_SERVE: "s",
      MODEL: "m",
      SERVE_ARGS: "",
      TRACE: "t",
      POLICY: "costed",
    };
    for (const name of ["ttft", "ttft-simulated", "agreement"]) {
      const text = await readFile(join(ROOT, "bench", "gpu", `${name}.json`), "utf8");
      const made = parseSpec(JSON.parse(text), environment);
      expect(made.cells.length).toBeGreaterThan(0);
      for (const one of made.cells) expect(made.loads[one.load]?.seconds).toBeGreaterThan(0);
    }
  });
});

interface Matrix {
  readonly folder: string;
  readonly file: string;
}

/** Engines that name their GPU in their log. */
async function matrixOf(cells: readonly object[]): Promise<Matrix> {
  const base = await temporaryFolder();
  const file = join(base, "spec.json");
  const profile = await quickProfile();
  const engine = [process.execPath, SIMULATED_ENGINE, "--http=127.0.0.1:{port}"];
  const named = 'echo "gpu=$CUDA_VISIBLE_DEVICES"; exec "$0" "$@"';
  const command = ["sh", "-c", named, ...engine, `--profile=${profile}`, "--sizes=1,2"];
  const spec = {
    ...{ readySecondsMax: 120, requestSecondsMax: 60 },
    modes: {
      stock: { command },
      hung: { command: ["sh", "-c", "sleep 600 # {port}"] },
      idle: { command, mode: "idle" },
    },
    loads: {
      calm: { arrivals: "constant", requestRate: 50, numPrompts: 10, outputLen: 3 },
      endless: { arrivals: "constant", requestRate: 50, seconds: 600, outputLen: 3 },
    },
    cells,
  };
  await writeFile(file, JSON.stringify(spec));
  return { folder: join(base, "results"), file };
}

interface Started {
  readonly child: ChildProcess;
  /** Resolves with the first line that matches. */
  line(pattern: RegExp): Promise<string>;
  readonly ended: Promise<number | null>;
  readonly lines: readonly string[];
}

function lanes({ file, folder }: Matrix, env: NodeJS.ProcessEnv = {}): Started {
  const child = spawn(
    process.execPath,
    ["--import", "tsx", join(ROOT, "bench", "gpu", "ttft.ts"), file, folder],
    {
      cwd: ROOT,
      env: {
        ...process.env,
        ...{ GPUS: "0,1", BENCH_CLI: MAIN },
        ...env,
      },
      stdio: ["ignore", "ignore", "pipe"],
    },
  );
  onTestFinished(() => {
    child.kill("SIGTERM");
  });
  const lines: string[] = [];
  const reader = createInterface({ input: child.stderr as NonNullable<typeof child.stderr> });
  reader.on("line", (line) => lines.push(line));
  const ended = Promise.all([once(child, "exit"), once(reader, "close")]).then(
    ([[code]]) => code as number | null,
  );
  const line = async (pattern: RegExp): Promise<string> => {
    for (;;) {
      const found = lines.find((text) => pattern.test(text));
      if (found !== undefined) return found;
      const next = await Promise.race([once(reader, "line"), ended.then(() => undefined)]);
      if (next === undefined && !lines.some((text) => pattern.test(text))) {
        throw new Error(`ended without ${pattern}: ${lines.join("\n")}`);
      }
    }
  };
  return { child, line, ended, lines };
}

async function statuses(folder: string): Promise<Record<string, string>> {
  const heads = await readHeads(folder);
  return Object.fromEntries(
    heads.map(({ cell, status }) => [`${cell.mode}/${cell.load}/${cell.run}`, status]),
  );
}

describe("two lanes in one folder", () => {
  test("every cell once, each lane on its own GPU; then nothing is left", SLOW, async () => {
    const matrix = await matrixOf([
      { mode: "stock", load: "calm", runs: 3 },
      { mode: "idle", load: "calm", runs: 2 },
    ]);
    const first = lanes(matrix);
    expect(await first.ended, first.lines.join("\n")).toBe(0);
    expect(new Set(Object.values(await statuses(matrix.folder)))).toEqual(new Set(["complete"]));
    expect(Object.keys(await statuses(matrix.folder))).toHaveLength(5);
    const gpus = new Set<string>();
    for (const head of await readHeads(matrix.folder)) {
      const { mode, load, run } = head.cell;
      const log = await readFile(join(matrix.folder, "runs", `${mode}~${load}~${run}.log`), "utf8");
      const gpu = /^gpu=(.*)$/m.exec(log)?.[1] ?? "";
      gpus.add(gpu);
      expect(head.host.visibleDevices).toBe(gpu);
      expect((await readRun(matrix.folder, head)).requests.length).toBeGreaterThanOrEqual(10);
    }
    expect(gpus).toEqual(new Set(["0", "1"]));
    const again = lanes(matrix);
    expect(await again.ended).toBe(0);
    expect(again.lines).toEqual(["5 of 5 cells are complete."]);
  });

  test("a start that hangs is stopped, and its lane goes on", SLOW, async () => {
    const matrix = await matrixOf([
      { mode: "hung", load: "calm" },
      { mode: "stock", load: "calm", runs: 2 },
    ]);
    const text = await readFile(matrix.file, "utf8");
    // Long enough for a simulated engine on a busy host, which needs no time to load.
    await writeFile(matrix.file, text.replace('"readySecondsMax":120', '"readySecondsMax":30'));
    const run = lanes(matrix, { GPUS: "0" });
    expect(await run.ended).toBe(1);
    expect(await statuses(matrix.folder)).toEqual({
      "hung/calm/1": "partial",
      "stock/calm/1": "complete",
      "stock/calm/2": "complete",
    });
    expect(run.lines.at(-1)).toBe("2 of 3 cells are complete.");
  });

  test("a stop keeps complete cells, and a second call does the rest", SLOW, async () => {
    const matrix = await matrixOf([
      { mode: "stock", load: "calm" },
      { mode: "stock", load: "endless" },
    ]);
    const run = lanes(matrix);
    await run.line(/stock\/calm\/1 complete/);
    // A second process is kept out while the first is there.
    const second = lanes(matrix);
    expect(await second.ended).toBe(1);
    expect(second.lines.join()).toMatch(/nobody else to run cells/);
    const file = join(matrix.folder, "runs", "stock~calm~1.ndjson.gz");
    const before = await stat(file);
    run.child.kill("SIGTERM");
    expect(await run.ended).toBe(1);
    const now = await statuses(matrix.folder);
    expect(now["stock/calm/1"]).toBe("complete");
    expect(now["stock/endless/1"]).not.toBe("complete");
    expect((await stat(file)).mtimeMs).toBe(before.mtimeMs);
    expect(await readdir(matrix.folder)).not.toContain("lanes.pid");
    const third = lanes(matrix, { ONLY: "*/calm" });
    expect(await third.ended).toBe(0);
    expect((await stat(file)).mtimeMs).toBe(before.mtimeMs);
  });

  test(
    "no cell is started that doesn't fit into the time, and LIST starts none",
    SLOW,
    async () => {
      const matrix = await matrixOf([{ mode: "stock", load: "endless" }]);
      const short = lanes(matrix, { SECONDS_MAX: "60" });
      expect(await short.ended).toBe(0);
      expect(short.lines).toEqual(["0 of 1 cells are complete."]);
      const listed = lanes(matrix, { LIST: "1" });
      expect(await listed.ended).toBe(0);
      expect(await statuses(matrix.folder)).toEqual({});
      const wrong = lanes(matrix, { SECONDS_MAX: "soon" });
      expect(await wrong.ended).toBe(2);
      expect(wrong.lines.join()).toMatch(/Expected SECONDS_MAX to be a number above 0, got "soon"/);
    },
  );
});
