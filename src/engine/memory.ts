/**
 * Memory of one engine, between its driver and the guard: what it reports goes into the guard, and
 * what the guard refuses, gives back or gives up changes the engine's graphs and is announced.
 * Every capture passes `reserve` before it is sent.
 */

import type { Clock } from "../base/clock.ts";
import type { Graph } from "../base/graph.ts";
import type { RecordedBytes } from "../memory/forecast.ts";
import type { HostGpus } from "../memory/gpus.ts";
import { type Grant, MemoryGuard } from "../memory/guard.ts";
import { MemoryLedger } from "../memory/ledger.ts";
import type { MemoryOptions } from "../memory/options.ts";
import { type EngineState, waitingForMemory } from "../schedule/state.ts";
import type { Captured, CaptureResult, Dropped, Inventory, Start } from "../wire/protocol.ts";
import { announceDropped, announceRefused, announceRoom } from "./announce.ts";
import { mib } from "./memory-line.ts";
import { blockGraph, type EngineRecord, setStatus } from "./record.ts";

/** What all engines of a controller share, and the user's settings. */
export interface MemoryDesk {
  readonly ledger: MemoryLedger;
  /** Undefined where the user turned it off. */
  readonly gpus: HostGpus | undefined;
  readonly marginBytes: number | undefined;
  readonly utilization: number | undefined;
}

/** @param gpus this host's; undefined: only the engines' own figures count */
export function memoryDesk(options: Partial<MemoryOptions> = {}, gpus?: HostGpus): MemoryDesk {
  const { marginBytes, utilization } = options;
  return { ledger: new MemoryLedger(), gpus, marginBytes, utilization };
}

export interface EngineMemoryOptions {
  readonly clock: Clock;
  readonly desk: MemoryDesk;
  /** Graphs changed their status: the policy is to be asked. */
  readonly onChange: (graphs: readonly string[]) => void;
  /** These captured graphs, a tier, are to be dropped; answer with `dropped` or `kept`. */
  readonly onSurplus: (graphs: readonly Graph[]) => void;
  /** Room has come back after captures had ended. */
  readonly onReopen: () => void;
}

/** Between two attempts to give up a tier. */
const DROP_SECONDS_MIN = 1;
/** Between two looks at free memory that only time is the reason for. */
const REVIEW_SECONDS_MIN = 2;
/** An engine that is lost for longer needs no memory kept for its serving: most often it is dead. */
const LOST_CLAIM_SECONDS = 60;

export class EngineMemory {
  readonly #record: EngineRecord;
  readonly #options: EngineMemoryOptions;
  readonly #guard: MemoryGuard;
  #state: EngineState | undefined;
  #release: (() => void) | undefined;
  #cancelReview: (() => void) | undefined;
  #cancelForget: (() => void) | undefined;
  #dropping = false;
  #dropAtSeconds = Number.NEGATIVE_INFINITY;
  #refusals = 0;
  #closed = false;

  constructor(record: EngineRecord, options: EngineMemoryOptions) {
    this.#record = record;
    this.#options = options;
    const { ledger, gpus, marginBytes } = options.desk;
    this.#guard = new MemoryGuard({
      engine: record.hello.session,
      ledger,
      marginBytes,
      driverFree: (gpu) => gpus?.freeBytes(gpu),
      now: () => options.clock.now(),
    });
    record.guard = this.#guard;
    record.utilization = options.desk.utilization;
  }

  // ---------------------------------------------------------------- what the engine told

  /** Call after an inventory was applied. */
  inventory(message: Inventory, recorded: RecordedBytes | undefined): void {
    const { state, hello } = this.#record;
    this.#cancelForget?.();
    this.#cancelForget = undefined;
    if (state === undefined) return;
    if (state !== this.#state) {
      this.#state = state;
      const ranks = Math.max(1, hello.tensorParallel * hello.pipelineParallel);
      const peaks = message.ranks.map((rank) => rank.activationPeakBytes);
      const activationPeakBytes = Math.max(0, ...peaks);
      const { layers, reserve } = message;
      const shape = { layers, ranks, activationPeakBytes, reserve };
      this.#guard.plan(state.planned, shape, recorded);
    }
    this.#guard.adopt(message.tiers ?? []);
    this.#report();
    this.#learn(message.captured);
    const { gpus, ledger } = this.#options.desk;
    if (gpus === undefined || hello.simulated !== undefined) return;
    const names = this.#record.ranks.map((rank) => rank.gpuUuid);
    void gpus.follow(names, (gpu) => ledger.spokenFor(gpu)).then(() => this.review());
  }

  /** Call after `ready` was applied. */
  ready(captured: readonly Captured[]): void {
    this.#letGo();
    this.#report();
    this.#learn(captured);
    this.#reviewLater();
  }

  /** Call after a result was applied. */
  result(message: CaptureResult, answered: boolean): void {
    if (answered) this.#letGo();
    if (message.ranks.length > 0) this.#report();
    if (message.outcome === "captured") this.#learn([message]);
    if (message.outcome !== "refused" || message.refusal !== "headroom") return;
    this.#guard.refused();
    this.#reviewLater();
  }

  /** Call after a heartbeat brought the ranks' memory. */
  heartbeat(): void {
    this.#report();
    this.review();
  }

  /**
   * The connection is gone: whether an open capture happened, readings will show. What serving
   * claims goes with an engine that said goodbye, and soon with any other that stays away: its
   * driver may outlive it for good, while others start on that GPU under names of their own.
   */
  detach(): void {
    this.#endWaits();
    if (this.#record.phase === "stopping") {
      this.#guard.close();
      return;
    }
    this.#cancelForget = this.#options.clock.after(LOST_CLAIM_SECONDS, () => {
      this.#cancelForget = undefined;
      // Its next report claims anew.
      if (!this.#record.connected) this.#guard.close();
    });
  }

  close(): void {
    this.#closed = true;
    this.#endWaits();
    this.#guard.close();
  }

  #endWaits(): void {
    this.#letGo();
    this.#cancelReview?.();
    this.#cancelReview = undefined;
    this.#cancelForget?.();
    this.#cancelForget = undefined;
  }

  // ---------------------------------------------------------------- what may be captured

  /** The first set as far as it fits, and the pools it needs. */
  start(wanted: readonly Graph[]): Omit<Start, "type"> {
    const { state } = this.#record;
    if (state === undefined) return { graphs: wanted.map(({ id }) => id) };
    const fit = this.#guard.start(wanted, state);
    if (fit.needBytes > 0) this.#release = this.#guard.hold(fit.needBytes);
    const blocked = fit.blocked.filter(({ id }) => state.graphs.get(id)?.status === "planned");
    if (blocked.length > 0) {
      const availableBytes = this.#guard.headroom()?.bytes ?? 0;
      const ids = blocked.map(({ id }) => id);
      const needBytes = this.#restBytes((id) => ids.includes(id));
      this.#refuse(ids, needBytes, availableBytes);
    }
    const graphs = fit.graphs.map(({ id }) => id);
    const tiers = this.#guard.tierLists(state.planned);
    return tiers === undefined ? { graphs } : { graphs, tiers };
  }

  /**
   * Reserves what a capture will take, by a fresh reading where this host has the GPU.
   *
   * @returns undefined when it does not fit: its graphs are marked, and the policy has been told
   */
  async reserve(graph: Graph): Promise<Grant | undefined> {
    const { gpus } = this.#options.desk;
    const { state, ranks } = this.#record;
    if (gpus?.source !== undefined) await gpus.refresh(ranks.map((rank) => rank.gpuUuid));
    // Meanwhile the engine may have left, or come back and be asked for another graph.
    if (state === undefined || this.#closed || state.capturing !== graph.id) return undefined;
    const answer = this.#guard.reserve(graph, state);
    if (answer.granted) {
      this.#letGo();
      this.#release = answer.release;
      return answer;
    }
    state.capturing = undefined;
    this.#refuse(answer.graphs, answer.needBytes, answer.availableBytes);
    this.#options.onChange(answer.graphs);
    return undefined;
  }

  /** Ends the reservation of a capture that was not sent after all. */
  abandon(): void {
    this.#letGo();
  }

  /** Asks again for what fits by now, and gives up a tier where serving runs short. */
  review(): void {
    const { state } = this.#record;
    if (this.#closed || state === undefined || !state.ready || !this.#record.connected) return;
    this.#thresholds();
    if (!this.#drop(state)) this.#return(state);
    this.#reviewLater();
  }

  // ---------------------------------------------------------------- tiers

  /** The engine dropped these, and gave this much back. */
  dropped({ graphs, freedBytes, ranks }: Dropped): void {
    this.#dropping = false;
    if (this.#closed) return;
    if (ranks.length > 0) this.#report();
    this.#guard.dropped(graphs);
    announceDropped(this.#record, graphs, freedBytes);
    this.#reviewLater();
  }

  /** The drop did not happen: the graphs are still there. */
  kept(graphs: readonly Graph[], reason: string): void {
    this.#dropping = false;
    for (const { id } of graphs) {
      const entry = this.#record.state?.graphs.get(id);
      if (entry?.retryable === true) setStatus(entry, "captured", reason);
    }
    this.#options.onChange(graphs.map(({ id }) => id));
    this.#reviewLater();
  }

  #drop(state: EngineState): boolean {
    const now = this.#options.clock.now();
    if (this.#dropping || now < this.#dropAtSeconds || state.capturing !== undefined) return false;
    const graphs = this.#guard.surplus(state);
    if (graphs.length === 0) return false;
    this.#dropping = true;
    this.#dropAtSeconds = now + DROP_SECONDS_MIN;
    this.#guard.refused();
    for (const { id } of graphs) {
      const entry = state.graphs.get(id);
      if (entry !== undefined) blockGraph(entry, "dropped: serving needs its memory");
    }
    // The table first: no step is to ask for a graph that is about to go.
    this.#options.onChange(graphs.map(({ id }) => id));
    this.#options.onSurplus(graphs);
    return true;
  }

  // ---------------------------------------------------------------- the rest

  #return(state: EngineState): void {
    if (this.#dropping || state.frozen || waitingForMemory(state) === 0) return;
    // Its answer will say how much is free.
    if (state.capturing !== undefined) return;
    if (this.#record.mode === "eager" && state.settled) return;
    const { graphs, probe } = this.#guard.returning(state);
    if (graphs.length === 0) return;
    for (const id of graphs) {
      const entry = state.graphs.get(id);
      if (entry !== undefined) setStatus(entry, "planned", "asked for again: memory may suffice");
    }
    if (!probe) announceRoom(this.#record, graphs, this.#guard.headroom()?.bytes ?? 0);
    if (state.settled) this.#options.onReopen();
    else this.#options.onChange(graphs);
  }

  #refuse(graphs: readonly string[], needBytes: number, availableBytes: number): void {
    const { state } = this.#record;
    if (state === undefined) return;
    this.#guard.refused();
    const available = mib(Math.max(0, availableBytes));
    const reason = `needs up to ${mib(needBytes)}, and ${available} are left beside serving`;
    for (const id of graphs) {
      const entry = state.graphs.get(id);
      if (entry !== undefined) blockGraph(entry, reason);
    }
    this.#refusals += 1;
    const repeated = this.#refusals > 1;
    const refusal = { graphs, needBytes, availableBytes, repeated };
    announceRefused(this.#record, state, refusal, reason);
    this.#reviewLater();
  }

  #restBytes(counts: (id: string) => boolean): number {
    const { state } = this.#record;
    const rest = state === undefined ? undefined : this.#guard.rest(state, counts);
    return rest === undefined ? 0 : rest.bytes + rest.errorBytes;
  }

  #learn(captured: readonly { readonly graph: string; readonly bytes: number }[]): void {
    const { state } = this.#record;
    if (state === undefined) return;
    const known = captured.flatMap(({ graph: id, bytes }) => {
      const graph = state.graphs.get(id)?.graph;
      return graph === undefined ? [] : [{ graph, bytes }];
    });
    this.#guard.captured(known, state);
  }

  #report(): void {
    this.#guard.report(this.#record.ranks);
    this.#thresholds();
  }

  #thresholds(): void {
    const { gpus, ledger } = this.#options.desk;
    for (const { gpuUuid } of this.#record.ranks) {
      gpus?.threshold(gpuUuid, ledger.spokenFor(gpuUuid));
    }
  }

  #letGo(): void {
    this.#release?.();
    this.#release = undefined;
  }

  /** One timer at most, and only while something waits for memory. */
  #reviewLater(): void {
    const { state, connected, ranks } = this.#record;
    this.#cancelReview?.();
    this.#cancelReview = undefined;
    if (this.#closed || !connected || state === undefined || waitingForMemory(state) === 0) return;
    const { clock, desk } = this.#options;
    const seconds = Math.max(REVIEW_SECONDS_MIN, this.#guard.retryAtSeconds - clock.now());
    this.#cancelReview = clock.after(seconds, () => {
      if (desk.gpus?.source === undefined) this.review();
      else void desk.gpus.refresh(ranks.map((rank) => rank.gpuUuid)).then(() => this.review());
    });
  }
}
