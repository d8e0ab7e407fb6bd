/**
 * The composition root: options → router + one session and one driver per engine.
 *
 * Frames come in here and are sorted by what they are: a `hello` makes or finds a driver, anything
 * else goes to the driver of its peer, and what belongs to nobody is asked who it is.
 */

import { hostname } from "node:os";
import {
  type Announcement,
  checkAnnouncement,
  checkEngine,
  checkMode,
  checkReason,
  checkWait,
} from "./call-options.ts";
import { systemClock, withinSeconds } from "./clock.ts";
import { EngineDriver } from "./engine-driver.ts";
import { type MemoryDesk, memoryDesk } from "./engine-memory.ts";
import { codeOf, type ErrorCode, LazygraphError } from "./errors.ts";
import { publish } from "./events.ts";
import { HostGpus } from "./memory/gpus.ts";
import { type ControllerOptions, type ResolvedOptions, resolveOptions } from "./options.ts";
import { PlanDesk } from "./plan/engine-plan.ts";
import { defaultPlanFolder } from "./plan/place.ts";
import { PlanStore } from "./plan/store.ts";
import { loadProfile } from "./profile/load.ts";
import { type EngineSnapshot, snapshotOf } from "./snapshot.ts";
import { packageVersion } from "./version.ts";
import { isWaitedFor, Waiters, type WaitOptions } from "./waiters.ts";
import { decodeFromEngine, encode } from "./wire/codec.ts";
import type { FromEngine, Hello, Mode, Refuse, ToEngine } from "./wire/protocol.ts";
import { FRAMES_PER_SECOND_MAX, openRouter, type RouterLink } from "./wire/router.ts";
import { refusalOf, Session } from "./wire/session.ts";

/** How long a start waits for learned plans to be read. */
const PLANS_SECONDS_MAX = 2;
/** Sessions remembered as replaced by a younger one of the same engine name. */
const REPLACED_MAX = 256;
/** Strangers remembered as asked for their `hello`. */
const STRANGERS_MAX = 1024;

export interface Controller extends AsyncDisposable {
  /** Where engines connect, a port of 0 resolved once started. */
  readonly endpoint: string;
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
   * Changes when an engine captures, and holds for its next start. Also ends a freeze and asks
   * again for what the engine refused; the mode that it has already changes nothing else.
   * @throws LazygraphError ERR_LAZYGRAPH_ENGINE_UNKNOWN, or …_LOST while it is not connected, or
   *   …_CLOSED; OptionError for an unknown mode
   */
  setMode(engine: string, mode: Mode): void;
  /**
   * Ends captures of an engine until its mode is set.
   * @throws LazygraphError ERR_LAZYGRAPH_ENGINE_UNKNOWN, or …_LOST while it is not connected, or
   *   …_CLOSED; OptionError for a reason that is no text of at most 2,048 characters
   */
  freeze(engine: string, reason?: string): void;
  /**
   * Tells an engine's policy of requests to come, which keeps captures away from their arrival.
   * Forgotten once it has passed. Announce again what has changed: the policy remembers few.
   * Before an engine has told its plan, requests that were to come count as waiting for its start:
   * the costed policy chooses by them what comes before ready.
   * @throws LazygraphError ERR_LAZYGRAPH_ENGINE_UNKNOWN, or …_LOST while it is not connected, or
   *   …_CLOSED; OptionError for a number out of range
   */
  announce(engine: string, announcement: Announcement): void;
  /**
   * Resolves with the first connected engine that is what was asked for, at once if there is one.
   * @throws LazygraphError ERR_LAZYGRAPH_CLOSED; OptionError for an option that is unknown or
   *   wrong; the signal's reason
   */
  waitForEngine(options?: WaitOptions): Promise<EngineSnapshot>;
}

/** @throws OptionError that names the option, what was expected and what came. */
export function createController(options: ControllerOptions = {}): Controller {
  return new EngineController(resolveOptions(options));
}

interface Connection {
  readonly driver: EngineDriver;
  readonly session: Session;
}

class EngineController implements Controller {
  readonly #options: ResolvedOptions;
  readonly #incarnation = nextIncarnation();
  readonly #drivers = new Map<string, EngineDriver>();
  /** Engines by connection; a lost engine has none. */
  readonly #connections = new Map<string, Connection>();
  readonly #modes = new Map<string, Mode>();
  readonly #replaced = new Set<string>();
  /** When a peer without a session was last asked to say hello; infinity: refused, never again. */
  readonly #strangers = new Map<string, number>();
  readonly #waiters = new Waiters();
  readonly #plans: PlanDesk;
  /** Kept until there is an engine: who starts a controller listens from then on at the latest. */
  #planProblems: string[] | undefined = [];
  readonly #memory: MemoryDesk;
  readonly #onAbort = (): void => void this.close();
  #router: RouterLink | undefined;
  #starting: Promise<void> | undefined;
  #closed = false;
  #closing: Promise<void> | undefined;
  #commands = 0;

  constructor(options: ResolvedOptions) {
    this.#options = options;
    this.#plans = openPlans(options, (message) => this.#planProblem(message));
    this.#memory = this.#openMemory();
    options.signal?.addEventListener("abort", this.#onAbort, { once: true });
    if (options.signal?.aborted === true) this.#onAbort();
  }

  get endpoint(): string {
    return this.#router?.endpoint ?? this.#options.endpoint;
  }

  start(): Promise<void> {
    // What it said before it was closed holds no longer.
    if (this.#closed) return this.#open();
    this.#starting ??= this.#open();
    return this.#starting;
  }

  async #open(): Promise<void> {
    const { endpoint, curve, signal } = this.#options;
    signal?.throwIfAborted();
    if (this.#closed) throw closedError();
    // Before anybody can connect, but not for long: a disk that hangs must not keep engines waiting.
    await withinSeconds(systemClock, PLANS_SECONDS_MAX, this.#plans.refresh());
    if (this.#closed) throw closedError();
    const router = await openRouter({
      endpoint,
      ...(curve === undefined ? {} : { curve }),
      clock: systemClock,
      onFrame: (peer, frame) => this.#receive(peer, frame),
      onDropped: (peer) => this.#connections.get(peer)?.session.heard(),
      onFlood: (peer, dropped) => this.#flooded(peer, dropped),
      onUndeliverable: (peer, reason) => this.#undeliverable(peer, reason),
      onFault: (error) => this.#fault(error),
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
    for (const driver of this.#drivers.values()) driver.close();
    for (const { session } of this.#connections.values()) session.close(closedError());
    this.#connections.clear();
    this.#waiters.fail(closedError());
    await this.#starting?.catch(() => undefined);
    await this.#router?.close();
    await this.#plans.close();
    this.#tellPlanProblems();
    await this.#memory.gpus?.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  engines(): readonly EngineSnapshot[] {
    return Object.freeze([...this.#drivers.values()].map((driver) => snapshotOf(driver.record)));
  }

  setMode(engine: string, mode: Mode): void {
    checkEngine(engine);
    checkMode(mode);
    const driver = this.#connected(engine);
    this.#modes.set(engine, mode);
    driver.setMode(mode);
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

  async waitForEngine(options: WaitOptions = {}): Promise<EngineSnapshot> {
    checkWait(options);
    options.signal?.throwIfAborted();
    if (this.#closed) throw closedError();
    const present = this.#matching(options);
    if (present !== undefined) return present;
    return this.#waiters.wait(options);
  }

  // ---------------------------------------------------------------- frames in

  #receive(peer: string, frame: Uint8Array): void {
    if (this.#closed) return;
    const connection = this.#connections.get(peer);
    connection?.session.heard();
    try {
      const message = decodeFromEngine(frame);
      if (message === undefined) {
        if (connection !== undefined) connection.driver.record.problems.unknownTypes += 1;
        return;
      }
      this.#sort(peer, connection, message);
    } catch (error) {
      // What a peer sends, and what a listener throws, must not end the loop that reads for all.
      const known = codeOf(error) === "ERR_LAZYGRAPH_PROTOCOL_FRAME";
      if (known && connection !== undefined) connection.driver.record.problems.malformed += 1;
      const why = error instanceof Error ? error.message : String(error);
      const code = known ? "ERR_LAZYGRAPH_PROTOCOL_FRAME" : "ERR_LAZYGRAPH_INTERNAL";
      this.#problem(connection, code, why);
    }
  }

  #sort(peer: string, connection: Connection | undefined, message: FromEngine): void {
    if (message.type === "hello") {
      this.#hello(peer, connection, message);
    } else if (connection === undefined) {
      this.#askWho(peer);
    } else if (message.type === "goodbye") {
      connection.driver.record.phase = "stopping";
      connection.driver.record.goodbye = message.reason;
      connection.session.lose(
        new LazygraphError(
          "ERR_LAZYGRAPH_ENGINE_LOST",
          `The engine said goodbye: ${message.reason}`,
        ),
      );
    } else {
      connection.driver.receive(message);
    }
  }

  /** A peer without a session: this controller was restarted, or had given the engine up. */
  #askWho(peer: string): void {
    const now = systemClock.now();
    const askedAt = this.#strangers.get(peer) ?? Number.NEGATIVE_INFINITY;
    if (now - askedAt < this.#options.heartbeatMs / 1000) return;
    this.#remember(peer, now);
    this.#send(peer, { type: "resync", hello: true });
  }

  #hello(peer: string, connection: Connection | undefined, hello: Hello): void {
    const refusal = this.#refusal(hello);
    if (refusal !== undefined) {
      this.#refuse(peer, refusal, hello.engine);
      return;
    }
    const { engine, session: id } = hello;
    if (connection !== undefined) {
      const { hello: known, mode } = connection.driver.record;
      if (known.session === id && known.engine === engine) {
        // The first answer has not reached it yet, or its connection broke and came back.
        connection.session.welcome(mode);
        return;
      }
      // A connection belongs to one engine: the one it named before has no other.
      this.#endConnectionOf(connection.driver, `its connection is ${engine}'s now`);
    }
    this.#strangers.delete(peer);
    this.#tellPlanProblems();
    // What other controllers have learned since; its graphs come seconds later.
    void this.#plans.refresh();
    const old = this.#drivers.get(engine);
    const mode = this.#modes.get(engine) ?? this.#options.mode;
    const session = this.#session(peer, hello);
    if (old !== undefined && old.record.hello.session === id) {
      this.#endConnectionOf(old, "it came back over another connection");
      this.#connections.set(peer, { driver: old, session });
      old.attach(hello, session);
      return;
    }
    const replaced = old === undefined ? 0 : this.#replace(old);
    const driver = new EngineDriver(hello, mode, session, {
      clock: systemClock,
      policy: this.#options.policy,
      settleWithinSeconds: this.#options.settleWithinSeconds,
      rules: this.#options.rules,
      plans: this.#plans,
      memory: this.#memory,
      onChange: () => this.#wakeWaiters(),
    });
    driver.record.problems.replaced = replaced;
    this.#drivers.set(engine, driver);
    this.#connections.set(peer, { driver, session });
    driver.join();
  }

  #session(peer: string, hello: Hello): Session {
    const { heartbeatMs, captureTimeoutMs, memory = {} } = this.#options;
    const { reserve, marginBytes } = memory;
    const session: Session = new Session(hello, {
      clock: systemClock,
      send: (message) => this.#send(peer, message),
      heartbeatMs,
      captureTimeoutMs,
      incarnation: this.#incarnation,
      memory: {
        ...(reserve === undefined ? {} : { reserve }),
        ...(marginBytes === undefined ? {} : { marginBytes }),
      },
      nextCommand: () => {
        this.#commands += 1;
        return this.#commands;
      },
      onLost: (error) => {
        const connection = this.#connections.get(peer);
        if (connection?.session !== session) return;
        this.#connections.delete(peer);
        connection.driver.detach(error);
      },
    });
    return session;
  }

  /** The driver of this host's GPUs is opened later, when an engine has told which it is on. */
  #openMemory(): MemoryDesk {
    const { memory = {} } = this.#options;
    if (memory.gpu === false) return memoryDesk(memory);
    const gpus = new HostGpus({
      clock: systemClock,
      onNews: () => {
        for (const { driver } of this.#connections.values()) driver.reviewMemory();
      },
      onFault: (gpu, error) => {
        const why = error instanceof Error ? error.message : String(error);
        const code = codeOf(error) ?? "ERR_LAZYGRAPH_INTERNAL";
        const message = `The memory of GPU ${gpu} can't be read, so its engines' own figures count: ${why}`;
        publish("lazygraph:problem", { engine: "", atUnixMs: Date.now(), code, message });
      },
    });
    return memoryDesk(memory, gpus);
  }

  #refusal(hello: Hello): Refuse | undefined {
    const version = refusalOf(hello);
    if (version !== undefined) return version;
    const { engine } = hello;
    if (this.#replaced.has(hello.session)) return replacedRefusal(engine);
    if (this.#drivers.has(engine) || this.#drivers.size < this.#options.enginesMax)
      return undefined;
    for (const [name, driver] of this.#drivers) {
      if (driver.record.connected) continue;
      driver.close();
      this.#drivers.delete(name);
      this.#modes.delete(name);
      return undefined;
    }
    const message =
      `Expected at most ${this.#options.enginesMax} engines at once, got ${engine} as one more: ` +
      "raise enginesMax, or start another controller.";
    return { type: "refuse", code: "ERR_LAZYGRAPH_ENGINES_MAX", message };
  }

  #refuse(peer: string, refusal: Refuse, engine: string): void {
    this.#remember(peer, Number.POSITIVE_INFINITY);
    this.#send(peer, refusal);
    const { code, message } = refusal;
    publish("lazygraph:problem", { engine, atUnixMs: Date.now(), code, message });
  }

  /**
   * Another process took the name: the older one is told so, else the two would take turns.
   * @returns how often this name was taken from a process that was still there
   */
  #replace(driver: EngineDriver): number {
    const { hello, problems } = driver.record;
    const { engine, session } = hello;
    this.#replaced.add(session);
    if (this.#replaced.size > REPLACED_MAX) {
      for (const oldest of this.#replaced) {
        this.#replaced.delete(oldest);
        break;
      }
    }
    const peer = this.#endConnectionOf(driver, "a younger engine took its name");
    if (peer !== undefined) this.#refuse(peer, replacedRefusal(engine), engine);
    driver.close();
    return problems.replaced + (peer === undefined ? 0 : 1);
  }

  #endConnectionOf(driver: EngineDriver, why: string): string | undefined {
    for (const [peer, connection] of this.#connections) {
      if (connection.driver !== driver) continue;
      connection.session.lose(
        new LazygraphError(
          "ERR_LAZYGRAPH_ENGINE_LOST",
          `Expected engine ${driver.record.hello.engine} to stay, but ${why}.`,
        ),
      );
      return peer;
    }
    return undefined;
  }

  // ---------------------------------------------------------------- frames out, and faults

  #send(peer: string, message: ToEngine): boolean {
    let frame: Uint8Array;
    try {
      frame = encode(message);
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      this.#problem(this.#connections.get(peer), "ERR_LAZYGRAPH_INTERNAL", why);
      return false;
    }
    return this.#router?.send(peer, frame) ?? false;
  }

  #flooded(peer: string, dropped: number): void {
    const connection = this.#connections.get(peer);
    if (connection !== undefined) connection.driver.record.problems.flooded += dropped;
    this.#problem(
      connection,
      "ERR_LAZYGRAPH_ENGINE_FLOOD",
      `Expected an engine to send at most ${FRAMES_PER_SECOND_MAX} frames per second, got ` +
        `${dropped} more: they were dropped unread.`,
    );
  }

  #undeliverable(peer: string, reason: string): void {
    const session = this.#connections.get(peer)?.session;
    session?.lose(
      new LazygraphError(
        "ERR_LAZYGRAPH_ENGINE_LOST",
        `Expected engine ${session.hello.engine} to be reachable, but ${reason}.`,
      ),
    );
  }

  #fault(error: unknown): void {
    const why = error instanceof Error ? error.message : String(error);
    this.#problem(undefined, "ERR_LAZYGRAPH_INTERNAL", `The socket failed: ${why}.`);
    void this.close();
  }

  #problem(connection: Connection | undefined, code: ErrorCode, message: string): void {
    const engine = connection?.driver.record.hello.engine ?? "";
    publish("lazygraph:problem", { engine, atUnixMs: Date.now(), code, message });
  }

  #planProblem(message: string): void {
    if (this.#planProblems !== undefined) this.#planProblems.push(message);
    else this.#problem(undefined, "ERR_LAZYGRAPH_PLAN", message);
  }

  #tellPlanProblems(): void {
    const problems = this.#planProblems ?? [];
    this.#planProblems = undefined;
    for (const message of problems) this.#planProblem(message);
  }

  #remember(peer: string, atSeconds: number): void {
    this.#strangers.delete(peer);
    this.#strangers.set(peer, atSeconds);
    if (this.#strangers.size <= STRANGERS_MAX) return;
    for (const oldest of this.#strangers.keys()) {
      this.#strangers.delete(oldest);
      break;
    }
  }

  // ---------------------------------------------------------------- callers

  #known(engine: string): EngineDriver {
    const driver = this.#drivers.get(engine);
    if (driver !== undefined) return driver;
    const names = [...this.#drivers.keys()].slice(0, 5).join(", ");
    throw new LazygraphError(
      "ERR_LAZYGRAPH_ENGINE_UNKNOWN",
      `Expected the name of an engine that joined (${names || "none did yet"}), got ${engine}.`,
    );
  }

  /** What can't be told to an engine is not taken: the caller would believe it done. */
  #connected(engine: string): EngineDriver {
    if (this.#closed) throw closedError();
    const driver = this.#known(engine);
    const { connected, lostReason } = driver.record;
    if (connected) return driver;
    throw new LazygraphError(
      "ERR_LAZYGRAPH_ENGINE_LOST",
      `Expected engine ${engine} to be connected, but it is not (${lostReason ?? "no reason"}): ` +
        "ask again once it is back.",
    );
  }

  #wakeWaiters(): void {
    this.#waiters.wake((options) => this.#matching(options));
  }

  #matching(options: WaitOptions): EngineSnapshot | undefined {
    for (const { record } of this.#drivers.values()) {
      if (isWaitedFor(record, options)) return snapshotOf(record);
    }
    return undefined;
  }
}

function openPlans(options: ResolvedOptions, onProblem: (message: string) => void): PlanDesk {
  const { plan, planFolder, planReadOnly, profile } = options;
  const folder = plan ? (planFolder ?? foundPlanFolder(onProblem)) : undefined;
  const store =
    folder === undefined
      ? undefined
      : new PlanStore({ folder, readOnly: planReadOnly, clock: systemClock, onProblem });
  const learnedBy = `lazygraph ${packageVersion()} on ${hostname()}`;
  const costs = profile === undefined ? undefined : loadProfile(profile);
  return new PlanDesk(store, learnedBy, costs);
}

/** Nobody asked for plans to be kept: where there is no place for them, none are. */
function foundPlanFolder(onProblem: (message: string) => void): string | undefined {
  try {
    return defaultPlanFolder(process.env);
  } catch (error) {
    onProblem(error instanceof Error ? error.message : String(error));
    return undefined;
  }
}

let incarnation = 0;

/** Unix milliseconds of this start, later than every other start in this process. */
function nextIncarnation(): number {
  incarnation = Math.max(Date.now(), incarnation + 1);
  return incarnation;
}

function replacedRefusal(engine: string): Refuse {
  return {
    type: "refuse",
    code: "ERR_LAZYGRAPH_ENGINE_REPLACED",
    message:
      `Expected one engine of the name ${engine}, but a younger one took it: ` +
      "give each engine a name of its own (LAZYGRAPH_ENGINE).",
  };
}

function closedError(): LazygraphError {
  return new LazygraphError(
    "ERR_LAZYGRAPH_CLOSED",
    "Expected an open controller, but it is closed: create another one.",
  );
}
