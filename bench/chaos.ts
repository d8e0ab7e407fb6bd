/**
 * 200 faults to real processes over real sockets: a controller and three engines, the plugin's own
 * code without vLLM, under load, through a proxy that delays, swallows and cuts. Processes are
 * killed, stopped and restarted, one fault at a time; orders are given in between.
 *
 * Hypothesis: every order that was taken still holds, and the sessions are whole again within two
 * heartbeats of both sides and the wire between them being there; an engine that is never restarted
 * takes no more memory at the end than at the beginning, by a tenth. Refuted by an order that does
 * not hold, by a median above that time, or by more memory; exit code 1 then.
 *
 *   FAULTS=200 npm run bench:chaos     prints a line a fault, writes bench/results/chaos.json.gz
 */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { createRandom } from "../src/base/random.ts";
import { MIB } from "../src/base/units.ts";
import { freePort } from "../src/bench/engine-command.ts";
import { mean, quantile } from "../src/measure/statistics.ts";
import { MODES, type Mode } from "../src/wire/protocol.ts";
import type { ChaosEngine, ChaosLine, ChaosOrder } from "./lib/chaos-controller.ts";
import { FaultProxy } from "./lib/fault-proxy.ts";
import { writeResult } from "./lib/result-file.ts";
import { workerPython } from "./lib/worker-python.ts";

const FAULTS = Number(process.env["FAULTS"] ?? 200);
const SEED = Number(process.env["SEED"] ?? 1);
const HEARTBEAT_SECONDS = 1;
/** Told in the result; a session that takes longer than this is not whole again. */
const WHOLE_SECONDS_MAX = 30;
const NAMES = ["engine-0", "engine-1", "engine-2"] as const;
/** Its process lives as long as the test. */
const STEADY = "engine-2";
const ROOT = fileURLToPath(new URL("..", import.meta.url));

class ControllerProcess {
  readonly child: ChildProcess;
  engines: readonly ChaosEngine[] = [];
  rssBytes = 0;
  /** When the engines were as told, in Unix milliseconds; 0: not told yet. */
  toldAtMs = 0;
  readonly #orders = new Map<number, (taken: boolean) => void>();
  #lastOrder = 0;

  constructor(port: number) {
    const script = `${ROOT}/bench/lib/chaos-controller.ts`;
    this.child = spawn(process.execPath, ["--import", "tsx", script, `tcp://127.0.0.1:${port}`], {
      cwd: ROOT,
      stdio: ["pipe", "pipe", "inherit"],
    });
    if (this.child.stdout === null) throw new Error("no stdout");
    this.child.stdin?.on("error", () => undefined);
    createInterface({ input: this.child.stdout }).on("line", (line) => {
      const told = JSON.parse(line) as ChaosLine;
      if (told.type === "ordered") this.#orders.get(told.id)?.(told.taken);
      else {
        this.toldAtMs = told.atMs;
        this.engines = told.engines;
        this.rssBytes = told.rssBytes;
      }
    });
  }

  async order(engine: string, mode: Mode | undefined): Promise<boolean> {
    const id = ++this.#lastOrder;
    const order: ChaosOrder = { id, engine, ...(mode === undefined ? {} : { mode }) };
    const taken = new Promise<boolean>((resolve) => this.#orders.set(id, resolve));
    this.child.stdin?.write(`${JSON.stringify(order)}\n`);
    return Promise.race([taken, sleep(2000, false)]);
  }
}

interface EngineLine {
  readonly event: string;
  readonly captured?: string[];
  readonly ranks?: string[][];
  readonly mode?: Mode | null;
  readonly frozen?: boolean;
}

class EngineProcess {
  readonly child: ChildProcess;
  readonly name: string;
  ready = false;
  captured = 0;
  /** What it keeps of what it was ordered. */
  orders: Pick<EngineLine, "mode" | "frozen"> = {};
  /** Captured sets that shrank, or a graph that came twice. */
  wrong = 0;

  constructor(name: string, port: number) {
    this.name = name;
    const script = `${ROOT}/worker/tests/engine_process.py`;
    const args = [script, "--endpoint", `tcp://127.0.0.1:${port}`, "--engine", name];
    this.child = spawn(workerPython(), [...args, "--capture-ms", "20", "--tell-orders"], {
      env: { ...process.env, PYTHONPATH: `${ROOT}/worker/src` },
      stdio: ["pipe", "pipe", "ignore"],
    });
    this.child.stdin?.on("error", () => undefined);
    if (this.child.stdout === null) throw new Error("no stdout");
    createInterface({ input: this.child.stdout }).on("line", (line) => {
      const event = JSON.parse(line) as EngineLine;
      if (event.event === "ready") {
        this.ready = true;
        this.captured = event.captured?.length ?? 0;
      } else if (event.event === "captured") {
        const [first = [], second = []] = event.ranks ?? [];
        const alike = first.join() === second.join();
        if (!alike || first.length !== this.captured + 1) this.wrong++;
        this.captured = first.length;
      } else if (event.event === "ordered") this.orders = event;
    });
  }

  load(seconds: number): void {
    this.child.stdin?.write(`load ${seconds}\n`);
  }

  get rssBytes(): number {
    const status = readFileSync(`/proc/${this.child.pid}/status`, "utf8");
    return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1] ?? 0) * 1024;
  }
}

interface Row {
  readonly fault: string;
  /** From both sides and the wire between them being there; null: not within the limit. */
  readonly wholeSeconds: number | null;
  readonly ordersBroken: readonly string[];
  readonly controllerRssMib: number;
  readonly steadyRssMib: number;
}

const random = createRandom(SEED);
const pick = <T>(entries: readonly T[]): T => entries[Math.floor(random() * entries.length)] as T;

const controllerPort = await freePort();
await using proxy = new FaultProxy(controllerPort);
const proxyPort = await proxy.listen();
let controller = new ControllerProcess(controllerPort);
const engines = new Map(NAMES.map((name) => [name as string, new EngineProcess(name, proxyPort)]));
const ordered = new Map<string, { mode: Mode; frozen: boolean }>(
  NAMES.map((name) => [name, { mode: "idle", frozen: false }]),
);
let wrong = 0;

/** Why an engine's session is not whole; undefined: it is. */
function notWhole({ name, ready, captured }: EngineProcess): string | undefined {
  const seen = controller.engines.find(({ engine }) => engine === name);
  if (!ready) return "it is not ready";
  if (seen?.connected !== true || seen.phase !== "serving") return "it is not connected";
  return seen.captured === captured ? undefined : `it holds ${captured}, seen ${seen.captured}`;
}

function brokenOrders(): string[] {
  return [...ordered].flatMap(([name, { mode, frozen }]) => {
    const seen = controller.engines.find(({ engine }) => engine === name);
    if (seen === undefined) return [`${name} is not there`];
    const got = `${seen.mode}${seen.frozen ? ", frozen" : ""}`;
    const wanted = `${mode}${frozen ? ", frozen" : ""}`;
    return got === wanted ? [] : [`${name} was to be ${wanted}, is ${got}`];
  });
}

/** Seconds until all sessions are whole; null: too long. */
async function whole(): Promise<number | null> {
  const beganAtMs = Date.now();
  for (;;) {
    const seconds = (Date.now() - beganAtMs) / 1000;
    const isFresh = controller.toldAtMs > beganAtMs;
    const all = [...engines.values()].every((engine) => notWhole(engine) === undefined);
    if (isFresh && all) return seconds;
    if (seconds > WHOLE_SECONDS_MAX) return null;
    await sleep(10);
  }
}

/** What the controller knows by now, and not before. */
async function heard(): Promise<void> {
  const sinceMs = Date.now();
  while (controller.toldAtMs <= sinceMs) await sleep(5);
}

async function giveOrder(): Promise<void> {
  const name = pick(NAMES);
  const freeze = random() < 0.4;
  const mode = pick(MODES);
  if (!(await controller.order(name, freeze ? undefined : mode))) return;
  const before = ordered.get(name);
  const order = freeze ? { mode: before?.mode ?? "idle", frozen: true } : { mode, frozen: false };
  ordered.set(name, order);
  // A controller that dies with an order in its hands has told nobody: that is no order that is kept.
  const began = performance.now();
  const isTaken = (): boolean => {
    const { orders = {} } = engines.get(name) ?? {};
    return orders.frozen === order.frozen && (freeze || orders.mode === order.mode);
  };
  while (!isTaken()) {
    if (performance.now() - began > 1000 * WHOLE_SECONDS_MAX) {
      throw new Error(`Expected ${name} to take an order within ${WHOLE_SECONDS_MAX} s, got none.`);
    }
    await sleep(5);
  }
}

async function restartController(signal: "SIGKILL" | "SIGTERM"): Promise<void> {
  const old = controller.child;
  const exited = once(old, "exit");
  old.kill(signal);
  await exited;
  controller = new ControllerProcess(controllerPort);
  while (controller.toldAtMs === 0) await sleep(5);
}

async function restartEngine(signal: "SIGKILL" | "SIGTERM"): Promise<void> {
  const name = pick(NAMES.filter((one) => one !== STEADY));
  const old = engines.get(name);
  if (old === undefined) return;
  wrong += old.wrong;
  const exited = once(old.child, "exit");
  if (signal === "SIGTERM") old.child.stdin?.end();
  else old.child.kill(signal);
  await exited;
  const young = new EngineProcess(name, proxyPort);
  engines.set(name, young);
  while (!young.ready) await sleep(5);
}

async function stopFor(child: ChildProcess): Promise<void> {
  child.kill("SIGSTOP");
  // Half of them longer than either side waits before it gives the other up.
  await sleep((random() < 0.5 ? 0.5 : 6) * 1000 * HEARTBEAT_SECONDS);
  child.kill("SIGCONT");
}

const FAULT_KINDS: readonly (readonly [string, () => Promise<void>])[] = [
  ["controller killed", () => restartController("SIGKILL")],
  ["controller restarted", () => restartController("SIGTERM")],
  ["controller stopped", () => stopFor(controller.child)],
  ["engine killed", () => restartEngine("SIGKILL")],
  ["engine restarted", () => restartEngine("SIGTERM")],
  ["engine stopped", () => stopFor((engines.get(pick(NAMES)) as EngineProcess).child)],
  ["connections cut", async () => proxy.cut()],
  [
    "bytes delayed",
    async () => {
      proxy.delayMs = 50 + random() * 400;
      proxy.mode = "delay";
      await sleep(1000);
      proxy.mode = "sound";
      // What is still delayed would come after what is not: the stream is ended.
      proxy.cut();
    },
  ],
  [
    "bytes swallowed",
    async () => {
      proxy.mode = "swallow";
      await sleep(1500);
      proxy.mode = "sound";
      proxy.cut();
    },
  ],
];

const loading = setInterval(() => {
  for (const engine of engines.values()) if (random() < 0.5) engine.load(0.2);
}, 500);

const rows: Row[] = [];
await whole();
for (let place = 0; place < FAULTS; place++) {
  if (random() < 0.5) await giveOrder();
  const [fault, act] = FAULT_KINDS[place % FAULT_KINDS.length] as (typeof FAULT_KINDS)[number];
  await act();
  const wholeSeconds = await whole();
  await heard();
  const steady = engines.get(STEADY) as EngineProcess;
  const row: Row = {
    fault,
    wholeSeconds,
    ordersBroken: brokenOrders(),
    controllerRssMib: controller.rssBytes / MIB,
    steadyRssMib: steady.rssBytes / MIB,
  };
  rows.push(row);
  const broken = row.ordersBroken.length === 0 ? "" : `; BROKEN: ${row.ordersBroken.join("; ")}`;
  console.log(
    `${place + 1} ${fault}: whole after ${wholeSeconds?.toFixed(2) ?? "never"} s${broken}`,
  );
}
clearInterval(loading);
controller.child.kill("SIGKILL");
for (const engine of engines.values()) {
  wrong += engine.wrong;
  engine.child.kill("SIGKILL");
}

const times = rows.map(({ wholeSeconds }) => wholeSeconds ?? Number.POSITIVE_INFINITY);
const quarter = Math.max(1, rows.length >> 2);
const result = {
  seed: SEED,
  heartbeatSeconds: HEARTBEAT_SECONDS,
  faults: rows.length,
  ordersBroken: rows.filter(({ ordersBroken }) => ordersBroken.length > 0).length,
  /** Captures that came twice, or ranks that held different graphs. */
  wrongCaptures: wrong,
  neverWhole: times.filter((seconds) => seconds === Number.POSITIVE_INFINITY).length,
  wholeSecondsP50: quantile(times, 0.5),
  wholeSecondsP95: quantile(times, 0.95),
  wholeSecondsMax: Math.max(...times),
  withinTwoHeartbeats:
    times.filter((seconds) => seconds <= 2 * HEARTBEAT_SECONDS).length / rows.length,
  steadyRssGrowth:
    mean(rows.slice(-quarter).map(({ steadyRssMib }) => steadyRssMib)) /
      mean(rows.slice(0, quarter).map(({ steadyRssMib }) => steadyRssMib)) -
    1,
  controllerRssMibMax: Math.max(...rows.map(({ controllerRssMib }) => controllerRssMib)),
  rows,
};
writeResult(new URL("results/chaos.json.gz", import.meta.url), result);
const { rows: _, ...told } = result;
console.log(told);
const refuted =
  result.ordersBroken > 0 ||
  wrong > 0 ||
  result.wholeSecondsP50 > 2 * HEARTBEAT_SECONDS ||
  result.steadyRssGrowth > 0.1;
process.exit(refuted ? 1 : 0);
