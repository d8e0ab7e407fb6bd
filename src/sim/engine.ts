/**
 * A simulated engine: continuous batching, captures between steps, a start-up phase.
 *
 * Pure: no timers, no clock of its own. Whoever drives it calls `begin(now)` to learn what the
 * engine does next and how long it takes, and `finish(now)` when that time is over. Requests and
 * commands may come at any moment between and take effect at the next `begin`, as in the real
 * engine, whose busy loop looks at them between two steps.
 */

import type { Graph, StepShape } from "../graph.ts";
import type { Profile } from "../profile/profile.ts";
import { createRandom, type Random, standardNormal } from "../random.ts";
import type { DispatchTable } from "../schedule/policy.ts";
import type { CaptureResult, Dropped, Phase, Reserve, StepCount } from "../wire/protocol.ts";
import { Batcher, type RequestSample, type TokenListener } from "./batcher.ts";
import { type CostModel, createCostModel } from "./cost.ts";
import { CompiledDispatch } from "./dispatch.ts";
import { EngineMemory, SimulatedGpu } from "./memory.ts";

/** What the engine does until the next `finish`; `hold` and `idle` end by an outside event. */
export type Activity =
  | { readonly type: "load" | "step"; readonly seconds: number }
  | { readonly type: "capture"; readonly seconds: number; readonly graph: Graph }
  | { readonly type: "hold" | "idle" };

export interface CapturedGraph {
  readonly graph: Graph;
  readonly ms: number;
  readonly bytes: number;
}

export type CaptureOutcome = Pick<
  CaptureResult,
  "command" | "graph" | "outcome" | "reason" | "refusal" | "stallMs" | "ms" | "bytes"
>;

export type DropOutcome = Omit<Dropped, "type" | "ranks" | "epoch">;

/** Called from inside `begin` and `finish`; may call the engine's commands, not these two. */
export interface EngineObserver {
  /** The KV cache exists: `start` is awaited. */
  onLoaded?(atSeconds: number): void;
  onReady?(atSeconds: number): void;
  onCaptureStart?(graph: Graph, atSeconds: number): void;
  onCaptureResult?(result: CaptureOutcome, atSeconds: number): void;
  onDropResult?(result: DropOutcome, atSeconds: number): void;
  /** A step's activations found no memory: a real engine dies of it. */
  onOutOfMemory?(atSeconds: number): void;
  onStep?(step: Omit<StepCount, "count" | "timed">, atSeconds: number): void;
  onRequest?(sample: RequestSample): void;
  /** Of requests that arrived with a tag. */
  onToken?: TokenListener;
  onEdge?(state: "idle" | "busy", atSeconds: number): void;
}

export interface EngineOptions {
  readonly profile: Profile;
  readonly observer?: EngineObserver;
  /** `first`: only the first graph of each kind before ready has a warm-up run. @default "first" */
  readonly warmUps?: "first" | "all";
  /** Requests that may wait; more are refused and counted. @default 1,000,000 */
  readonly waitingMax?: number;
  /** Bytes captures must leave free. @default 0 */
  readonly marginBytes?: number;
  /** Where its memory is. @default a device of its own, with the profile's free bytes */
  readonly gpu?: SimulatedGpu;
  /** Relative standard deviation of step and capture times. @default 0 */
  readonly jitter?: number;
  /** Of the jitter. @default 1 */
  readonly seed?: number;
  /**
   * A graph that a step captures on its way, as an engine of ours never does: for comparisons.
   *
   * @default none
   */
  readonly captureInStep?: (
    planned: readonly Graph[],
    step: StepShape,
    captured: (graph: Graph) => boolean,
  ) => Graph | undefined;
}

interface PendingCapture {
  readonly command: number;
  readonly graph: string;
  readonly whenIdle: boolean;
  readonly needBytes: number | undefined;
}

interface PendingDrop {
  readonly command: number;
  readonly drop: readonly string[];
}

/** The controller sends one capture at a time; more than this many is a defect of its side. */
const PENDING_MAX = 64;

export class EngineModel {
  readonly profile: Profile;
  phase: Phase = "loading";
  /** Bumped by each change of the captured set. */
  epoch = 0;
  readonly memory: EngineMemory;
  /** What captures must leave free; a controller may change it. */
  marginBytes: number;
  /** Seconds in captures before ready. */
  captureSeconds = 0;
  requestsRefused = 0;
  readonly captured: Map<string, CapturedGraph> = new Map();
  readonly #options: EngineOptions;
  readonly #observer: EngineObserver;
  readonly #costs: CostModel;
  readonly #graphs: ReadonlyMap<string, Graph>;
  readonly #random: Random;
  readonly #batcher: Batcher;
  readonly #dispatch = new CompiledDispatch();
  #table: DispatchTable = { uniform: [], mixed: [] };
  #startOrder: Graph[] | undefined;
  #warmedKinds = new Set<string>();
  #pending: (PendingCapture | PendingDrop)[] = [];
  /** The KV cache exists. */
  #loaded = false;
  #frozen = "";
  #edge: "idle" | "busy" | undefined;
  #captureAtLast = false;
  #activity: Activity = { type: "idle" };
  #served: Graph | undefined;
  /** When the step after the one under way is composed, if it is composed ahead. */
  #composedAheadSeconds = 0;
  /** Who came after that is not in the step composed ahead. */
  #knownSeconds = Number.POSITIVE_INFINITY;
  #command: number | undefined;

  constructor(options: EngineOptions) {
    this.#options = options;
    this.profile = options.profile;
    this.#observer = options.observer ?? {};
    this.#costs = createCostModel(options.profile);
    this.#graphs = new Map(options.profile.captures.costs.map(({ graph }) => [graph.id, graph]));
    this.#random = createRandom(options.seed ?? 1);
    this.#batcher = new Batcher(options.profile.limits);
    this.marginBytes = options.marginBytes ?? 0;
    const gpu = options.gpu ?? new SimulatedGpu(options.profile.memory.freeBytes);
    this.memory = new EngineMemory(options.profile, gpu);
  }

  get freeBytes(): number {
    return this.memory.gpu.freeBytes;
  }

  /** Less what was reserved for graphs. */
  get kvCacheTokens(): number {
    return this.profile.limits.kvCacheTokens - (this.memory.reserved?.kvTokens ?? 0);
  }

  get planned(): Graph[] {
    return [...this.#graphs.values()];
  }

  get running(): number {
    return this.#batcher.running;
  }

  get waiting(): number {
    return this.#batcher.waiting;
  }

  get preemptions(): number {
    return this.#batcher.preemptions;
  }

  get hasWork(): boolean {
    return this.#batcher.running + this.#batcher.waiting > 0;
  }

  /**
   * False when the request is refused: too long ever to fit, or too many wait already.
   *
   * @param atSeconds when it gets to the engine
   * @param sentSeconds when its client sent it. @default atSeconds
   */
  arrive(
    atSeconds: number,
    promptTokens: number,
    outputTokens: number,
    tag = 0,
    sentSeconds: number = atSeconds,
  ): boolean {
    const waitingMax = this.#options.waitingMax ?? 1_000_000;
    if (this.waiting >= waitingMax || !this.#batcher.fits(promptTokens, outputTokens)) {
      this.requestsRefused++;
      return false;
    }
    this.#batcher.add(atSeconds, promptTokens, outputTokens, tag, sentSeconds);
    return true;
  }

  /** The client of a tagged request has gone; false when it has completed already. */
  abort(tag: number): boolean {
    return this.#batcher.abort(tag);
  }

  /** Whether `start` has been called: the order before ready is given once. */
  get started(): boolean {
    return this.#startOrder !== undefined;
  }

  /** What to capture before ready, in this order. Unknown ids are left out and returned. */
  start(ids: readonly string[], tiers: readonly (readonly string[])[] = []): string[] {
    this.memory.setTiers(tiers.map((tier) => tier.filter((id) => this.#graphs.has(id))));
    const known = ids.flatMap((id) => this.#graphs.get(id) ?? []);
    this.#startOrder = [...new Set(known)].filter((graph) => !this.captured.has(graph.id));
    return ids.filter((id) => !this.#graphs.has(id));
  }

  /** Keeps memory back from the KV cache; too late once it exists, and then nothing happens. */
  reserve(mode: Reserve, bytes?: number): void {
    if (this.phase !== "loading" || this.#loaded || this.memory.reserved !== undefined) return;
    this.#batcher.shrink(this.memory.reserve(mode, bytes));
  }

  dispatch(table: DispatchTable): void {
    this.#table = table;
    this.#compile();
  }

  /** @param needBytes what the controller reserved for it; absent: by the graph's own size */
  capture(command: number, graph: string, whenIdle: boolean, needBytes?: number): void {
    const pending = { command, graph, whenIdle, needBytes };
    if (this.#pending.length < PENDING_MAX) this.#pending.push(pending);
    else this.#answer(pending, "refused", `More than ${PENDING_MAX} captures were waiting.`, 0);
  }

  /** Drops whole tiers between two steps. */
  drop(command: number, graphs: readonly string[]): void {
    if (this.#pending.length < PENDING_MAX) this.#pending.push({ command, drop: graphs });
    else this.#dropped(command, "refused", [], 0, `More than ${PENDING_MAX} commands wait.`, 0);
  }

  /** Refuses captures from now on; an empty reason lifts it. */
  freeze(reason: string): void {
    // It comes back inside another sentence, which has a limit on the wire.
    this.#frozen = reason.slice(0, 512);
  }

  /** Decides what comes next and starts it. */
  begin(now: number): Activity {
    this.#activity = this.#next(now);
    return this.#activity;
  }

  #next(now: number): Activity {
    if (this.phase === "stopping") return { type: "idle" };
    if (this.phase === "loading") {
      if (this.#startOrder !== undefined) this.phase = "capturing";
      else if (now < this.profile.startupSeconds) {
        return { type: "load", seconds: this.profile.startupSeconds - now };
      } else return { type: "hold" };
    }
    if (this.phase === "capturing") {
      const graph = this.#startOrder?.shift();
      if (graph !== undefined) return this.#captureAtStart(graph, now);
      this.phase = "serving";
      this.#observer.onReady?.(now);
    }
    this.#tellEdge(now);
    // After a capture a step comes first if there is work: a request waits for one at most.
    if (!this.#captureAtLast || !this.hasWork) {
      const capture = this.#nextCapture(now);
      if (capture !== undefined) return capture;
    }
    this.#captureAtLast = false;
    if (!this.#compose()) return { type: "idle" };
    const { batch } = this.#batcher;
    const stallSeconds = this.#captureInStep(batch, now);
    this.#served = this.#dispatch.pick(batch);
    this.#composedAheadSeconds = now + this.#costs.launchSeconds(this.#served);
    const seconds = this.#vary(this.#costs.stepSeconds(this.#served, batch));
    return { type: "step", seconds: seconds + stallSeconds };
  }

  /**
   * An engine that schedules asynchronously has composed this step as soon as it had launched the one
   * that just ended: who came since then waits one step longer. Only where nobody else is left to
   * run is the queue empty, and the next step composed anew.
   */
  #compose(): boolean {
    const knownSeconds = this.#knownSeconds;
    this.#knownSeconds = Number.POSITIVE_INFINITY;
    if (this.#batcher.compose(knownSeconds)) return true;
    return knownSeconds !== Number.POSITIVE_INFINITY && this.#batcher.compose();
  }

  /** @returns seconds it makes the step longer */
  #captureInStep(step: StepShape, now: number): number {
    const { captureInStep } = this.#options;
    if (captureInStep === undefined || this.captured.size === this.#graphs.size) return 0;
    const graph = captureInStep(this.planned, step, ({ id }) => this.captured.has(id));
    if (graph === undefined || !this.#hasRoom(graph)) return 0;
    const seconds = this.#vary(this.#costs.laterSeconds(graph));
    const { ms, bytes } = this.#hold(graph, seconds);
    this.#observer.onCaptureResult?.(
      { command: -1, graph: graph.id, outcome: "captured", stallMs: ms, ms, bytes },
      now,
    );
    return seconds;
  }

  /** Gives every graph that is missing away, for comparisons: in no time, whatever the memory. */
  grantAll(): void {
    for (const graph of this.#graphs.values()) {
      if (!this.captured.has(graph.id)) this.#hold(graph, 0);
    }
  }

  #tellEdge(now: number): void {
    const edge = this.hasWork ? "busy" : "idle";
    if (edge === this.#edge) return;
    this.#edge = edge;
    this.#observer.onEdge?.(edge, now);
  }

  #captureAtStart(graph: Graph, now: number): Activity {
    // The first capture of a kind compiles and loads kernels: it can't go without a warm-up run.
    const warmUp = this.#options.warmUps === "all" || !this.#warmedKinds.has(graph.kind);
    this.#warmedKinds.add(graph.kind);
    if (!this.#hasRoom(graph)) return this.#next(now);
    this.#command = undefined;
    this.#observer.onCaptureStart?.(graph, now);
    return { type: "capture", seconds: this.#vary(this.#costs.startSeconds(graph, warmUp)), graph };
  }

  /** The next command's capture; what can't be done is answered on the way. */
  #nextCapture(now: number): Activity | undefined {
    // An observer may answer a result with the next command: bounded, so that it can't spin here.
    for (let round = 0; round < PENDING_MAX; round++) {
      const pending = this.#pending.shift();
      if (pending === undefined) return undefined;
      if ("drop" in pending) {
        this.#drop(pending, now);
        continue;
      }
      const graph = this.#graphs.get(pending.graph);
      const done = this.captured.get(pending.graph);
      if (graph === undefined) {
        this.#answer(pending, "refused", `This engine has no graph ${pending.graph}.`, now);
      } else if (done !== undefined) {
        this.#answer(pending, "already", undefined, now);
      } else if (this.#frozen !== "") {
        this.#answer(pending, "refused", `Captures are frozen: ${this.#frozen}`, now);
      } else if (pending.whenIdle && this.hasWork) {
        this.#answer(pending, "deferred", "The engine has work.", now);
      } else if (!this.#hasRoom(graph, pending.needBytes)) {
        this.#answer(pending, "refused", this.#shortage(graph, pending.needBytes), now, "headroom");
      } else {
        this.#command = pending.command;
        this.#observer.onCaptureStart?.(graph, now);
        return { type: "capture", seconds: this.#vary(this.#laterSeconds(graph)), graph };
      }
    }
    return undefined;
  }

  /** A kind's first capture needs its warm-up run, whenever it comes. */
  #laterSeconds(graph: Graph): number {
    const seconds = this.#costs.laterSeconds(graph);
    if (this.#warmedKinds.has(graph.kind)) return seconds;
    this.#warmedKinds.add(graph.kind);
    return seconds + this.#costs.startSeconds(graph, true) - this.#costs.startSeconds(graph, false);
  }

  /** With a reservation the engine's headroom counts, without one the device's free memory. */
  #hasRoom(graph: Graph, reservedBytes?: number): boolean {
    const fits = this.memory.needBytes(graph) + this.marginBytes <= this.freeBytes;
    if (reservedBytes === undefined) return fits;
    return fits && reservedBytes <= this.memory.headroomBytes(this.marginBytes);
  }

  #shortage(graph: Graph, reservedBytes?: number): string {
    const need = Math.max(this.memory.needBytes(graph), reservedBytes ?? 0);
    if (reservedBytes === undefined) {
      return `Not enough GPU memory: ${this.freeBytes} bytes are free, ${need} are needed.`;
    }
    const headroom = this.memory.headroomBytes(this.marginBytes);
    return (
      `Not enough headroom: ${headroom} bytes of ${this.freeBytes} free are not wanted by serving ` +
      `or the margin, ${need} are needed.`
    );
  }

  #drop({ command, drop }: PendingDrop, now: number): void {
    const reason = this.memory.whyNotDrop(drop);
    if (reason !== undefined) {
      this.#dropped(command, "refused", [], 0, reason, now);
      return;
    }
    const graphs = [...new Set(drop)];
    for (const id of graphs) this.captured.delete(id);
    this.epoch += graphs.length;
    this.#compile();
    this.#dropped(command, "dropped", graphs, this.memory.drop(graphs), undefined, now);
  }

  #dropped(
    command: number,
    outcome: DropOutcome["outcome"],
    graphs: readonly string[],
    freedBytes: number,
    reason: string | undefined,
    now: number,
  ): void {
    const why = reason === undefined ? {} : { reason };
    this.#observer.onDropResult?.({ command, outcome, graphs, freedBytes, ...why }, now);
  }

  #answer(
    pending: PendingCapture,
    outcome: CaptureOutcome["outcome"],
    reason: string | undefined,
    now: number,
    refusal: "headroom" | "other" = "other",
  ): void {
    const done = this.captured.get(pending.graph);
    this.#observer.onCaptureResult?.(
      {
        command: pending.command,
        graph: pending.graph,
        outcome,
        ...(reason === undefined ? {} : { reason }),
        ...(outcome === "refused" ? { refusal } : {}),
        stallMs: 0,
        ms: done?.ms ?? 0,
        bytes: done?.bytes ?? 0,
      },
      now,
    );
  }

  /** Books what `begin` started; `now` is its end. */
  finish(now: number): void {
    const activity = this.#activity;
    this.#activity = { type: "idle" };
    if (activity.type === "load") {
      this.#loaded = true;
      this.#observer.onLoaded?.(now);
    } else if (activity.type === "step") this.#finishStep(activity.seconds, now);
    else if (activity.type === "capture") this.#finishCapture(activity, now);
  }

  #finishStep(seconds: number, now: number): void {
    const { batch } = this.#batcher;
    if (!this.memory.activate(batch.tokens)) {
      this.phase = "stopping";
      this.#observer.onOutOfMemory?.(now);
      return;
    }
    this.#observer.onStep?.(
      {
        tokens: batch.tokens,
        requests: batch.requests,
        uniform: batch.uniform,
        served: this.#served?.id ?? "",
        seconds,
        contextTokens: batch.contextMean,
      },
      now,
    );
    if (this.profile.limits.stepsAhead > 0) this.#knownSeconds = this.#composedAheadSeconds;
    this.#batcher.finish(
      now,
      (sample) => this.#observer.onRequest?.(sample),
      this.#observer.onToken,
    );
  }

  #finishCapture(activity: Extract<Activity, { type: "capture" }>, now: number): void {
    const { graph, seconds } = activity;
    const { ms, bytes } = this.#hold(graph, seconds);
    // A capture waits until nothing is in flight: the next step is composed after it.
    this.#knownSeconds = Number.POSITIVE_INFINITY;
    if (this.#command === undefined) {
      this.captureSeconds += seconds;
      return;
    }
    this.#captureAtLast = true;
    this.#observer.onCaptureResult?.(
      { command: this.#command, graph: graph.id, outcome: "captured", stallMs: ms, ms, bytes },
      now,
    );
  }

  #hold(graph: Graph, seconds: number): CapturedGraph {
    const held = { graph, ms: seconds * 1000, bytes: this.memory.take(graph) };
    this.captured.set(graph.id, held);
    this.epoch++;
    this.#compile();
    return held;
  }

  #compile(): void {
    const captured = new Map([...this.captured].map(([id, { graph }]) => [id, graph]));
    this.#dispatch.compile(this.#table, captured);
  }

  #vary(seconds: number): number {
    const jitter = this.#options.jitter ?? 0;
    if (jitter === 0) return seconds;
    return seconds * Math.max(0.1, 1 + jitter * standardNormal(this.#random));
  }
}
