/**
 * A simulated engine in real time: the model, paced by a clock, behind the real protocol.
 *
 * While it waits for the controller between KV cache and capture, its time runs at real speed: the
 * hand-shake is real, and a faster clock would count it many times over.
 */

import { randomUUID } from "node:crypto";
import { checkOption } from "../../base/check-options.ts";
import { type Clock, systemClock } from "../../base/clock.ts";
import type { ErrorCode } from "../../base/errors.ts";
import { type Graph, topGraphs } from "../../base/graph.ts";
import { object } from "../../base/schema.ts";
import { dispatchTable } from "../../schedule/dispatch.ts";
import { fillOrder, firstLadder } from "../../schedule/first-ladder.ts";
import type { TraceRequest } from "../../trace/trace.ts";
import { endpointsOf } from "../../wire/endpoint.ts";
import { proveKey } from "../../wire/key-proof.ts";
import type {
  FromEngine,
  Heartbeat,
  Inventory,
  KeyProof,
  Mode,
  Orders,
  Phase,
  Refuse,
  Start,
} from "../../wire/protocol.ts";
import type { RequestSample } from "../model/batcher.ts";
import { Drive, listArrivals } from "../model/drive.ts";
import { EngineModel } from "../model/engine.ts";
import type { CaptureOutcome, DropOutcome, EngineOptions } from "../model/engine-options.ts";
import { helloOf, inventoryOf, ranksOf, readyOf } from "../model/self-report.ts";
import { type EngineCurve, EngineLink, type EngineWire, type LinkEvents } from "./link.ts";
import { LiveRequests } from "./live-requests.ts";
import { PacedClock } from "./paced-clock.ts";
import { EngineSession, type SessionHost } from "./session.ts";
import { EngineSleep } from "./sleep.ts";
import { StepTelemetry } from "./telemetry.ts";
import { TurnsLink } from "./turns.ts";

/** What a simulated engine tells whoever runs it. Seconds are simulated, from its start on. */
export type LiveEvent =
  | { readonly type: "loaded"; readonly atSeconds: number }
  | { readonly type: "ready"; readonly atSeconds: number; readonly captureSeconds: number }
  | {
      readonly type: "capture";
      readonly atSeconds: number;
      readonly graph: string;
      readonly ms: number;
    }
  | { readonly type: "drop"; readonly atSeconds: number; readonly graphs: readonly string[] }
  /** A step found no memory for its activations: the engine ends, as a real one does. */
  | { readonly type: "outOfMemory"; readonly atSeconds: number }
  /** A controller refuses it or isn't there. */
  | { readonly type: "problem"; readonly code: string; readonly message: string }
  | ({ readonly type: "request" } & RequestSample)
  | {
      /** The trace is over and every request of it has completed. */
      readonly type: "drained";
      readonly atSeconds: number;
      readonly requests: number;
      readonly requestsRefused: number;
    };

export interface LiveEngineOptions
  extends Pick<EngineOptions, "profile" | "warmUps" | "marginBytes" | "gpu" | "jitter" | "seed"> {
  /**
   * Of the controller, or with commas between them of up to eight, in order: while none has taken
   * the engine each gets a second. Without one the engine goes by its mode's defaults.
   */
  readonly endpoint?: string;
  readonly curve?: EngineCurve;
  /** Instead of a socket at `endpoint`: for simulations. */
  readonly wire?: (events: LinkEvents) => EngineWire;
  /** Logical identity. @default "simulated" */
  readonly engine?: string;
  /** Of this process. @default random */
  readonly session?: string;
  /** @default "idle" */
  readonly mode?: Mode;
  /** Simulated seconds per real second, above 0. @default 1 */
  readonly speed?: number;
  readonly requests?: readonly TraceRequest[];
  /** Milliseconds to wait for the controller before the first capture. @default 250 */
  readonly handshakeMs?: number;
  /** @default the system's clock */
  readonly clock?: Clock;
  readonly onEvent?: (event: LiveEvent) => void;
}

const ENGINE = "simulated";
/** A timer may come this much early, by rounding; waiting again for so little would spin. */
const CLOCK_ERROR_SECONDS = 1e-6;
/** Commands of our own, of an engine nobody tells what to capture; never on the wire. */
const OWN_COMMAND = -1;

export class LiveEngine {
  readonly session: string;
  /** Settles when the engine has ended, by `close` or by itself. */
  readonly closed: Promise<void>;
  readonly model: EngineModel;
  readonly #options: LiveEngineOptions;
  readonly #clock: Clock;
  readonly #time: PacedClock;
  readonly #drive: Drive;
  readonly #link: EngineWire | undefined;
  readonly #talk: EngineSession;
  readonly #sleeping: EngineSleep;
  readonly #telemetry: StepTelemetry;
  readonly #requests: LiveRequests;
  readonly #proof: KeyProof | undefined;
  #mode: Mode;
  /** The KV cache exists, so there is an inventory to tell. */
  #hasCache = false;
  /** Why it captures no more; empty: it may. */
  #frozen = "";
  #orders: Orders | undefined;
  /** When the time for captures began; undefined until it does. */
  #settlingAtSeconds: number | undefined;
  /** What not to capture without a controller. */
  #excluded: ReadonlySet<string> = new Set();
  #graphsMax = Number.POSITIVE_INFINITY;
  #hasTable = false;
  readonly #told = new Set<string>();
  #closed = false;
  #tellClosed: () => void = () => {};
  #cancelWake: () => void = () => {};
  #cancelHold: () => void = () => {};

  /** @throws OptionError without a profile */
  constructor(options: LiveEngineOptions) {
    checkOption("options", options, object);
    checkOption("profile", options.profile, object);
    this.#options = options;
    this.session = options.session ?? randomUUID();
    this.closed = new Promise((resolve) => {
      this.#tellClosed = resolve;
    });
    this.#clock = options.clock ?? systemClock;
    this.#mode = options.mode ?? "idle";
    this.#time = new PacedClock(this.#clock, options.speed ?? 1);
    this.#requests = new LiveRequests(options.requests ?? []);
    this.#telemetry = new StepTelemetry({
      clock: this.#clock,
      load: () => this.model,
      send: (message) => this.#tell(message),
    });
    this.model = new EngineModel({
      ...options,
      observer: {
        onLoaded: (at) => this.#loaded(at),
        onReady: (at) => this.#ready(at),
        onStep: (step) => this.#telemetry.add(step),
        onRequest: (sample) => this.#completed(sample),
        onToken: (tag, left) => this.#requests.token(tag, left),
        onCaptureResult: (result, at) => this.#captured(result, at),
        onDropResult: (result, at) => this.#dropped(result, at),
        onOutOfMemory: (at) => this.#outOfMemory(at),
        onEdge: (state) => this.#edge(state),
      },
    });
    this.#drive = new Drive(this.model, listArrivals(options.requests ?? []));
    const { curve, engine = ENGINE } = options;
    this.#proof = curve && proveKey(curve, curve.serverKey, { engine, session: this.session });
    this.#talk = new EngineSession(this.#host());
    this.#sleeping = new EngineSleep(this.model, this.#talk, this.session);
    this.#link = this.#connect({
      onMessage: (message) => {
        if (message.type === "refuse" || message.type === "later") this.#problem(message);
        this.#outside(() => this.#talk.receive(message));
      },
      onFault: (how) =>
        this.#without("ERR_LAZYGRAPH_KEYS", `${how}: compare \`lazygraph keys show\` of both`),
      onUp: () => this.#talk.up(),
      onDown: () => this.#talk.down(),
    });
  }

  #connect(events: LinkEvents): EngineWire | undefined {
    const { endpoint, curve, wire } = this.#options;
    if (wire !== undefined) return wire(events);
    if (endpoint === undefined) return undefined;
    const endpoints = endpointsOf("endpoint", endpoint);
    const [first = endpoint] = endpoints;
    const its = { ...(curve === undefined ? {} : { curve }), ...events };
    if (endpoints.length === 1) return new EngineLink({ endpoint: first, ...its });
    const isSettled = (): boolean => this.#talk.welcomed || this.#talk.refused;
    return new TurnsLink({ endpoints, isSettled, ...its });
  }

  get mode(): Mode {
    return this.#mode;
  }

  /** What it was told last; undefined: nothing yet. */
  get orders(): Orders | undefined {
    return this.#orders;
  }

  /** Whether a controller has this engine. */
  get connected(): boolean {
    return this.#talk.welcomed;
  }

  start(): void {
    this.#time.setRate(this.#options.speed ?? 1);
    this.#link?.open();
    this.#telemetry.start();
    this.#run();
  }

  /**
   * A request from outside the trace, at the engine now: it came through a front end of its own,
   * and the profile's is not added.
   *
   * @param onToken called for each token with the number of those still to come
   * @returns a function that ends the request early; undefined when it is refused, because it can
   *   never fit or too many wait
   */
  submit(
    promptTokens: number,
    outputTokens: number,
    onToken: (tokensLeft: number) => void,
  ): (() => void) | undefined {
    if (this.#closed) return undefined;
    const tag = this.#requests.nextTag();
    let accepted = false;
    this.#outside(() => {
      accepted = this.model.arrive(this.#time.now(), promptTokens, outputTokens, tag);
      this.#requests.submitted(tag, accepted, onToken);
    });
    if (!accepted) return undefined;
    return () => {
      this.#outside(() => {
        if (this.#requests.abandon(tag)) this.model.abort(tag);
      });
    };
  }

  /**
   * A process that is no engine of ours holds this much of the GPU from now on, instead of what it
   * held before; it gets what is free at most.
   */
  setStrangerBytes(bytes: number): void {
    this.#outside(() => this.model.memory.gpu.setStrangerBytes(bytes));
  }

  /** Says goodbye and stops. Requests under way are dropped. */
  async close(reason = "The simulated engine was closed."): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#cancelWake();
    this.#cancelHold();
    this.#telemetry.stop();
    const connected = this.#talk.welcomed;
    await this.#telemetry.tell();
    this.#talk.close();
    await this.#link?.close(connected ? { type: "goodbye", reason } : undefined);
    this.#tellClosed();
  }

  /** Lets the model catch up with the clock, then sleeps until it has something to do. */
  #run(): void {
    if (this.#closed) return;
    this.#drive.advance(this.#time.now() + CLOCK_ERROR_SECONDS);
    this.#sleeping.beginIfIdle();
    this.#sleep();
  }

  #sleep(): void {
    this.#tellDrained();
    this.#cancelWake();
    const next = this.#drive.nextSeconds;
    if (this.#closed || next === Number.POSITIVE_INFINITY) return;
    this.#cancelWake = this.#time.at(next, () => this.#run());
  }

  /** Something from outside: the model catches up first, then looks at it. */
  #outside(action: () => void): void {
    if (this.#closed) return;
    this.#drive.advance(this.#time.now());
    action();
    this.#drive.poke(this.#time.now());
    this.#sleep();
  }

  #loaded(atSeconds: number): void {
    this.#hasCache = true;
    this.#options.onEvent?.({ type: "loaded", atSeconds });
    if (this.#link === undefined || this.#talk.refused) {
      this.#startByDefault();
      return;
    }
    this.#time.setRate(1);
    this.#talk.tellInventory();
    const seconds = (this.#options.handshakeMs ?? 250) / 1000;
    this.#cancelHold = this.#clock.after(seconds, () => {
      if (!this.#talk.welcomed && this.#told.size === 0)
        this.#without(
          "ERR_LAZYGRAPH_CONTROLLER_UNREACHABLE",
          "none yet: start it, or give its address",
        );
      this.#outside(() => this.#startByDefault());
    });
  }

  #without(code: ErrorCode, got: string): void {
    const message = `Expected a controller at ${this.#options.endpoint}, got ${got}.`;
    this.#problem({ code, message });
  }

  #problem({ code, message }: Pick<Refuse, "code" | "message">): void {
    if (!this.#told.has(code)) this.#options.onEvent?.({ type: "problem", code, message });
    this.#told.add(code);
  }

  #startByDefault(): void {
    const { planned } = this.model;
    const ids = (graphs: readonly Graph[]): string[] => graphs.map(({ id }) => id);
    if (this.#mode === "eager") this.#begin({ graphs: ids(planned) });
    else this.#begin({ graphs: ids(topGraphs(planned)), more: ids(firstLadder(planned)) });
  }

  #begin({ graphs, tiers, more = [], budgetMs }: Omit<Start, "type">): void {
    if (this.model.started || this.model.phase !== "loading") return;
    this.#cancelHold();
    this.#time.setRate(this.#options.speed ?? 1);
    const budget = budgetMs === undefined ? {} : { budgetSeconds: budgetMs / 1000 };
    const unknown = this.model.start(graphs, tiers, { graphs: more, ...budget });
    for (const id of unknown) this.#unknownGraph(id);
  }

  #unknownGraph(id: string): void {
    const message = `Expected a graph of the inventory, got ${id}: ask for a new inventory.`;
    void this.#link?.send({ type: "problem", code: "ERR_LAZYGRAPH_UNKNOWN_GRAPH", message });
  }

  #ready(atSeconds: number): void {
    const captureSeconds = this.model.captureSeconds;
    this.#settlingAtSeconds = this.#clock.now();
    this.#options.onEvent?.({ type: "ready", atSeconds, captureSeconds });
    if (!this.#hasTable) this.#dispatchByDefault();
    this.#talk.tellReady();
  }

  #dispatchByDefault(): void {
    const captured = [...this.model.captured.values()].map(({ graph }) => graph);
    this.model.dispatch(dispatchTable(this.model.planned, captured));
  }

  /** Without a controller, in idle mode: the rest of the plan, small graphs for decode steps first. */
  #fill(): void {
    if (this.#talk.welcomed || this.#frozen !== "" || this.#mode !== "idle") return;
    // Ordered, by a controller that may be gone before it could say so once more.
    if (this.#orders?.frozen !== undefined || this.#settlingIsOver()) return;
    if (this.model.phase !== "serving" || this.model.hasWork) return;
    const { planned, captured } = this.model;
    if (captured.size >= this.#graphsMax) return;
    const next = fillOrder(planned).find(({ id }) => !captured.has(id) && !this.#excluded.has(id));
    if (next !== undefined) this.model.capture(OWN_COMMAND, next.id, true);
  }

  /** The controller that keeps this time may be gone; its end is known here. */
  #settlingIsOver(): boolean {
    const { settleWithinSeconds } = this.#orders ?? {};
    if (settleWithinSeconds === undefined || this.#settlingAtSeconds === undefined) return false;
    return this.#clock.now() - this.#settlingAtSeconds >= settleWithinSeconds;
  }

  #inventory(): Inventory | undefined {
    if (!this.#hasCache) return undefined;
    const began = this.#settlingAtSeconds;
    const settling = began === undefined ? {} : { settlingSeconds: this.#clock.now() - began };
    const frozen = this.#frozen === "" ? {} : { frozen: this.#frozen };
    const inventory = inventoryOf(this.model, this.session);
    return { ...inventory, phase: this.#phase, ...frozen, ...settling };
  }

  /** As of an engine's: with its KV cache it is about to capture, and waits for what comes first. */
  get #phase(): Phase {
    const { phase } = this.model;
    return phase === "loading" && this.#hasCache ? "capturing" : phase;
  }

  #heartbeat(): Heartbeat {
    const { model } = this;
    return {
      type: "heartbeat",
      ...(this.#hasCache ? { ranks: ranksOf(model, this.session) } : {}),
      phase: this.#phase,
      mode: this.#mode,
      epoch: model.epoch,
      captured: model.captured.size,
      state: model.hasWork ? "busy" : "idle",
      orders: this.#orders?.serial ?? 0,
      ...(this.#frozen === "" ? {} : { frozen: true }),
      ...(model.asleep ? { asleep: true } : {}),
    };
  }

  #captured(result: CaptureOutcome, atSeconds: number): void {
    const { graph, ms, outcome } = result;
    if (outcome === "captured") this.#options.onEvent?.({ type: "capture", atSeconds, graph, ms });
    if (result.command !== OWN_COMMAND) {
      this.#talk.answer({
        type: "result",
        ...result,
        ranks: ranksOf(this.model, this.session),
        epoch: this.model.epoch,
      });
      return;
    }
    if (outcome !== "captured") return;
    // The controller's last table doesn't know this graph.
    this.#dispatchByDefault();
    this.#fill();
  }

  #dropped(result: DropOutcome, atSeconds: number): void {
    const { graphs, outcome } = result;
    if (outcome === "dropped") this.#options.onEvent?.({ type: "drop", atSeconds, graphs });
    const ranks = ranksOf(this.model, this.session);
    this.#talk.answer({ type: "dropped", ...result, ranks, epoch: this.model.epoch });
  }

  #outOfMemory(atSeconds: number): void {
    this.#options.onEvent?.({ type: "outOfMemory", atSeconds });
    void this.close("The simulated engine ran out of GPU memory.");
  }

  #edge(state: "idle" | "busy"): void {
    if (this.#talk.welcomed) {
      const { running, waiting } = this.model;
      void this.#link?.send({ type: "edge", state, running, waiting });
    } else if (state === "idle") {
      this.#fill();
    }
  }

  #completed(sample: RequestSample): void {
    this.#requests.completed(sample);
    this.#options.onEvent?.({ type: "request", ...sample });
  }

  #tellDrained(): void {
    if (this.model.phase !== "serving") return;
    const drained = this.#requests.drained(this.model.requestsRefused);
    if (drained !== undefined) this.#options.onEvent?.({ type: "drained", ...drained });
  }

  /** Tells a controller that has accepted us; who hasn't would drop it. */
  async #tell(message: FromEngine): Promise<boolean> {
    if (!this.#talk.welcomed || this.#link === undefined) return false;
    return this.#link.send(message);
  }

  #host(): SessionHost {
    return {
      clock: this.#clock,
      send: (message) => this.#link?.send(message) ?? Promise.resolve(false),
      hello: () =>
        helloOf(this.model, {
          engine: this.#options.engine ?? ENGINE,
          session: this.session,
          mode: this.#mode,
          orders: this.#orders,
          proof: this.#proof,
        }),
      inventory: () => this.#inventory(),
      heartbeat: () => this.#heartbeat(),
      ready: () => (this.model.phase === "serving" ? readyOf(this.model, this.session) : undefined),
      onMode: (mode) => {
        this.#mode = mode;
        this.#frozen = "";
        this.model.freeze("");
      },
      onOrders: (orders) => {
        this.#orders = orders;
      },
      onSettling: (seconds) => {
        this.#settlingAtSeconds = this.#clock.now() - seconds;
      },
      onMemory: ({ reserve, reserveBytes, marginBytes }) => {
        if (reserve !== undefined) this.model.reserve(reserve, reserveBytes);
        if (marginBytes !== undefined) this.model.marginBytes = marginBytes;
      },
      onStart: (start) => {
        this.#excluded = new Set(start.exclude);
        this.#graphsMax = start.graphsMax ?? Number.POSITIVE_INFINITY;
        this.#begin(start);
      },
      onDrop: (command, graphs) => this.model.drop(command, graphs),
      onCapture: (command, graph, whenIdle, needBytes) => {
        if (!this.model.planned.some(({ id }) => id === graph)) this.#unknownGraph(graph);
        this.model.capture(command, graph, whenIdle, needBytes);
      },
      onSleep: (command, dropGraphs) => this.#sleeping.sleep(command, dropGraphs),
      onWake: (command) => this.#sleeping.wake(command),
      onDispatch: (table) => {
        this.#hasTable = true;
        this.model.dispatch(table);
      },
      onFreeze: (reason) => {
        this.#frozen = reason === "" ? "by the controller" : reason;
        this.model.freeze(this.#frozen);
      },
      onReplaced: () => this.model.forgetCommands(),
      onLost: () =>
        this.#outside(() => {
          // No start will come: nothing is left to wait for.
          if (this.#talk.refused && this.#hasCache) this.#startByDefault();
          this.#fill();
        }),
    };
  }
}
