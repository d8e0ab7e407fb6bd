/**
 * An engine that speaks the protocol over a real DEALER socket and captures nothing: it keeps a set
 * of graph ids. Tests script what differs from a healthy engine.
 */

import { randomBytes } from "node:crypto";
import { Dealer } from "zeromq";
import type { Graph } from "../../src/base/graph.ts";
import { decode, encode } from "../../src/wire/codec.ts";
import type {
  Capture,
  Captured,
  CaptureResult,
  FromEngine,
  Hello,
  Inventory,
  Phase,
  RankMemory,
  ToEngine,
} from "../../src/wire/protocol.ts";
import { TO_ENGINE } from "../../src/wire/validate.ts";

type Message<T extends ToEngine["type"]> = Extract<ToEngine, { type: T }>;

export interface FakeEngineOptions {
  readonly name?: string;
  readonly session?: string;
  readonly graphs?: readonly Graph[];
  readonly hello?: Partial<Hello>;
  /** Answers a capture command; undefined: no answer. */
  readonly onCapture?: (command: Capture, engine: FakeEngine) => Partial<CaptureResult> | undefined;
  /** Milliseconds between its heartbeats; 0: none. */
  readonly heartbeatMs?: number;
  /** CURVE: its own keys and the controller's public key. */
  readonly curve?: { publicKey: string; secretKey: string; serverKey: string };
}

export function plan(...sizes: readonly number[]): Graph[] {
  const descending = [...sizes].sort((a, b) => b - a);
  return [
    ...descending.map(
      (tokens): Graph => ({ id: `PIECEWISE:${tokens}`, kind: "PIECEWISE", tokens }),
    ),
    ...descending.map(
      (tokens): Graph => ({
        id: `FULL:${tokens}`,
        kind: "FULL",
        tokens,
        requests: tokens,
        uniform: 1,
      }),
    ),
  ];
}

/** What an inventory says of the engine besides its graphs and ranks. */
export const CONFIGURATION = {
  cudagraphMode: "FULL_AND_PIECEWISE",
  layers: 32,
  maxRequests: 256,
  maxBatchedTokens: 8192,
  kvCacheTokens: 100_000,
} as const;

export const RANK: RankMemory = {
  rank: 0,
  gpuUuid: "GPU-1",
  gpuName: "Fake GPU",
  totalBytes: 150_000_000_000,
  freeBytes: 10_000_000_000,
  reservedBytes: 1,
  poolBytes: 1,
  activationPeakBytes: 1,
};

export class FakeEngine implements AsyncDisposable {
  readonly graphs: readonly Graph[];
  /** Survives the controller, as a real engine's graphs do. */
  readonly captured = new Map<string, Captured>();
  readonly received: ToEngine[] = [];
  phase: Phase = "loading";
  #options: FakeEngineOptions;
  #socket: Dealer | undefined;
  #beat: NodeJS.Timeout | undefined;
  #epoch = 0;
  #waiters: (() => void)[] = [];
  readonly hello: Hello;

  constructor(options: FakeEngineOptions = {}) {
    this.#options = options;
    this.graphs = options.graphs ?? plan(1, 2, 4, 8);
    this.hello = {
      type: "hello",
      versionMin: 1,
      versionMax: 1,
      engine: options.name ?? "engine-0",
      session: options.session ?? randomBytes(8).toString("hex"),
      pluginVersion: "0.1.0",
      vllmVersion: "0.26.0",
      model: "fake/model",
      host: "localhost",
      pid: process.pid,
      phase: "loading",
      mode: "idle",
      tensorParallel: 1,
      pipelineParallel: 1,
      ...options.hello,
    };
  }

  /** Connects and says hello. */
  async connect(endpoint: string): Promise<void> {
    const { curve, heartbeatMs = 10 } = this.#options;
    const socket = new Dealer({
      linger: 0,
      ...(curve === undefined
        ? {}
        : {
            curvePublicKey: curve.publicKey,
            curveSecretKey: curve.secretKey,
            curveServerKey: curve.serverKey,
          }),
    });
    socket.connect(endpoint);
    this.#socket = socket;
    void this.#read(socket);
    this.send({ ...this.hello, phase: this.phase });
    if (heartbeatMs > 0) {
      this.#beat = setInterval(() => this.send({ type: "heartbeat" }), heartbeatMs);
    }
  }

  disconnect(): void {
    clearInterval(this.#beat);
    this.#socket?.close();
    this.#socket = undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.disconnect();
  }

  send(message: FromEngine): void {
    this.sendFrame(encode(message));
  }

  #sending: Promise<void> = Promise.resolve();

  /** Frames go out in order, one at a time; what a closed socket can't send is dropped. */
  sendFrame(frame: Uint8Array | Uint8Array[]): void {
    const socket = this.#socket;
    this.#sending = this.#sending.then(() => socket?.send(frame)).catch(() => undefined);
  }

  /** Resolves once everything handed over so far has been sent. */
  async flushed(): Promise<void> {
    await this.#sending;
  }

  /** Resolves with the nth message of a type (1 = first), received already or to come. */
  async got<T extends ToEngine["type"]>(type: T, nth = 1): Promise<Message<T>> {
    for (;;) {
      const matching = this.received.filter((message) => message.type === type);
      const message = matching[nth - 1];
      if (message !== undefined) return message as Message<T>;
      await new Promise<void>((resolve) => this.#waiters.push(resolve));
    }
  }

  ofType<T extends ToEngine["type"]>(type: T): Message<T>[] {
    return this.received.filter((message) => message.type === type) as Message<T>[];
  }

  inventory(more: Partial<Inventory> = {}): void {
    this.send({
      type: "inventory",
      phase: this.phase,
      graphs: this.graphs,
      captured: [...this.captured.values()],
      ranks: [RANK],
      ...CONFIGURATION,
      epoch: this.#epoch,
      ...more,
    });
  }

  edge(state: "idle" | "busy"): void {
    this.send({ type: "edge", state, running: state === "busy" ? 1 : 0, waiting: 0 });
  }

  /** One telemetry batch: `count` decode steps of `tokens` requests. */
  steps(tokens: number, count: number, served = ""): void {
    const step = { tokens, requests: tokens, uniform: 1, served, count };
    this.send({
      type: "telemetry",
      sequence: 1,
      dropped: 0,
      steps: [{ ...step, seconds: 0, timed: 0, contextTokens: 0 }],
      running: 0,
      waiting: 0,
    });
  }

  capture(graph: string): Captured {
    const entry = { graph, ms: 1.5, bytes: 1_000_000 };
    this.captured.set(graph, entry);
    this.#epoch += 1;
    return entry;
  }

  result(command: Capture, more: Partial<CaptureResult> = {}): void {
    const { graph } = command;
    const already = this.captured.has(graph);
    const outcome = more.outcome ?? (already ? "already" : "captured");
    if (outcome === "captured") this.capture(graph);
    this.send({
      type: "result",
      command: command.command,
      graph,
      outcome,
      stallMs: 2.5,
      ms: 1.5,
      bytes: 1_000_000,
      ranks: [RANK],
      epoch: this.#epoch,
      ...more,
    });
  }

  async #read(socket: Dealer): Promise<void> {
    try {
      for await (const [frame] of socket) {
        const message = frame && decode(frame, TO_ENGINE);
        if (message === undefined) continue;
        this.received.push(message);
        this.#react(message);
        for (const wake of this.#waiters.splice(0)) wake();
      }
    } catch {
      // The socket was closed in the middle of a receive.
    }
  }

  #react(message: ToEngine): void {
    switch (message.type) {
      case "welcome":
        this.inventory();
        break;
      case "start":
        if (this.phase === "serving") break;
        this.phase = "serving";
        this.send({
          type: "ready",
          captureSeconds: 0.25,
          captured: message.graphs.map((graph) => this.capture(graph)),
          ranks: [RANK],
          epoch: this.#epoch,
        });
        break;
      case "capture": {
        const answer = this.#options.onCapture ?? (() => ({}));
        const more = answer(message, this);
        if (more !== undefined) this.result(message, more);
        break;
      }
      case "resync":
        if (message.hello === true) this.send({ ...this.hello, phase: this.phase });
        else this.inventory();
        break;
      default:
        break;
    }
  }
}
