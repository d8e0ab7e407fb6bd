/**
 * The composition root, what callers may do, and when it starts and ends.
 *
 *   router ══▶ frames, checked ─ hello ─▶ admission ─▶ one driver per engine
 *                 │                                            │
 *                 ╰─ anything else ───────▶ registry ◀─────────╯
 *
 * What all engines share, learned plans and memory, comes from shared.ts.
 */

import { withinSeconds } from "../base/clock.ts";
import { LazygraphError, messageOf } from "../base/errors.ts";
import type { EngineDriver } from "../engine/driver.ts";
import { publishProblem } from "../engine/events.ts";
import type { SharedMemory } from "../engine/shared-memory.ts";
import type { SleepOptions, WakeOptions } from "../engine/sleep.ts";
import { type EngineSnapshot, snapshotOf } from "../engine/snapshot.ts";
import type { Mode } from "../wire/protocol.ts";
import type { RouterLink } from "../wire/router.ts";
import { FROM_ENGINE } from "../wire/validate.ts";
import { EngineAdmission } from "./admission.ts";
import {
  type Announcement,
  checkAnnouncement,
  checkEngine,
  checkMode,
  checkReason,
  checkSleep,
  checkWait,
  checkWake,
} from "./call-options.ts";
import { EngineFrames, HEARTBEAT } from "./frames.ts";
import { type Ground, systemGround } from "./ground.ts";
import { type ControllerOptions, type ResolvedOptions, resolveOptions } from "./options.ts";
import { CapturePace } from "./pace.ts";
import { type EngineLook, EngineRegistry } from "./registry.ts";
import { openMemory, SharedPlans } from "./shared.ts";
import { endOfWait, isWaitedFor, Waiters, type WaitOptions } from "./waiters.ts";

/** How long a start waits for learned plans to be read. */
const PLANS_SECONDS_MAX = 2;

export interface Controller extends AsyncDisposable {
  /** Where engines connect, a port of 0 resolved once started. */
  readonly endpoint: string;
  /** Unix milliseconds of its creation: of two controllers engines keep the one that has more. */
  readonly incarnation: number;
  /** Whether engines can connect: from its start until it is closed. */
  readonly listening: boolean;
  /**
   * Binds the endpoint. Idempotent.
   * @throws LazygraphError ERR_LAZYGRAPH_ADDRESS_IN_USE, …_BIND or …_CLOSED
   */
  start(): Promise<void>;
  /** Idempotent; the endpoint is free once it resolves. Engines go on serving with the graphs and the table they have. */
  close(): Promise<void>;
  /** A picture of every engine that joined, lost ones included, in order of joining. */
  engines(): readonly EngineSnapshot[];
  /**
   * Changes when an engine captures: for its next start, and for the controller after this one,
   * until it is set otherwise. Also ends a freeze and asks
   * again for what the engine refused; the mode that it has already changes nothing else.
   * @throws LazygraphError ERR_LAZYGRAPH_ENGINE_UNKNOWN, or …_LOST while it is not connected, or
   *   …_CLOSED; OptionError for an unknown mode
   */
  setMode(engine: string, mode: Mode): void;
  /**
   * Ends captures of an engine until its mode is set, over restarts of either side.
   * @throws LazygraphError ERR_LAZYGRAPH_ENGINE_UNKNOWN, or …_LOST while it is not connected, or
   *   …_CLOSED; OptionError for a reason that is no text of at most 2,048 characters
   */
  freeze(engine: string, reason?: string): void;
  /**
   * Tells an engine's policy of requests to come, which keeps captures away from their arrival.
   * Forgotten once it has passed. Announce again what has changed: the policy remembers few.
   * Before an engine has told its plan, requests that were to come count as waiting for its start:
   * the costed policy chooses by them what comes before ready. Those for one that sleeps are kept,
   * too, until it is awake.
   * @throws LazygraphError ERR_LAZYGRAPH_ENGINE_UNKNOWN, or …_LOST while it is not connected, or
   *   …_CLOSED; OptionError for a number out of range
   */
  announce(engine: string, announcement: Announcement): void;
  /**
   * Has an engine sleep by vLLM's sleep mode: it gives back the memory of weights and KV cache once
   * the requests that run have ended; new ones wait. Its graphs stay, unless they are to be dropped.
   * Resolves when it sleeps.
   * @throws LazygraphError ERR_LAZYGRAPH_ENGINE_SLEEP where it can't or won't, …_TIMEOUT after ten
   *   minutes, …_UNKNOWN, …_LOST, …_CLOSED, or …_BUSY where 64 commands wait; OptionError
   */
  sleep(engine: string, options?: SleepOptions): Promise<void>;
  /**
   * Wakes an engine; resolves when it serves. Weights that a sleep of level 2 gave up are loaded
   * again, and dropped graphs come back as any missing graph does.
   * @throws as `sleep`
   */
  wake(engine: string, options?: WakeOptions): Promise<void>;
  /**
   * Resolves with the first connected engine that is what was asked for, at once if there is one.
   * @throws LazygraphError ERR_LAZYGRAPH_NOT_STARTED before `start()`, …_CLOSED, …_BUSY where 1,024
   *   calls wait already, …_ENGINE_TIMEOUT where the signal's reason is a time-out, or what `start()`
   *   failed with meanwhile; OptionError for an option that is unknown or wrong; else the signal's
   *   reason
   */
  waitForEngine(options?: WaitOptions): Promise<EngineSnapshot>;
}

/** @throws OptionError that names the option, what was expected and what came. */
export function createController(options: ControllerOptions = {}): Controller {
  return createControllerOn(systemGround, options);
}

/** For simulations: the same controller on another ground. */
export function createControllerOn(ground: Ground, options: ControllerOptions): Controller {
  return new EngineController(resolveOptions(options), ground);
}

/** Looks at one engine: pictures of all take a fifth of a second where 4,096 have joined. */
export function lookUp(controller: Pick<Controller, "engines">, engine: string): EngineLook {
  if (controller instanceof EngineController) return controller.lookUp(engine);
  const engines = controller.engines();
  const found = engines.find((candidate) => candidate.engine === engine);
  return { found, names: engines.map((candidate) => candidate.engine) };
}

class EngineController implements Controller {
  readonly #options: ResolvedOptions;
  readonly #ground: Ground;
  readonly #registry = new EngineRegistry();
  readonly #waiters = new Waiters<EngineSnapshot>();
  readonly #plans: SharedPlans;
  readonly #memory: SharedMemory;
  readonly #pace: CapturePace;
  readonly #admission: EngineAdmission;
  readonly #frames: EngineFrames;
  readonly #onAbort = (): void => void this.close();
  #router: RouterLink | undefined;
  #starting: Promise<void> | undefined;
  #closed = false;
  #closing: Promise<void> | undefined;

  constructor(options: ResolvedOptions, ground: Ground) {
    this.#options = options;
    this.#ground = ground;
    this.#plans = new SharedPlans(options, ground);
    this.#pace = new CapturePace({ clock: ground.clock, busyShare: ground.watchLoad() });
    this.#memory = openMemory(options, ground, () => this.#registry.reviewMemory());
    this.#admission = this.#openAdmission();
    this.#frames = new EngineFrames({
      clock: ground.clock,
      checks: FROM_ENGINE,
      registry: this.#registry,
      admission: this.#admission,
      send: (peer, frame, kind) => this.#router?.send(peer, frame, kind) ?? false,
    });
    options.signal?.addEventListener("abort", this.#onAbort, { once: true });
    if (options.signal?.aborted === true) this.#onAbort();
  }

  #openAdmission(): EngineAdmission {
    const registry = this.#registry;
    return new EngineAdmission({
      options: this.#options,
      clock: this.#ground.clock,
      registry,
      plans: this.#plans.engines,
      memory: this.#memory,
      pace: () => this.#pace.turn(),
      send: (peer, message) => this.#frames.send(peer, message),
      unreadSeconds: () => this.#router?.unreadSeconds() ?? 0,
      onConnect: (peer) => this.#router?.admit(peer),
      onDisconnect: (peer) => this.#router?.dismiss(peer),
      onJoin: () => {
        this.#plans.tellProblems();
        // What other controllers have learned since; its graphs come seconds later.
        void this.#plans.engines.refresh();
      },
      // Ten times a second of every engine: nobody but the one that changed is looked at.
      onChange: (record) =>
        this.#waiters.wake((options) =>
          isWaitedFor(record, options) ? snapshotOf(record) : undefined,
        ),
    });
  }

  get incarnation(): number {
    return this.#admission.incarnation;
  }

  get listening(): boolean {
    return this.#router !== undefined && !this.#closed;
  }

  get endpoint(): string {
    return this.#router?.endpoint ?? this.#options.endpoint;
  }

  start(): Promise<void> {
    // What it said before it was closed holds no longer.
    if (this.#closed) return this.#open();
    // What failed may be tried again: the address may be free by then.
    this.#starting ??= this.#open().catch((error: unknown) => {
      this.#starting = undefined;
      // Nobody can come, and nothing of a controller that isn't open keeps the process alive.
      this.#waiters.fail(error);
      throw error;
    });
    return this.#starting;
  }

  async #open(): Promise<void> {
    const { endpoint, curve, signal } = this.#options;
    signal?.throwIfAborted();
    if (this.#closed) throw closedError();
    // Before anybody can connect, but not for long: a disk that hangs must not keep engines waiting.
    await withinSeconds(this.#ground.clock, PLANS_SECONDS_MAX, this.#plans.engines.refresh());
    if (this.#closed) throw closedError();
    const router = await this.#ground.openRouter({
      endpoint,
      ...(curve === undefined ? {} : { curve }),
      clock: this.#ground.clock,
      onFrame: (peer, frame) => {
        if (!this.#closed) this.#frames.receive(peer, frame);
      },
      onBatch: (peers) => this.#frames.prefetch(peers),
      onDropped: (peer) => this.#registry.connection(peer)?.session.heard(),
      onFlood: (peer, dropped) => this.#frames.flooded(peer, dropped),
      onUndeliverable: (peer, reason) => this.#frames.undeliverable(peer, reason),
      onKeys: (sentence) => publishProblem("", "ERR_LAZYGRAPH_KEYS", sentence),
      onFault: (error) => this.#fault(error),
      nothing: HEARTBEAT,
    });
    if (this.#closed) {
      await router.close();
      throw closedError();
    }
    this.#router = router;
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#closed = true;
    this.#options.signal?.removeEventListener("abort", this.#onAbort);
    this.#registry.close(closedError());
    this.#pace.close();
    this.#waiters.fail(closedError());
    await this.#starting?.catch(() => undefined);
    await this.#router?.close();
    await this.#plans.close();
    await this.#memory.gpus?.close();
  }

  #fault(error: unknown): void {
    publishProblem("", "ERR_LAZYGRAPH_INTERNAL", `The socket failed: ${messageOf(error)}.`);
    void this.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  engines(): readonly EngineSnapshot[] {
    return this.#registry.snapshots();
  }

  lookUp(engine: string): EngineLook {
    return this.#registry.lookUp(engine);
  }

  setMode(engine: string, mode: Mode): void {
    checkEngine(engine);
    checkMode(mode);
    this.#connected(engine).setMode(mode);
  }

  freeze(engine: string, reason = "freeze() was called"): void {
    checkEngine(engine);
    checkReason(reason);
    this.#connected(engine).freeze(reason);
  }

  announce(engine: string, announcement: Announcement): void {
    checkEngine(engine);
    checkAnnouncement(announcement);
    this.#connected(engine).announce(announcement.inSeconds, announcement.requests ?? 1);
  }

  async sleep(engine: string, options: SleepOptions = {}): Promise<void> {
    checkEngine(engine);
    checkSleep(options);
    await this.#connected(engine).sleep(options);
  }

  async wake(engine: string, options: WakeOptions = {}): Promise<void> {
    checkEngine(engine);
    checkWake(options);
    await this.#connected(engine).wake(options);
  }

  async waitForEngine(options: WaitOptions = {}): Promise<EngineSnapshot> {
    checkWait(options);
    if (options.signal?.aborted === true) throw endOfWait(options);
    if (this.#closed) throw closedError();
    if (this.#starting === undefined) throw notStartedError();
    const present = this.#registry.find(options);
    if (present !== undefined) return present;
    return this.#waiters.wait(options);
  }

  #connected(engine: string): EngineDriver {
    if (this.#closed) throw closedError();
    return this.#registry.connected(engine);
  }
}

function notStartedError(): LazygraphError {
  return new LazygraphError(
    "ERR_LAZYGRAPH_NOT_STARTED",
    "Expected a controller that was started, got one to which no engine can connect: call start() " +
      "before waitForEngine().",
  );
}

function closedError(): LazygraphError {
  return new LazygraphError(
    "ERR_LAZYGRAPH_CLOSED",
    "Expected an open controller, but it is closed: create another one.",
  );
}
