/**
 * `npm run bench:frame`: what a frame takes of a controller from its socket on: read, checked,
 * booked, decided on, and what is sent for it encoded. No socket and no timer is involved, and time
 * is the frames' own, so that a busy machine changes little: told is processor time, the garbage
 * collector's included.
 *
 * Of telemetry, ten frames a second of each engine that has its graphs; and of fill, where a capture
 * is a result that comes, the table that it changes and the next command. With `--expose-gc`, as the
 * script has it, also what a filled engine is to the garbage collector, whose helper threads take
 * the core from a controller that has only one: bytes of heap, and processor time of a collection.
 *
 * With --cold the processor's caches are swept before every 48 frames, as others do it where a
 * controller sleeps in between: most of such a frame's time is waiting for memory.
 *
 * What a reader tells ahead of each 48 is told here as well, and its price is in it.
 *
 *   npm run bench:frame -- [--engines 256] [--frames 200000] [--build DIST]... [--rounds 1] [--cold]
 *     prints a line for each build, build after build in every round; writes nothing
 */

import { existsSync } from "node:fs";
import { setImmediate } from "node:timers/promises";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { unpack } from "msgpackr";
import type { Clock } from "../src/base/clock.ts";
import { median } from "../src/base/median.ts";
import type { Controller } from "../src/controller/controller.ts";
import type { Ground } from "../src/controller/ground.ts";
import type { ControllerOptions } from "../src/controller/options.ts";
import { planFiles } from "../src/plan/files.ts";
import type { Capture } from "../src/wire/protocol.ts";
import type { RouterOptions } from "../src/wire/router.ts";
import { GRAPHS, packed, telemetry } from "./lib/fleet-frames.ts";
import { typeOf } from "./lib/fleet-probe.ts";

const { values } = parseArgs({
  options: {
    engines: { type: "string", default: "256" },
    frames: { type: "string", default: "200000" },
    rounds: { type: "string", default: "1" },
    cold: { type: "boolean", default: false },
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
/** What a capture takes of an engine, and a little more: captures follow each other by the time. */
const CAPTURE_SECONDS = 0.06;
/** Engines that fill at once: fewer than captures may begin in one slot. */
const FILLING = 100;
/** Fills before the one that is measured: a controller that fills has mostly done so before. */
const FILLS_BEFORE = 3;
/** Frames that a controller reads at a time, where so many engines send. */
const READ_FRAMES = 48;
/** More than a core's own caches have. */
const SWEEP_BYTES = 32 * 2 ** 20;
const engines = Number(values.engines);
const frames = Number(values.frames);
const batches = Array.from({ length: BATCHES }, (_, sequence) => telemetry(sequence));

type CreateController = (ground: Ground, options: ControllerOptions) => Controller;

/** A controller whose socket and time are ours. */
class Bare {
  nowSeconds = 0;
  sent: { readonly peer: string; readonly frame: Uint8Array }[] = [];
  readonly peers: readonly string[];
  #router: RouterOptions | undefined;
  #controller: Controller | undefined;

  constructor(count: number) {
    this.peers = Array.from({ length: count }, (_, n) => n.toString(16).padStart(16, "0"));
  }

  get controller(): Controller {
    if (this.#controller === undefined) throw new Error("Expected a controller that was started.");
    return this.#controller;
  }

  async start(build: string): Promise<void> {
    const file = pathToFileURL(`${build}/controller/controller.js`).href;
    const { createControllerOn } = (await import(file)) as { createControllerOn: CreateController };
    const clock: Clock = { now: () => this.nowSeconds, after: () => () => undefined };
    const ground: Ground = {
      clock,
      files: planFiles,
      watchLoad: () => () => 0,
      openRouter: async (options) => {
        this.#router = options;
        return {
          endpoint: options.endpoint,
          send: (peer, frame) => {
            this.sent.push({ peer, frame });
            return true;
          },
          admit: () => undefined,
          dismiss: () => undefined,
          unreadSeconds: () => 0,
          close: async () => undefined,
        };
      },
    };
    this.#controller = createControllerOn(ground, {
      mode: "idle",
      endpoint: "tcp://127.0.0.1:0",
      enginesMax: this.peers.length,
      plan: false,
      memory: { gpu: false },
    });
    await this.#controller.start();
  }

  /** Frames of these come next, as a socket's reader tells. */
  batch(peers: readonly string[]): void {
    this.#router?.onBatch?.(peers);
  }

  receive(peer: string, frame: Buffer): void {
    this.#router?.onFrame(peer, frame);
  }
}

/** Microseconds of a telemetry frame. */
async function serving(build: string): Promise<number[]> {
  const bare = new Bare(engines);
  await bare.start(build);
  await using controller = bare.controller;
  const { peers } = bare;
  for (const peer of peers) for (const frame of joining(peer)) bare.receive(peer, frame);
  const settled = controller.engines().filter((engine) => engine.settled).length;
  if (settled !== engines) throw new Error(`Expected ${engines} settled engines, got ${settled}.`);

  let count = 0;
  const upNext = (from: number, length: number): string[] =>
    Array.from({ length }, (_, n) => peers[(from + n) % engines] ?? "");
  const read = (size: number): number => {
    const before = process.cpuUsage();
    for (let n = 0; n < size; n++, count++) {
      if (n % READ_FRAMES === 0) bare.batch(upNext(count, Math.min(READ_FRAMES, size - n)));
      bare.nowSeconds += 1 / (FRAMES_PER_SECOND * engines);
      // Bytes of its own, as a socket hands them over.
      bare.receive(peers[count % engines] ?? "", Buffer.from(batches[count % BATCHES] ?? []));
    }
    const { user, system } = process.cpuUsage(before);
    return user + system;
  };
  const others = new Uint8Array(values.cold ? SWEEP_BYTES : 0);
  const batch = (size: number): number => {
    if (!values.cold) return read(size) / size;
    let us = 0;
    for (let left = size; left > 0; left -= READ_FRAMES) {
      for (let at = 0; at < others.length; at += 64) others[at] = (others[at] ?? 0) + 1;
      us += read(READ_FRAMES);
    }
    return us / (READ_FRAMES * Math.ceil(size / READ_FRAMES));
  };
  batch(frames / ROUNDS);
  bare.sent = [];
  const rounds = Array.from({ length: ROUNDS }, () => batch(frames / ROUNDS));
  const steps = controller.engines().reduce((sum, { stepsExact }) => sum + stepsExact, 0);
  if (steps === 0) throw new Error("Expected steps to be booked, got none.");
  if (bare.sent.length === 0)
    throw new Error("Expected costs to be learned and tables to follow, got none.");
  return rounds;
}

/** Microseconds of a capture: its result, the table after it, and the next command. */
async function filling(build: string): Promise<{ each: number[]; bytes: number; ms: number }> {
  const bare = new Bare(FILLING);
  const empty = await collected();
  await bare.start(build);
  await using controller = bare.controller;
  // Spread over a capture's time, as engines are: who comes in one moment waits for the others.
  const spread = async (peer: string, many: readonly Buffer[], count: number): Promise<void> => {
    bare.nowSeconds += CAPTURE_SECONDS / count;
    for (const frame of many) bare.receive(peer, frame);
    await setImmediate();
  };
  for (const peer of bare.peers) await spread(peer, arriving(peer), FILLING);
  let captures = 0;
  const each: number[] = [];
  const epochs = new Map<string, number>();
  for (;;) {
    const commands = bare.sent.filter(({ frame }) => typeOf(frame) === "capture");
    if (commands.length === 0) break;
    captures += commands.length;
    const results = commands.map(({ peer, frame }) => {
      const epoch = (epochs.get(peer) ?? 0) + 1;
      epochs.set(peer, epoch);
      return { peer, frame: resultOf(peer, unpack(frame) as Capture, epoch) };
    });
    bare.sent = [];
    const before = process.cpuUsage();
    for (const { peer, frame } of results) await spread(peer, [frame], results.length);
    const { user, system } = process.cpuUsage(before);
    each.push((user + system) / results.length);
  }
  if (captures !== FILLING * GRAPHS.length)
    throw new Error(`Expected ${FILLING * GRAPHS.length} captures, got ${captures}.`);
  const full = await collected();
  const settled = controller.engines().filter((engine) => engine.settled).length;
  if (settled !== FILLING) throw new Error(`Expected ${FILLING} settled engines, got ${settled}.`);
  return {
    each,
    bytes: (full.bytes - empty.bytes) / FILLING,
    ms: (full.ms - empty.ms) / FILLING,
  };
}

/** The heap after a full collection, and the processor time that one takes; 0 without `gc`. */
async function collected(): Promise<{ bytes: number; ms: number }> {
  const { gc } = globalThis;
  if (gc === undefined) return { bytes: 0, ms: 0 };
  gc();
  await setImmediate();
  const before = process.cpuUsage();
  gc();
  const { user, system } = process.cpuUsage(before);
  return { bytes: process.memoryUsage().heapUsed, ms: (user + system) / 1000 };
}

function ranksOf(name: string, poolBytes: number) {
  return [
    {
      rank: 0,
      gpuUuid: `GPU-${name}`,
      gpuName: "simulated",
      totalBytes: 2 ** 31,
      freeBytes: 2 ** 30,
      reservedBytes: 2 ** 30,
      poolBytes,
      activationPeakBytes: 2 ** 26,
    },
  ];
}

function hello(name: string, phase: "loading" | "serving"): Buffer {
  return packed({
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
    phase,
    mode: "idle",
    tensorParallel: 1,
    pipelineParallel: 1,
    simulated: "frame",
  });
}

function inventory(name: string, captured: readonly string[]): Buffer {
  return packed({
    type: "inventory",
    phase: "serving",
    graphs: GRAPHS,
    captured: captured.map((graph) => ({ graph, ms: 50, bytes: 2 ** 21 })),
    ranks: ranksOf(name, 0),
    cudagraphMode: "FULL_AND_PIECEWISE",
    layers: 32,
    maxRequests: 512,
    maxBatchedTokens: 8192,
    kvCacheTokens: 500_000,
    epoch: captured.length,
  });
}

/** An engine that has all of its graphs. */
function joining(name: string): Buffer[] {
  return [
    hello(name, "serving"),
    inventory(
      name,
      GRAPHS.map(({ id }) => id),
    ),
    packed({ type: "edge", state: "busy", running: 9, waiting: 0 }),
  ];
}

/** An engine that is ready with none of them. */
function arriving(name: string): Buffer[] {
  return [hello(name, "serving"), inventory(name, [])];
}

function resultOf(name: string, { command, graph }: Capture, epoch: number): Buffer {
  return packed({
    type: "result",
    command,
    graph,
    outcome: "captured",
    stallMs: 50.25,
    ms: 50.25,
    bytes: 2 ** 21,
    ranks: ranksOf(name, epoch * 2 ** 21),
    epoch,
  });
}

for (let round = 0; round < Number(values.rounds); round++) {
  for (const build of values.build) {
    if (!existsSync(build))
      throw new Error(`Expected a build in ${build}: run \`npm run build:ts\`.`);
    const frame = await serving(build);
    for (let fill = 0; fill < FILLS_BEFORE; fill++) await filling(build);
    const { each, bytes, ms } = await filling(build);
    console.log(
      `${build}: ${(median(frame) ?? 0).toFixed(2)} us a telemetry frame ` +
        `(${Math.min(...frame).toFixed(2)} at best, of ${engines} engines), ` +
        `${(median(each) ?? 0).toFixed(0)} us a capture (${Math.min(...each).toFixed(0)} at best); ` +
        `${(bytes / 1024).toFixed(0)} KiB of heap an engine, ${ms.toFixed(2)} ms to collect`,
    );
  }
}
