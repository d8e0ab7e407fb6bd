/**
 * `npm run bench:frame`: what one telemetry frame takes of a controller from its socket on: read,
 * checked, booked, decided on. No socket and no timer is involved, and time is the frames' own, ten
 * a second of each engine, so that a busy machine changes little: told is processor time, the
 * garbage collector's included.
 *
 *   npm run bench:frame -- [--engines 256] [--frames 200000] [--build DIST]...
 *     prints a line for each build; writes nothing
 */

import { existsSync } from "node:fs";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import type { Clock } from "../src/base/clock.ts";
import { median } from "../src/base/median.ts";
import type { Controller } from "../src/controller/controller.ts";
import type { Ground } from "../src/controller/ground.ts";
import type { ControllerOptions } from "../src/controller/options.ts";
import { planFiles } from "../src/plan/files.ts";
import type { RouterOptions } from "../src/wire/router.ts";
import { GRAPHS, packed, telemetry } from "./lib/fleet-frames.ts";

const { values } = parseArgs({
  options: {
    engines: { type: "string", default: "256" },
    frames: { type: "string", default: "200000" },
    build: {
      type: "string",
      multiple: true,
      default: [fileURLToPath(new URL("../dist", import.meta.url))],
    },
  },
});
const FRAMES_PER_SECOND = 10;
const ROUNDS = 8;
/** Batches of steps, each with times of its own, that engines send over and over. */
const BATCHES = 997;
const engines = Number(values.engines);
const frames = Number(values.frames);
const batches = Array.from({ length: BATCHES }, (_, sequence) => telemetry(sequence));

type CreateController = (ground: Ground, options: ControllerOptions) => Controller;

async function measure(build: string): Promise<void> {
  const file = pathToFileURL(`${build}/controller/controller.js`).href;
  const { createControllerOn } = (await import(file)) as { createControllerOn: CreateController };
  let nowSeconds = 0;
  let router: RouterOptions | undefined;
  let sent = 0;
  const clock: Clock = { now: () => nowSeconds, after: () => () => undefined };
  const ground: Ground = {
    clock,
    files: planFiles,
    watchLoad: () => () => 0,
    openRouter: async (options) => {
      router = options;
      return {
        endpoint: options.endpoint,
        send: () => {
          sent += 1;
          return true;
        },
        admit: () => undefined,
        dismiss: () => undefined,
        close: async () => undefined,
      };
    },
  };
  await using controller = createControllerOn(ground, {
    mode: "idle",
    endpoint: "tcp://127.0.0.1:0",
    enginesMax: engines,
    plan: false,
    memory: { gpu: false },
  });
  await controller.start();
  const peers = Array.from({ length: engines }, (_, n) => n.toString(16).padStart(16, "0"));
  const receive = (peer: string, frame: Buffer): void => router?.onFrame(peer, frame);
  for (const peer of peers) for (const frame of joining(peer)) receive(peer, frame);
  const serving = controller.engines().filter(({ settled }) => settled).length;
  if (serving !== engines) throw new Error(`Expected ${engines} settled engines, got ${serving}.`);

  let count = 0;
  const batch = (size: number): number => {
    const before = process.cpuUsage();
    for (let n = 0; n < size; n++, count++) {
      nowSeconds += 1 / (FRAMES_PER_SECOND * engines);
      // Bytes of its own, as a socket hands them over.
      receive(peers[count % engines] ?? "", Buffer.from(batches[count % BATCHES] ?? []));
    }
    const { user, system } = process.cpuUsage(before);
    return (user + system) / size;
  };
  batch(frames / ROUNDS);
  sent = 0;
  const rounds = Array.from({ length: ROUNDS }, () => batch(frames / ROUNDS));
  const steps = controller.engines().reduce((sum, { stepsExact }) => sum + stepsExact, 0);
  if (steps === 0) throw new Error("Expected steps to be booked, got none.");
  if (sent === 0) throw new Error("Expected costs to be learned and tables to follow, got none.");
  console.log(
    `${build}: ${(median(rounds) ?? 0).toFixed(2)} us a frame, ${Math.min(...rounds).toFixed(2)} ` +
      `at best, of ${engines} engines; ${sent} messages came of ${frames} frames`,
  );
}

/** An engine that has all of its graphs. */
function joining(name: string): Buffer[] {
  const ranks = [
    {
      rank: 0,
      gpuUuid: `GPU-${name}`,
      gpuName: "simulated",
      totalBytes: 2 ** 31,
      freeBytes: 2 ** 30,
      reservedBytes: 2 ** 30,
      poolBytes: 2 ** 28,
      activationPeakBytes: 2 ** 28,
    },
  ];
  return [
    packed({
      type: "hello",
      versionMin: 1,
      versionMax: 2,
      engine: name,
      session: name,
      pluginVersion: "0.1.0",
      vllmVersion: "0.33.0",
      model: "simulated",
      host: "simulated",
      pid: process.pid,
      phase: "serving",
      mode: "idle",
      tensorParallel: 1,
      pipelineParallel: 1,
      simulated: "frame",
    }),
    packed({
      type: "inventory",
      phase: "serving",
      graphs: GRAPHS,
      captured: GRAPHS.map(({ id }) => ({ graph: id, ms: 50, bytes: 2 ** 21 })),
      ranks,
      cudagraphMode: "FULL_AND_PIECEWISE",
      layers: 32,
      maxRequests: 512,
      maxBatchedTokens: 8192,
      kvCacheTokens: 500_000,
      epoch: GRAPHS.length,
    }),
    packed({ type: "edge", state: "busy", running: 9, waiting: 0 }),
  ];
}

for (const build of values.build) {
  if (!existsSync(build))
    throw new Error(`Expected a build in ${build}: run \`npm run build:ts\`.`);
  await measure(build);
}
