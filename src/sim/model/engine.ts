/**
 * A simulated engine: continuous batching, captures between steps, a start-up phase.
 *
 * Pure: no timers, no clock of its own. Whoever drives it calls `begin(now)` to learn what the
 * engine does next and how long it takes, and `finish(now)` when that time is over. Requests and
 * commands may come at any moment between and take effect at the next `begin`, as in the real
 * engine, whose busy loop looks at them between two steps.
 *
 * What comes next is decided here: in `commands` wait captures and drops, in `held-graphs` is what
 * was captured, `batcher` and `step-ahead` put steps together, `durations` says how long all takes.
 */

import type { Graph, StepShape } from "../../base/graph.ts";
import type { Profile } from "../../profile/profile.ts";
import type { DispatchTable } from "../../schedule/policy.ts";
import type { Phase, Reserve } from "../../wire/protocol.ts";
import { Batcher } from "./batcher.ts";
import { EngineCommands } from "./commands.ts";
import { Durations } from "./durations.ts";
import type { EngineObserver, EngineOptions } from "./engine-options.ts";
import { FirstCaptures, type MoreGraphs } from "./first-captures.ts";
import { type CapturedGraph, HeldGraphs } from "./held-graphs.ts";
import { type EngineMemory, SimulatedGpu } from "./memory.ts";
import { StepAhead } from "./step-ahead.ts";

/** What the engine does until the next `finish`; `hold` and `idle` end by an outside event. */
export type Activity =
  | { readonly type: "load" | "step"; readonly seconds: number }
  | { readonly type: "capture"; readonly seconds: number; readonly graph: Graph }
  | { readonly type: "hold" | "idle" };

export class EngineModel {
  readonly profile: Profile;
  phase: Phase = "loading";
  /** Seconds in captures before ready, and of these, in their warm-up runs. */
  captureSeconds = 0;
  warmUpSeconds = 0;
  requestsRefused = 0;
  readonly #options: EngineOptions;
  readonly #observer: EngineObserver;
  readonly #durations: Durations;
  readonly #graphs: HeldGraphs;
  readonly #commands: EngineCommands;
  readonly #batcher: Batcher;
  readonly #ahead: StepAhead;
  #first: FirstCaptures | undefined;
  /** The KV cache exists. */
  #loaded = false;
  #edge: "idle" | "busy" | undefined;
  #captureAtLast = false;
  #activity: Activity = { type: "idle" };
  #served: Graph | undefined;
  #command: number | undefined;

  constructor(options: EngineOptions) {
    this.#options = options;
    this.profile = options.profile;
    this.#observer = options.observer ?? {};
    this.#durations = new Durations(options.profile, {
      warmUps: options.warmUps ?? "first",
      jitter: options.jitter ?? 0,
      seed: options.seed ?? 1,
    });
    const gpu = options.gpu ?? new SimulatedGpu(options.profile.memory.freeBytes);
    this.#graphs = new HeldGraphs(options.profile, gpu, options.marginBytes ?? 0);
    this.#commands = new EngineCommands(this.#graphs, this.#observer);
    this.#batcher = new Batcher(options.profile.limits);
    this.#ahead = new StepAhead(options.profile.limits.stepsAhead);
  }

  get captured(): ReadonlyMap<string, CapturedGraph> {
    return this.#graphs.captured;
  }

  /** Bumped by each change of the captured set. */
  get epoch(): number {
    return this.#graphs.epoch;
  }

  get memory(): EngineMemory {
    return this.#graphs.memory;
  }

  get freeBytes(): number {
    return this.#graphs.freeBytes;
  }

  /** What captures must leave free; a controller may change it. */
  get marginBytes(): number {
    return this.#graphs.marginBytes;
  }

  set marginBytes(bytes: number) {
    this.#graphs.marginBytes = bytes;
  }

  /** Less what was reserved for graphs. */
  get kvCacheTokens(): number {
    return this.profile.limits.kvCacheTokens - (this.memory.reserved?.kvTokens ?? 0);
  }

  get planned(): Graph[] {
    return [...this.#graphs.planned.values()];
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
    return this.#first !== undefined;
  }

  /** Graphs left out before ready because the budget was used. */
  get skipped(): readonly string[] {
    return this.#first?.skipped ?? [];
  }

  /**
   * What to capture before ready, in this order. Unknown ids are left out and returned.
   *
   * @param more then these, while they fit a budget of seconds. @default none
   */
  start(
    ids: readonly string[],
    tiers: readonly (readonly string[])[] = [],
    more: MoreGraphs = { graphs: [] },
  ): string[] {
    const { planned } = this.#graphs;
    this.memory.setTiers(tiers.map((tier) => tier.filter((id) => planned.has(id))));
    const missing = (some: readonly string[]): Graph[] =>
      [...new Set(some)].flatMap((id) => (this.captured.has(id) ? [] : (planned.get(id) ?? [])));
    const order = missing(ids);
    const rest = missing(more.graphs);
    this.#first = new FirstCaptures(this.planned, order, rest, more.budgetSeconds);
    return [...ids, ...more.graphs].filter((id) => !planned.has(id));
  }

  /** Keeps memory back from the KV cache; too late once it exists, and then nothing happens. */
  reserve(mode: Reserve, bytes?: number): void {
    if (this.phase !== "loading" || this.#loaded || this.memory.reserved !== undefined) return;
    this.#batcher.shrink(this.memory.reserve(mode, bytes));
  }

  dispatch(table: DispatchTable): void {
    this.#graphs.setTable(table);
  }

  /** @param needBytes what the controller reserved for it; absent: by the graph's own size */
  capture(command: number, graph: string, whenIdle: boolean, needBytes?: number): void {
    this.#commands.capture(command, graph, whenIdle, needBytes);
  }

  /** Drops whole tiers between two steps. */
  drop(command: number, graphs: readonly string[]): void {
    this.#commands.drop(command, graphs);
  }

  get asleep(): boolean {
    return this.#commands.asleep;
  }

  /** Runs no step and captures nothing until it is woken; requests wait. */
  set asleep(asleep: boolean) {
    this.#commands.asleep = asleep;
  }

  /** Gives the memory of all graphs back; in bytes. */
  dropAll(): number {
    return this.#graphs.drop([...this.captured.keys()]);
  }

  /** Leaves out the captures and drops that still wait: nobody wants their results any more. */
  forgetCommands(): void {
    this.#commands.forget();
  }

  /** Refuses captures from now on; an empty reason lifts it. */
  freeze(reason: string): void {
    this.#commands.freeze(reason);
  }

  /** Decides what comes next and starts it. */
  begin(now: number): Activity {
    this.#activity = this.#next(now);
    return this.#activity;
  }

  #next(now: number): Activity {
    if (this.phase === "stopping") return { type: "idle" };
    if (this.phase === "loading") {
      if (this.#first !== undefined) this.phase = "capturing";
      else if (now < this.profile.startupSeconds) {
        return { type: "load", seconds: this.profile.startupSeconds - now };
      } else return { type: "hold" };
    }
    if (this.phase === "capturing") {
      const graph = this.#first?.next();
      if (graph !== undefined) return this.#captureAtStart(graph, now);
      this.phase = "serving";
      this.#observer.onReady?.(now);
    }
    this.#tellEdge(now);
    // After a capture a step comes first if there is work: a request waits for one at most.
    if (!this.#captureAtLast || !this.hasWork) {
      const capture = this.#captureLater(now);
      if (capture !== undefined) return capture;
    }
    this.#captureAtLast = false;
    if (this.asleep) return { type: "idle" };
    if (!this.#ahead.compose(this.#batcher)) return { type: "idle" };
    const { batch } = this.#batcher;
    const stallSeconds = this.#captureInStep(batch, now);
    this.#served = this.#graphs.pick(batch);
    this.#ahead.launched(now + this.#durations.launchSeconds(this.#served));
    const seconds = this.#durations.stepSeconds(this.#served, batch);
    return { type: "step", seconds: seconds + stallSeconds };
  }

  /** @returns seconds it makes the step longer */
  #captureInStep(step: StepShape, now: number): number {
    const { captureInStep } = this.#options;
    if (captureInStep === undefined || this.captured.size === this.#graphs.planned.size) return 0;
    const graph = captureInStep(this.planned, step, ({ id }) => this.captured.has(id));
    if (graph === undefined || !this.#graphs.hasRoom(graph)) return 0;
    const seconds = this.#durations.inStepSeconds(graph);
    const { ms, bytes } = this.#graphs.hold(graph, seconds);
    this.#observer.onCaptureResult?.(
      { command: -1, graph: graph.id, outcome: "captured", stallMs: ms, ms, bytes },
      now,
    );
    return seconds;
  }

  /** Gives every graph that is missing away, for comparisons: in no time, whatever the memory. */
  grantAll(): void {
    for (const graph of this.planned) {
      if (!this.captured.has(graph.id)) this.#graphs.hold(graph, 0);
    }
  }

  #tellEdge(now: number): void {
    const edge = this.hasWork ? "busy" : "idle";
    if (edge === this.#edge) return;
    this.#edge = edge;
    this.#observer.onEdge?.(edge, now);
  }

  #captureAtStart(graph: Graph, now: number): Activity {
    const warmUp = this.#durations.warmUp(graph);
    if (!this.#graphs.hasRoom(graph)) return this.#next(now);
    this.#command = undefined;
    this.#observer.onCaptureStart?.(graph, now);
    const seconds = this.#durations.startSeconds(graph, warmUp);
    if (warmUp) this.warmUpSeconds += seconds * this.#durations.warmUpShare(graph);
    this.#first?.timed(graph.kind, seconds, warmUp);
    return { type: "capture", seconds, graph };
  }

  #captureLater(now: number): Activity | undefined {
    const next = this.#commands.next(now, () => this.hasWork);
    if (next === undefined) return undefined;
    const { command, graph } = next;
    this.#command = command;
    this.#observer.onCaptureStart?.(graph, now);
    return { type: "capture", seconds: this.#durations.laterSeconds(graph), graph };
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
    this.#ahead.stepped();
    this.#batcher.finish(
      now,
      (sample) => this.#observer.onRequest?.(sample),
      this.#observer.onToken,
    );
  }

  #finishCapture(activity: Extract<Activity, { type: "capture" }>, now: number): void {
    const { graph, seconds } = activity;
    const { ms, bytes } = this.#graphs.hold(graph, seconds);
    this.#ahead.captured();
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
}
