/**
 * Runs the cells of a matrix in lanes, one on each GPU named, into one folder (`ttft.sh` starts it).
 *
 *   node --import tsx bench/gpu/ttft.ts SPEC_FILE RESULTS_FOLDER
 *
 * Each cell is a `lazygraph bench` of its own, with its GPU and its share of the cores. One process
 * hands out the cells, so that no two lanes take the same, and a lock keeps a second such process
 * out. A cell whose limit is over is stopped and left partial, and its lane goes on. The benchmark
 * of a cell is told to end when this process dies, however it dies. BENCH_CLI names another entry
 * than the built one.
 */

import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { requireSame } from "../../src/bench/matrix.ts";
import type { RunHead } from "../../src/bench/samples.ts";
import { type BenchSpec, type CellName, parseSpec } from "../../src/bench/spec.ts";
import { readHead } from "../../src/bench/store.ts";
import {
  cellSeconds,
  cellSecondsMax,
  coreShares,
  coresOf,
  matrixSeconds,
  nextCell,
} from "./ttft-plan.ts";

const [specFile, folder] = process.argv.slice(2);
if (specFile === undefined || folder === undefined) {
  console.error("usage: ttft.ts SPEC_FILE RESULTS_FOLDER (start it by ttft.sh)");
  process.exit(2);
}
const CLI = process.env["BENCH_CLI"] ?? new URL("../../dist/cli/main.js", import.meta.url).pathname;
const spec = parseSpec(JSON.parse(readFileSync(specFile, "utf8")), process.env);
/** Without GPUS there is one lane, with the environment as it is. */
const gpus = (process.env["GPUS"] ?? "").split(",").filter((gpu) => gpu !== "");
const lanes = Math.max(1, gpus.length);
const startSeconds = number("START_SECONDS", 56);
const deadlineMs = performance.now() + number("SECONDS_MAX", Number.POSITIVE_INFINITY) * 1000;
const cellsMax = number("CELLS", Number.POSITIVE_INFINITY);
/** A lane whose cells fail one after the other would only burn the GPU's time. */
const FAILURES_MAX = 2;
const SAME_SIGNAL_MS = 1000;
/** A benchmark ends its engine within half a minute; asked again it kills it. */
const STOP_MS = 40_000;

function number(name: string, fallback: number): number {
  const text = process.env[name] ?? "";
  if (text === "") return fallback;
  const value = Number(text);
  if (value > 0) return value;
  console.error(`Expected ${name} to be a number above 0, got ${JSON.stringify(text)}.`);
  process.exit(2);
}

function nameOf({ mode, load, run }: CellName): string {
  return `${mode}/${load}/${run}`;
}

function isWanted(cell: CellName): boolean {
  const [mode = "*", load = "*", run = "*"] = (process.env["ONLY"] ?? "*").split("/");
  const fits = (wanted: string, got: string): boolean => wanted === "*" || wanted === got;
  return fits(mode, cell.mode) && fits(load, cell.load) && fits(run, String(cell.run));
}

class Lanes {
  readonly #open: CellName[];
  readonly #past: RunHead[];
  readonly #children = new Set<ChildProcess>();
  #taken = 0;
  #failed = 0;
  /** When it was last told to stop, by `performance.now()`. */
  #stoppedMs: number | undefined;

  constructor(open: readonly CellName[], past: readonly RunHead[]) {
    this.#open = [...open];
    this.#past = [...past];
  }

  get failed(): number {
    return this.#failed;
  }

  /** Takes no more cells and ends those under way, which stay partial. */
  stop(): void {
    const now = performance.now();
    // One interrupt may come twice, from the terminal and from the shell; a later one is meant.
    if (now - (this.#stoppedMs ?? Number.NEGATIVE_INFINITY) < SAME_SIGNAL_MS) return;
    this.#stoppedMs = now;
    for (const child of this.#children) child.kill("SIGTERM");
  }

  async run(lane: number): Promise<void> {
    let failures = 0;
    while (this.#stoppedMs === undefined && failures < FAILURES_MAX) {
      const cell = this.#take(lane);
      if (cell === undefined) return;
      const head = await this.#runCell(lane, cell);
      if (head?.status === "complete") {
        this.#past.push(head);
        failures = 0;
      } else {
        this.#failed++;
        failures++;
      }
    }
    if (failures >= FAILURES_MAX) {
      console.error(`lane ${lane}: ${failures} cells in a row failed; no more are started there.`);
    }
  }

  /** Between the look and the taking nothing else runs: two lanes never get the same cell. */
  #take(lane: number): CellName | undefined {
    if (this.#taken >= cellsMax) return undefined;
    const secondsLeft = (deadlineMs - performance.now()) / 1000;
    const secondsOf = (cell: CellName): number => cellSeconds(spec, cell, startSeconds, this.#past);
    const runsHere = ({ mode, load }: CellName): number =>
      this.#past.filter(
        ({ cell, host }) =>
          cell.mode === mode && cell.load === load && host.visibleDevices === gpus[lane],
      ).length;
    const cell = nextCell(this.#open, secondsLeft, secondsOf, lanes > 1 ? runsHere : undefined);
    if (cell === undefined) return undefined;
    this.#open.splice(this.#open.indexOf(cell), 1);
    this.#taken++;
    return cell;
  }

  async #runCell(lane: number, cell: CellName): Promise<RunHead | undefined> {
    const name = nameOf(cell);
    console.error(`lane ${lane}: ${name} (${this.#open.length} more wait)`);
    const startedMs = performance.now();
    const child = start(lane, cell);
    this.#children.add(child);
    const stops = stopLate(child, cellSecondsMax(spec, cell) * 1000, name);
    try {
      await once(child, "exit");
    } catch (error) {
      // A command that can't be started: the cell is left open, like one that failed.
      console.error(`lane ${lane}: ${name}: ${String(error)}`);
    } finally {
      stops();
      this.#children.delete(child);
    }
    const head = await readHead(folder as string, cell).catch(() => undefined);
    const took = ((performance.now() - startedMs) / 1000).toFixed(0);
    const ready = head?.times.readySeconds?.toFixed(1);
    const why = head?.reason ?? (head?.status === "complete" ? "" : `see lane-${lane}.log`);
    const readyText = ready === undefined ? "" : `, ready at ${ready} s`;
    console.error(
      `lane ${lane}: ${name} ${head?.status ?? "failed"} in ${took} s${readyText} ${why}`,
    );
    return head;
  }
}

/** The cell's own process: its output goes to a file, so that a pipe can't hold it up. */
function start(lane: number, cell: CellName): ChildProcess {
  const own = [
    ...[process.execPath, CLI, "bench", "--spec", specFile as string, "--out", folder as string],
    ...["--only", nameOf(cell), "--no-report"],
  ];
  const pinned = lanes > 1 && CORES[lane] !== undefined ? ["taskset", "-c", CORES[lane]] : [];
  const tied = HAS_SETPRIV ? ["setpriv", "--pdeathsig", "TERM", "--"] : [];
  const [file = "", ...args] = [...tied, ...pinned, ...own];
  const log = openSync(join(folder as string, `lane-${lane}.log`), "a");
  const gpu = gpus[lane];
  const env = gpu === undefined ? process.env : { ...process.env, CUDA_VISIBLE_DEVICES: gpu };
  try {
    // Its own group: an interrupt from the terminal would reach it twice, which means "at once".
    return spawn(file, args, { env, detached: true, stdio: ["ignore", log, log] });
  } finally {
    closeSync(log);
  }
}

/** @returns what calls it off */
function stopLate(child: ChildProcess, ms: number, name: string): () => void {
  const timers = [
    setTimeout(() => {
      console.error(`${name}: stopped, its limit of ${(ms / 1000).toFixed(0)} s is over`);
      child.kill("SIGTERM");
    }, ms),
    // The second signal kills the engine's whole group and ends the benchmark.
    setTimeout(() => child.kill("SIGTERM"), ms + STOP_MS),
    setTimeout(() => child.kill("SIGKILL"), ms + STOP_MS + 10_000),
  ];
  return () => {
    for (const timer of timers) clearTimeout(timer);
  };
}

/** Cores of each lane as `taskset` takes them; undefined where there is none for each. */
function laneCores(): readonly (string | undefined)[] {
  if (spawnSync("taskset", ["--version"]).error !== undefined) return [];
  const status = readFileSync("/proc/self/status", "utf8");
  const list = /^Cpus_allowed_list:\s*(\S+)$/m.exec(status)?.[1] ?? "";
  return coreShares(coresOf(list), lanes).map((cores) =>
    cores.length === 0 ? undefined : cores.join(","),
  );
}

/** A second process here would hand out the same cells. */
function lock(): () => void {
  const file = join(folder as string, "lanes.pid");
  if (existsSync(file)) {
    const pid = Number(readFileSync(file, "utf8"));
    if (isAlive(pid)) {
      console.error(`Expected nobody else to run cells into ${folder}, got process ${pid}.`);
      process.exit(1);
    }
    rmSync(file, { force: true });
  }
  writeFileSync(file, String(process.pid), { flag: "wx" });
  return () => rmSync(file, { force: true });
}

/** Process numbers are used again: only one that runs this file counts. */
function isAlive(pid: number): boolean {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("ttft.ts");
  } catch {
    return false;
  }
}

async function look(cells: readonly CellName[]): Promise<[open: CellName[], past: RunHead[]]> {
  const open: CellName[] = [];
  const past: RunHead[] = [];
  for (const cell of cells) {
    const head = await readHead(folder as string, cell);
    if (head !== undefined) requireSame(spec, head, folder as string);
    if (head?.status === "complete") past.push(head);
    else open.push(cell);
  }
  return [open, past];
}

function printPlan(all: BenchSpec["cells"], open: readonly CellName[], past: RunHead[]): void {
  const secondsOf = (cell: CellName): number => cellSeconds(spec, cell, startSeconds, past);
  const rows = new Map<string, { runs: number; seconds: number }>();
  for (const cell of open) {
    const key = `${cell.mode}/${cell.load}`;
    const row = rows.get(key) ?? { runs: 0, seconds: 0 };
    rows.set(key, { runs: row.runs + 1, seconds: row.seconds + secondsOf(cell) });
  }
  for (const [name, { runs, seconds }] of rows) {
    console.log(`${name.padEnd(32)} ${runs} × ${(seconds / runs).toFixed(0)} s`);
  }
  const total = matrixSeconds(open, lanes, secondsOf);
  console.log(
    `${open.length} of ${all.length} cells open; about ${total.toFixed(0)} s ` +
      `(${(total / 60).toFixed(0)} min) with ${lanes} at once and starts of ${startSeconds} s`,
  );
}

const wanted = spec.cells.filter(isWanted);
if (wanted.length === 0) {
  console.error(`Expected ONLY to match a cell, got ${JSON.stringify(process.env["ONLY"])}.`);
  process.exit(2);
}
mkdirSync(join(folder, "runs"), { recursive: true });
const [open, past] = await look(wanted);
if (process.env["LIST"] !== undefined) {
  printPlan(wanted, open, past);
  process.exit(0);
}
const CORES = laneCores();
const HAS_SETPRIV = spawnSync("setpriv", ["--version"]).error === undefined;
const unlock = lock();
const work = new Lanes(open, past);
for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.on(name, () => {
    console.error(`${name}: the cells under way end as partial; complete ones are kept.`);
    work.stop();
  });
}
try {
  await Promise.all(Array.from({ length: lanes }, (_, lane) => work.run(lane)));
} finally {
  unlock();
}
const [left] = await look(wanted);
console.error(`${wanted.length - left.length} of ${wanted.length} cells are complete.`);
process.exitCode = work.failed > 0 ? 1 : 0;
