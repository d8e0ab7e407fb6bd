/**
 * Simulated engines for `npm run bench:fleet`, all in this process: each has a socket of its own and
 * speaks the protocol, and nothing of it runs but its captures, which take their time one after
 * another. They come one by one over some seconds; told to serve, they get busy within five seconds
 * and send telemetry ten times a second, each at moments of its own.
 *
 *   node --import tsx bench/lib/fleet-engines.ts ENDPOINT     (started with an IPC channel)
 */

import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { pack, unpack } from "msgpackr";
import { Dealer } from "zeromq";
import { GIB, MIB } from "../../src/base/units.ts";
import { sortedOf, sortedQuantile } from "../../src/measure/statistics.ts";
import type { Capture, RankMemory, Start, Welcome } from "../../src/wire/protocol.ts";
import { GRAPHS, packed, telemetry } from "./fleet-frames.ts";
import type { EngineFigures, ToEngines } from "./fleet-messages.ts";
import { monotonicMs, typeOf } from "./fleet-probe.ts";
import { Pacer } from "./pacer.ts";

const CAPTURE_MS = 50;
const TELEMETRY_MS = 100;
/** Traffic comes to one engine after another: a thousand don't get busy in one moment. */
const BUSY_WITHIN_MS = 5000;
const telemetries = new Pacer(TELEMETRY_MS);
/** By their period. */
const heartbeats = new Map<number, Pacer>();

function stamped(frame: Buffer): Buffer {
  frame.writeDoubleBE(monotonicMs(), frame.length - 8);
  return frame;
}

/** 64-bit integers as such: msgpackr writes large ones as floats, which the protocol refuses. */
function ranksOf(name: string, taken: number): RankMemory[] {
  const bytes = (count: number): number => BigInt(count) as unknown as number;
  return [
    {
      rank: 0,
      gpuUuid: `GPU-${name}`,
      gpuName: "simulated",
      totalBytes: bytes(141 * GIB),
      freeBytes: bytes(20 * GIB - taken),
      reservedBytes: bytes(100 * GIB),
      poolBytes: taken,
      activationPeakBytes: 896 * MIB,
    },
  ];
}

const figures = {
  welcomed: 0,
  captures: 0,
  missedHeartbeats: 0,
  longestSilenceMs: 0,
  resyncs: 0,
  refusals: 0,
  telemetry: 0,
};
let firstReadyAt = 0;
let lastSettledAt = 0;
let answerMs: number[] = [];

class SimulatedEngine {
  readonly #name: string;
  readonly #session = randomBytes(8).toString("hex");
  readonly #socket: Dealer;
  readonly #captured: { graph: string; ms: number; bytes: number }[] = [];
  readonly #queue: (Capture | undefined)[] = [];
  #outbox: Buffer[] = [];
  #sending = false;
  #heartbeatMs = 1000;
  #heardAt = 0;
  #resultAt = 0;
  #epoch = 0;
  #sequence = 0;
  #capturing = false;
  #isBeating = false;
  #isServing = false;
  readonly #heartbeat = Buffer.from(pack({ type: "heartbeat" }));
  isWelcomed = false;
  isReady: boolean;
  isSettled = false;
  readyAt = 0;
  settledAt = 0;

  constructor(name: string, endpoint: string, full: boolean) {
    this.#name = name;
    this.isReady = full;
    if (full) for (const { id } of GRAPHS) this.#hold(id);
    this.#socket = new Dealer({
      linger: 0,
      sendTimeout: 0,
      routingId: randomBytes(8).toString("hex"),
    });
    this.#socket.connect(endpoint);
    void this.#read();
    void this.#hello();
  }

  get engine(): string {
    return this.#name;
  }

  async #hello(): Promise<void> {
    while (!this.isWelcomed) {
      this.#send(
        packed({
          type: "hello",
          versionMin: 1,
          versionMax: 2,
          engine: this.#name,
          session: this.#session,
          pluginVersion: "0.1.0",
          vllmVersion: "0.33.0",
          model: "simulated",
          host: "simulated",
          pid: process.pid,
          phase: this.isReady ? "serving" : "loading",
          mode: "idle",
          tensorParallel: 1,
          pipelineParallel: 1,
          simulated: "fleet",
        }),
      );
      await sleep(1000);
    }
  }

  #send(frame: Buffer): void {
    this.#outbox.push(frame);
    if (!this.#sending) void this.#flush();
  }

  async #flush(): Promise<void> {
    this.#sending = true;
    for (let frame = this.#outbox.shift(); frame !== undefined; frame = this.#outbox.shift()) {
      if (frame !== this.#heartbeat) stamped(frame);
      await this.#socket.send(frame).catch(() => undefined);
    }
    this.#sending = false;
  }

  async #read(): Promise<void> {
    for await (const [frame] of this.#socket) {
      if (frame !== undefined) this.#receive(frame);
    }
  }

  #receive(frame: Buffer): void {
    const now = monotonicMs();
    if (this.isWelcomed) {
      // A beat comes at least once an interval: one more without any is one that was missed.
      const silentMs = now - this.#heardAt;
      figures.longestSilenceMs = Math.max(figures.longestSilenceMs, silentMs);
      if (silentMs > 2 * this.#heartbeatMs) figures.missedHeartbeats += 1;
    }
    this.#heardAt = now;
    switch (typeOf(frame)) {
      case "welcome":
        this.#welcome(unpack(frame) as Welcome);
        break;
      case "start":
        void this.#start(unpack(frame) as Start);
        break;
      case "capture":
        if (this.#resultAt > 0) answerMs.push(now - this.#resultAt);
        this.#resultAt = 0;
        this.#queue.push(unpack(frame) as Capture);
        void this.#capture();
        break;
      case "freeze":
        this.#settled(now);
        break;
      case "resync": {
        figures.resyncs += 1;
        const { hello } = unpack(frame) as { hello?: boolean };
        if (hello === true) {
          this.isWelcomed = false;
          void this.#hello();
        } else this.#inventory();
        break;
      }
      case "refuse":
        figures.refusals += 1;
        break;
    }
  }

  #welcome({ heartbeatMs }: Welcome): void {
    if (!this.isWelcomed) figures.welcomed += 1;
    this.isWelcomed = true;
    this.#heartbeatMs = heartbeatMs;
    this.#inventory();
    if (this.#isBeating) return;
    this.#isBeating = true;
    const pacer = heartbeats.get(heartbeatMs) ?? new Pacer(heartbeatMs);
    heartbeats.set(heartbeatMs, pacer);
    pacer.add(() => {
      if (this.isWelcomed) this.#send(this.#heartbeat);
    });
  }

  #inventory(): void {
    this.#send(
      packed({
        type: "inventory",
        phase: this.isReady ? "serving" : "loading",
        graphs: GRAPHS,
        captured: this.#captured,
        ranks: ranksOf(this.#name, 0),
        cudagraphMode: "FULL_AND_PIECEWISE",
        layers: 32,
        maxRequests: 512,
        maxBatchedTokens: 8192,
        kvCacheTokens: 500_000,
        epoch: this.#epoch,
      }),
    );
  }

  async #start({ graphs, more = [], budgetMs = 0 }: Start): Promise<void> {
    if (this.isReady || this.readyAt > 0) return;
    this.readyAt = monotonicMs();
    let usedMs = 0;
    for (const graph of graphs) {
      await sleep(CAPTURE_MS);
      usedMs += CAPTURE_MS;
      this.#hold(graph);
    }
    const skipped: string[] = [];
    for (const graph of more) {
      if (usedMs + CAPTURE_MS > budgetMs) skipped.push(graph);
      else {
        await sleep(CAPTURE_MS);
        usedMs += CAPTURE_MS;
        this.#hold(graph);
      }
    }
    this.isReady = true;
    this.readyAt = monotonicMs();
    if (firstReadyAt === 0) firstReadyAt = this.readyAt;
    this.#send(
      packed({
        type: "ready",
        captureSeconds: usedMs / 1000,
        captured: this.#captured,
        ranks: ranksOf(this.#name, 0),
        epoch: this.#epoch,
        skipped,
      }),
    );
  }

  #hold(graph: string): { graph: string; ms: number; bytes: number } {
    const entry = { graph, ms: CAPTURE_MS, bytes: 2 * MIB };
    this.#captured.push(entry);
    this.#epoch += 1;
    return entry;
  }

  async #capture(): Promise<void> {
    if (this.#capturing) return;
    this.#capturing = true;
    for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) {
      await sleep(CAPTURE_MS);
      const { ms, bytes } = this.#hold(next.graph);
      figures.captures += 1;
      this.#resultAt = monotonicMs();
      this.#send(
        packed({
          type: "result",
          command: next.command,
          graph: next.graph,
          outcome: "captured",
          stallMs: ms + 0.25,
          ms: ms + 0.25,
          bytes,
          ranks: ranksOf(this.#name, bytes * this.#captured.length),
          epoch: this.#epoch,
        }),
      );
    }
    this.#capturing = false;
  }

  #settled(now: number): void {
    if (this.isSettled) return;
    this.isSettled = true;
    this.settledAt = now;
    lastSettledAt = now;
  }

  /** Telemetry from now on, at a time of its own within the tenth of a second. */
  serve(): void {
    if (this.#isServing) return;
    this.#isServing = true;
    setTimeout(() => this.#getBusy(), Math.random() * BUSY_WITHIN_MS);
  }

  #getBusy(): void {
    this.#send(packed({ type: "edge", state: "busy", running: 9, waiting: 0 }));
    telemetries.add(() => {
      if (!this.isWelcomed) return;
      figures.telemetry += 1;
      this.#sequence += 1;
      this.#send(telemetry(this.#sequence));
    });
  }
}

const [endpoint] = process.argv.slice(2);
if (endpoint === undefined) throw new Error("Expected the controller's endpoint, got none.");
const engines: SimulatedEngine[] = [];
let cpu = process.cpuUsage();
let cpuAt = monotonicMs();

async function arrive(count: number, seconds: number, full: boolean): Promise<void> {
  const began = monotonicMs();
  for (let n = 0; n < count; n += 1) {
    const wait = began + (n * seconds * 1000) / count - monotonicMs();
    if (wait > 0) await sleep(wait);
    engines.push(new SimulatedEngine(`e${engines.length}`, endpoint as string, full));
  }
}

function collect(): EngineFigures {
  const used = process.cpuUsage(cpu);
  const now = monotonicMs();
  const busyShare = (used.user + used.system) / 1000 / (now - cpuAt);
  cpu = process.cpuUsage();
  cpuAt = now;
  const settled = engines.filter(({ isSettled }) => isSettled);
  const took = sortedOf(settled.map(({ readyAt, settledAt }) => (settledAt - readyAt) / 1000));
  const answers = sortedOf(answerMs);
  answerMs = [];
  const at = (values: Float64Array, share: number): number =>
    values.length === 0 ? 0 : sortedQuantile(values, share);
  const { missedHeartbeats, longestSilenceMs } = figures;
  figures.missedHeartbeats = 0;
  figures.longestSilenceMs = 0;
  return {
    ...figures,
    missedHeartbeats,
    longestSilenceMs,
    connected: engines.length,
    ready: engines.filter(({ isReady }) => isReady).length,
    settled: settled.length,
    allSettledSeconds: settled.length < engines.length ? 0 : (lastSettledAt - firstReadyAt) / 1000,
    settleP50Seconds: at(took, 0.5),
    settleMaxSeconds: at(took, 1),
    answerP50Ms: at(answers, 0.5),
    answerP99Ms: at(answers, 0.99),
    busyShare,
  };
}

process.on("message", (message: ToEngines) => {
  if (message.type === "arrive") void arrive(message.engines, message.seconds, message.full);
  else if (message.type === "serve") for (const engine of engines) engine.serve();
  else if (message.type === "exit") process.exit(0);
  else process.send?.({ type: "figures", figures: collect() });
});
