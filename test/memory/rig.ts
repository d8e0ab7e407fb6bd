/** One driver without sockets whose engine has a GPU of so many bytes: both move when told to. */

import type { Graph } from "../../src/base/graph.ts";
import { EngineDriver } from "../../src/engine/driver.ts";
import { type SharedMemory, sharedMemory } from "../../src/engine/shared-memory.ts";
import { servingClaim } from "../../src/memory/headroom.ts";
import { costSeedOf } from "../../src/profile/cost-seed.ts";
import { loadProfile } from "../../src/profile/load.ts";
import { createCostPolicy } from "../../src/schedule/costed/costed.ts";
import { createPolicy } from "../../src/schedule/modes/modes.ts";
import type { Policy } from "../../src/schedule/policy.ts";
import type { CaptureResult, Mode, RankMemory, ToEngine } from "../../src/wire/protocol.ts";
import { Session } from "../../src/wire/session.ts";
import { FakeClock } from "../helpers/fake-clock.ts";
import { CONFIGURATION, FakeEngine, plan, RANK } from "../helpers/fake-engine.ts";
import { noteSent } from "../helpers/pinned-log.ts";

export const MIB = 1024 * 1024;
export const PLANNED: readonly Graph[] = plan(1, 2, 4, 8, 16, 32, 64, 128, 256);
export const PEAK: number = 100 * MIB;
/** What serving needs at first: the peak and an allowance (headroom.test.ts). */
export const CLAIM: number = claimOf(PEAK);
/** What a graph takes; the first of a pool takes its pool as well. */
const GRAPH_BYTES = { FULL: 2 * MIB, PIECEWISE: 3 * MIB } as const;
const POOL_BYTES = 3 * MIB;

/** What an engine that has served nothing needs for serving. */
export function claimOf(activationPeakBytes: number): number {
  const rank = { ...RANK, activationPeakBytes };
  const { peakBytes, marginBytes } = servingClaim(rank, rank, undefined);
  return peakBytes + marginBytes;
}

type Message<T extends ToEngine["type"]> = Extract<ToEngine, { type: T }>;

export interface RigOptions {
  readonly mode?: Mode;
  readonly freeBytes: number;
  readonly policy?: "simple" | "costed";
  readonly shared?: SharedMemory;
  readonly name?: string;
  readonly latent?: boolean;
}

export class MemoryRig {
  readonly clock: FakeClock;
  readonly sent: ToEngine[] = [];
  readonly driver: EngineDriver;
  readonly captured = new Map<string, number>();
  freeBytes: number;
  phase: "capturing" | "serving" = "capturing";
  readonly #hello;
  readonly #session: Session;
  readonly #latent: boolean;
  #tiers: readonly (readonly string[])[] = [];
  #commands = 0;

  constructor(options: RigOptions, clock: FakeClock = new FakeClock()) {
    const { mode = "idle", freeBytes, policy = "simple", shared = sharedMemory() } = options;
    this.clock = clock;
    this.#latent = options.latent ?? false;
    this.freeBytes = freeBytes;
    this.#hello = new FakeEngine({ name: options.name ?? "tight" }).hello;
    this.#session = new Session(this.#hello, {
      clock,
      send: (message) => {
        this.sent.push(message);
        noteSent(message);
        return true;
      },
      heartbeatMs: 600_000,
      captureTimeoutMs: 600_000,
      incarnation: 1,
      nextCommand: () => {
        this.#commands += 1;
        return this.#commands;
      },
      onLost: (error) => this.driver.detach(error),
    });
    const costs = costSeedOf(loadProfile());
    this.driver = new EngineDriver(this.#hello, mode, this.#session, {
      clock,
      policy: (wanted): Policy =>
        policy === "costed" && wanted !== "eager"
          ? createCostPolicy({ mode: wanted, costs })
          : createPolicy(wanted),
      settleWithinSeconds: undefined,
      memory: shared,
      onChange: () => undefined,
    });
    this.driver.join();
  }

  get ranks(): RankMemory[] {
    return [{ ...RANK, activationPeakBytes: PEAK, freeBytes: this.freeBytes, poolBytes: 0 }];
  }

  /** Inventory, start, ready: what was asked for is captured. */
  start(): Message<"start"> {
    this.inventory();
    const start = this.last("start");
    if (start === undefined) throw new Error("no start");
    this.#tiers = start.tiers ?? [];
    for (const id of start.graphs) this.#take(id);
    this.phase = "serving";
    this.driver.receive({
      type: "ready",
      captureSeconds: 1,
      captured: this.#held(),
      ranks: this.ranks,
      epoch: this.driver.record.epoch,
    });
    return start;
  }

  inventory(): void {
    this.driver.receive({
      type: "inventory",
      phase: this.phase,
      graphs: PLANNED,
      captured: this.#held(),
      ranks: this.ranks,
      ...CONFIGURATION,
      ...(this.#latent ? { latent: true } : {}),
      epoch: this.driver.record.epoch,
      ...(this.#tiers.length === 0 ? {} : { tiers: this.#tiers }),
    });
  }

  heartbeat(): void {
    this.driver.receive({ type: "heartbeat", ranks: this.ranks });
  }

  edge(state: "idle" | "busy"): void {
    this.driver.receive({ type: "edge", state, running: 0, waiting: 0 });
  }

  steps(tokens: number, count: number): void {
    const step = { tokens, requests: tokens, uniform: 1, served: "", count, seconds: 0, timed: 0 };
    const steps = [{ ...step, contextTokens: 0 }];
    const load = { running: 0, waiting: 0 };
    this.driver.receive({ type: "telemetry", sequence: 1, dropped: 0, steps, ...load });
  }

  /** The open command, once the queue has handed it over; undefined: none. */
  async command(): Promise<Message<"capture"> | Message<"drop"> | undefined> {
    // More turns than the queue and a reservation take.
    for (let turn = 0; turn < 20; turn++) await Promise.resolve();
    const commands = this.sent.filter(({ type }) => type === "capture" || type === "drop");
    const command = commands[this.#answered];
    return command as Message<"capture"> | Message<"drop"> | undefined;
  }
  #answered = 0;

  /** Answers the open command as a sound engine does, or with this outcome. */
  async answer(more: Partial<CaptureResult> = {}): Promise<ToEngine | undefined> {
    const command = await this.command();
    if (command === undefined) return undefined;
    this.#answered++;
    if (command.type === "drop") {
      const outcome = more.outcome === "refused" ? "refused" : "dropped";
      const freed = outcome === "dropped" ? this.#drop(command.graphs) : 0;
      this.driver.receive({
        type: "dropped",
        command: command.command,
        outcome,
        graphs: outcome === "dropped" ? command.graphs : [],
        freedBytes: freed,
        ...(outcome === "dropped" ? {} : { reason: "not now" }),
        ranks: this.ranks,
        epoch: this.driver.record.epoch,
      });
    } else {
      const outcome = more.outcome ?? "captured";
      const bytes = outcome === "captured" ? this.#take(command.graph) : 0;
      this.driver.receive({
        type: "result",
        command: command.command,
        graph: command.graph,
        outcome,
        stallMs: 1,
        ms: 1,
        bytes,
        ranks: this.ranks,
        epoch: this.driver.record.epoch,
        ...more,
      });
    }
    await this.command();
    return command;
  }

  /** Answers everything until no command is open; returns what was asked. */
  async drain(): Promise<ToEngine[]> {
    const asked: ToEngine[] = [];
    for (;;) {
      const command = await this.answer();
      if (command === undefined) return asked;
      asked.push(command);
      if (asked.length > 1000) throw new Error("captures without end");
    }
  }

  last<T extends ToEngine["type"]>(type: T): Message<T> | undefined {
    return this.ofType(type).at(-1);
  }

  ofType<T extends ToEngine["type"]>(type: T): Message<T>[] {
    return this.sent.filter((message) => message.type === type) as Message<T>[];
  }

  status(id: string): string | undefined {
    const entry = this.driver.record.state?.graphs.get(id);
    return entry?.retryable === true ? "waiting" : entry?.status;
  }

  count(status: string): number {
    return PLANNED.filter(({ id }) => this.status(id) === status).length;
  }

  #held(): { graph: string; ms: number; bytes: number }[] {
    return [...this.captured].map(([graph, bytes]) => ({ graph, ms: 1, bytes }));
  }

  #pool(id: string): number {
    return this.#tiers.findIndex((tier) => tier.includes(id));
  }

  #take(id: string): number {
    const graph = PLANNED.find((entry) => entry.id === id) as Graph;
    const mates = [...this.captured.keys()].some((mate) => this.#pool(mate) === this.#pool(id));
    const bytes = GRAPH_BYTES[graph.kind] + (mates ? 0 : POOL_BYTES);
    this.captured.set(id, bytes);
    this.freeBytes -= bytes;
    return bytes;
  }

  #drop(ids: readonly string[]): number {
    let freed = 0;
    for (const id of ids) {
      freed += this.captured.get(id) ?? 0;
      this.captured.delete(id);
    }
    this.freeBytes += freed;
    return freed;
  }
}
