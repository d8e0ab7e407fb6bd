/**
 * `npm run bench:fleet`: one controller and many engines. The controller has a core, the simulated
 * engines another: sockets, protocol and captures of 50 ms are real, graphs are not.
 *
 * Two phases: the engines arrive over 60 s, each with 102 graphs, and are filled; once all are
 * settled they get busy within five seconds, and each sends ten telemetry frames a second for 30 s.
 * A decision is the time from a frame's leaving its engine to the sending of a command that came of
 * it, the way to the controller's socket included. Captures are told apart: they are paced over the
 * fleet, so that what they wait is no delay of a decision, and the time of the fill says what it
 * costs. What a controller takes of its core is measured for as long again, without the probe.
 *
 *   npm run bench:fleet -- [--engines 256,256,256,1000] [--seconds 60] [--before DIST]... [--plans] [--full]
 *     [--profile FOLDER] [--flags=FLAGS]...
 *     prints a table, writes bench/results/fleet.json.gz
 *
 * The controller's heap grows as that of `lazygraph serve`. With --flags=--single-threaded-gc this
 * build is measured once more with these flags of Node's for the controller, as a row of its own.
 *
 * With --full engines come with all of their graphs: the second phase alone, in a tenth of the time.
 * A frame's price is processor time, all threads' together, which a busy machine changes little.
 *
 * A number of engines given several times is measured as often, and the builds before it once. On a
 * virtual machine what the same frames take of a core differs from run to run, and 256 engines are
 * judged by the median.
 *
 * Hypotheses, of the largest number up to 1,000: both phases' decisions take at most 50 ms at p99,
 * nobody misses a heartbeat, an engine takes at most 1 MiB; 256 engines take at most 15% of a core.
 * Exit code 1 where one is refuted.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { availableParallelism, cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { MIB } from "../src/base/units.ts";
import { type FleetRow, fleetFindings } from "./lib/claims-trust.ts";
import type {
  ControllerFigures,
  CoreFigures,
  EngineFigures,
  FromController,
  FromEngines,
  ToController,
  ToEngines,
} from "./lib/fleet-messages.ts";
import { writeResult } from "./lib/result-file.ts";

const { values } = parseArgs({
  options: {
    engines: { type: "string", default: "256,256,256,1000" },
    seconds: { type: "string", default: "60" },
    serve: { type: "string", default: "30" },
    before: { type: "string", multiple: true, default: [] },
    flags: { type: "string", multiple: true, default: [] },
    only: { type: "string" },
    plans: { type: "boolean", default: false },
    full: { type: "boolean", default: false },
    profile: { type: "string" },
    output: {
      type: "string",
      default: fileURLToPath(new URL("results/fleet.json.gz", import.meta.url)),
    },
  },
});
const LIB = fileURLToPath(new URL("lib/", import.meta.url));
const DIST = fileURLToPath(new URL("../dist", import.meta.url));
const CONTROLLER_CORE = 0;
const ENGINES_CORE = 1;
/** An overloaded build may never get there: it is measured as it is by then. */
const FILL_SECONDS_MAX = 240;
/** After the fill, before the second phase is measured. */
const CALM_SECONDS = 3;

function start(core: number, script: string, args: readonly string[], flags = "") {
  const own = flags.split(" ").filter((flag) => flag !== "");
  const node = [process.execPath, ...own, "--expose-gc", "--import", "tsx", `${LIB}${script}`];
  return spawn("taskset", ["-c", String(core), ...node, ...args], {
    cwd: fileURLToPath(new URL("..", import.meta.url)),
    stdio: ["ignore", "inherit", "inherit", "ipc"],
  });
}

async function heard<T extends { readonly type: string }>(
  child: ChildProcess,
  type: T["type"],
): Promise<T> {
  for (;;) {
    const [message] = (await once(child, "message", { signal: AbortSignal.timeout(180_000) })) as [
      T,
    ];
    if (message.type === type) return message;
  }
}

async function controllerFigures(child: ChildProcess): Promise<ControllerFigures> {
  child.send("figures" satisfies ToController);
  const { figures } = await heard<Extract<FromController, { type: "figures" }>>(child, "figures");
  return figures;
}

async function engineFigures(child: ChildProcess): Promise<EngineFigures> {
  child.send({ type: "figures" } satisfies ToEngines);
  return (await heard<FromEngines>(child, "figures")).figures;
}

/** Adds to what is free of the engines' own doings: their settled state is the cheap one to ask. */
async function filled(engines: ChildProcess, count: number): Promise<EngineFigures> {
  const until = performance.now() + 1000 * (Number(values.seconds) + FILL_SECONDS_MAX);
  let missed = 0;
  let silence = 0;
  for (;;) {
    await sleep(1000);
    const figures = await engineFigures(engines);
    missed += figures.missedHeartbeats;
    silence = Math.max(silence, figures.longestSilenceMs);
    const told = { ...figures, missedHeartbeats: missed, longestSilenceMs: silence };
    if (process.stderr.isTTY) {
      process.stderr.write(`\r${figures.ready} ready, ${figures.settled} settled of ${count}  `);
    }
    if (figures.settled === count || performance.now() > until) return told;
  }
}

async function measure(
  build: string,
  dist: string,
  count: number,
  flags?: string,
): Promise<FleetRow> {
  const folder = values.profile === undefined ? [] : [values.profile];
  const plans = values.plans ? mkdtempSync(join(tmpdir(), "lazygraph-fleet-")) : "";
  const args = [dist, String(count), plans, ...folder];
  const controller = start(CONTROLLER_CORE, "fleet-controller.ts", args, flags);
  let engines: ChildProcess | undefined;
  try {
    const { endpoint } = await heard<Extract<FromController, { type: "listening" }>>(
      controller,
      "listening",
    );
    engines = start(ENGINES_CORE, "fleet-engines.ts", [endpoint]);
    await once(engines, "spawn");
    controller.send("collect" satisfies ToController);
    const { rssBytes: emptyBytes } = await controllerFigures(controller);
    engines.send({
      type: "arrive",
      engines: count,
      seconds: Number(values.seconds),
      full: values.full,
    } satisfies ToEngines);
    const fill = await filled(engines, count);
    const fillController = await controllerFigures(controller);
    controller.send({ profiled: `${build}-${count}-fill` } satisfies ToController);
    engines.send({ type: "serve" } satisfies ToEngines);
    await sleep(1000 * CALM_SECONDS);
    await engineFigures(engines);
    controller.send("begin" satisfies ToController);
    await sleep(1000 * Number(values.serve));
    const serveController = await controllerFigures(controller);
    const serve = await engineFigures(engines);
    controller.send({ profiled: `${build}-${count}-serve` } satisfies ToController);
    controller.send("unwatch" satisfies ToController);
    await sleep(1000 * Number(values.serve));
    const { busySeconds, seconds, busyByThread } = await controllerFigures(controller);
    const frames = (await engineFigures(engines)).telemetry - serve.telemetry;
    const core = { busySeconds, seconds, busyByThread, frames };
    return {
      build,
      engines: count,
      plans: values.plans,
      arrivalSeconds: Number(values.seconds),
      serveSeconds: Number(values.serve),
      emptyBytes,
      bytesPerEngine: (serveController.rssBytes - emptyBytes) / count,
      fill: { controller: fillController, engines: fill },
      serve: { controller: serveController, engines: serve },
      core,
    };
  } finally {
    engines?.send({ type: "exit" } satisfies ToEngines);
    if (controller.connected) {
      controller.send("exit" satisfies ToController);
      await Promise.race([once(controller, "exit"), sleep(20_000)]);
    }
    controller.kill("SIGKILL");
    if (plans !== "") rmSync(plans, { recursive: true, force: true });
  }
}

/** What one frame takes of the controller's processor, and which of its threads takes it. */
function priceOf({ busySeconds, busyByThread, frames, seconds }: CoreFigures): string {
  const us = (busy: number): string => ((1e6 * busy) / Math.max(1, frames)).toFixed(1);
  const threads = Object.entries(busyByThread)
    .filter(([, busy]) => busy > 0.01 * busySeconds)
    .sort(([, one], [, other]) => other - one)
    .map(([name, busy]) => `${name} ${us(busy)}`);
  return (
    `without the probe: core ${((100 * busySeconds) / seconds).toFixed(1)}%, ${us(busySeconds)} us ` +
    `of processor time a frame (${threads.join(", ")})`
  );
}

function print({ build, engines, bytesPerEngine, fill, serve, core }: FleetRow): void {
  const ms = (value: number): string => (value < 10 ? value.toFixed(1) : value.toFixed(0));
  const phase = (name: string, { controller, engines: told }: FleetRow["fill"]): string =>
    `  ${name}: decisions p50 ${ms(controller.decisions.p50Ms)} p99 ${ms(controller.decisions.p99Ms)} ` +
    `max ${ms(controller.decisions.maxMs)} ms of ${controller.decisions.count}; captures p99 ` +
    `${ms(controller.byCommand.capture.p99Ms)} ms; frames taken p99 ` +
    `${ms(controller.taken.p99Ms)} ms of ${controller.frames}; core ` +
    `${((100 * controller.busySeconds) / controller.seconds).toFixed(1)}%; missed heartbeats ` +
    `${told.missedHeartbeats}, silence ${ms(told.longestSilenceMs)} ms, resyncs ${told.resyncs}, ` +
    `lost ${controller.lost}; engines' core ${(100 * told.busyShare).toFixed(0)}%`;
  console.log(`${build}, ${engines} engines: ${(bytesPerEngine / MIB).toFixed(2)} MiB an engine`);
  console.log(phase("fill ", fill));
  console.log(
    `    ${fill.engines.settled} settled, all after ${fill.engines.allSettledSeconds.toFixed(1)} s, ` +
      `each after ${fill.engines.settleP50Seconds.toFixed(1)} (p50) to ` +
      `${fill.engines.settleMaxSeconds.toFixed(1)} s; ${fill.engines.captures} captures`,
  );
  console.log(phase("serve", serve));
  console.log(`    ${priceOf(core)}`);
  const problems = Object.entries(serve.controller.problems);
  if (problems.length > 0)
    console.log(`    problems: ${JSON.stringify(serve.controller.problems)}`);
}

if (availableParallelism() < 2) throw new Error("Expected two cores at least, got one.");
const rows: FleetRow[] = [];
const counts = values.engines.split(",").map(Number);
if (!existsSync(DIST)) throw new Error("Expected a build in dist: run `npm run build:ts`.");
for (const [round, count] of counts.entries()) {
  for (const dist of counts.indexOf(count) === round ? values.before : []) {
    const row = await measure("before", dist, count);
    print(row);
    rows.push(row);
  }
  if (values.only === "before") continue;
  const row = await measure("this", DIST, count);
  print(row);
  rows.push(row);
  for (const flags of values.flags) {
    const flagged = await measure(`this ${flags}`, DIST, count, flags);
    print(flagged);
    rows.push(flagged);
  }
}
const document = {
  atIso: new Date().toISOString(),
  node: process.version,
  processors: `${cpus().length} x ${cpus()[0]?.model}`,
  rows,
};
writeResult(pathToFileURL(values.output), document);
const told = { source: "fleet.json.gz", command: "npm run bench:fleet" };
const refuted = fleetFindings({ rows }, told).filter(({ value, limit }) => value > limit);
for (const { id, value, limit } of refuted)
  console.log(`refuted: ${id}: ${value}, at most ${limit}`);
if (refuted.length > 0) process.exitCode = 1;
