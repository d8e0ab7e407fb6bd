/**
 * A controller that another process runs, over its HTTP side: for the gateway replicas beside the
 * one that embeds it, or beside `lazygraph serve`.
 */

import { callListener } from "../base/call-listener.ts";
import { callback, checkOptions, type OptionRules } from "../base/check-options.ts";
import { LazygraphError, OptionError } from "../base/errors.ts";
import { number } from "../base/schema.ts";
import { shown } from "../base/shown.ts";
import {
  type Announcement,
  checkAnnouncement,
  checkEngine,
  checkMode,
  checkReason,
  checkSleep,
  checkWait,
  checkWake,
} from "../controller/call-options.ts";
import { endOfWait, Waiters, type WaitOptions } from "../controller/waiters.ts";
import type { SleepOptions, WakeOptions } from "../engine/sleep.ts";
import type { EngineSnapshot } from "../engine/snapshot.ts";
import { tokenRule } from "../http/access.ts";
import type { Mode } from "../wire/protocol.ts";
import { answered, baseUrl, type Call, call, callText, unreachable } from "./http-calls.ts";
import { Problems } from "./problems.ts";
import type { ControllerView } from "./view.ts";

export interface ConnectOptions {
  /** Milliseconds between two looks at the controller, 50 to 60,000. @default 500 */
  readonly pollMs?: number;
  /**
   * Milliseconds until an answer begins, and again for each MiB of it, 50 to 60,000; a list may take
   * 2 more for each engine that the last one had. @default 2000
   */
  readonly timeoutMs?: number;
  /** Bearer token, where the controller wants one. @default none */
  readonly token?: string;
  /** Called after each look that found something else than the last one. */
  readonly onChange?: () => void;
  /**
   * Called when a look or an announcement fails otherwise than the one before it: no answer, a wrong
   * token.
   * @default a process warning, but of a controller that can't be reached
   */
  readonly onProblem?: (error: unknown) => void;
}

export interface ControllerClient extends ControllerView, AsyncDisposable {
  readonly url: string;
  /** Whether the last look was answered. */
  readonly connected: boolean;
  /** Why the last look was not answered. */
  readonly problem: LazygraphError | undefined;
  /** Announcements that were not sent, or not answered. */
  readonly announcementsDropped: number;
  /**
   * As the controller's own. What a controller refuses doesn't come by waiting: without the token
   * that it wants for reading this rejects at once.
   * @throws LazygraphError ERR_LAZYGRAPH_TOKEN; ERR_LAZYGRAPH_CLOSED; where the signal's reason is a
   *   time-out ERR_LAZYGRAPH_ENGINE_TIMEOUT, or why the controller doesn't answer, with the time-out
   *   as its cause; OptionError; else the signal's reason
   */
  waitForEngine(options?: WaitOptions): Promise<EngineSnapshot>;
  /**
   * As the controller's own, when it has answered.
   * @throws LazygraphError as there, and ERR_LAZYGRAPH_CONTROLLER_UNREACHABLE; OptionError
   */
  setMode(engine: string, mode: Mode): Promise<void>;
  /** @throws as `setMode` */
  freeze(engine: string, reason?: string): Promise<void>;
  /** @throws as `setMode` */
  sleep(engine: string, options?: SleepOptions): Promise<void>;
  /** @throws as `setMode` */
  wake(engine: string, options?: WakeOptions): Promise<void>;
}

const POLL_MS = 500;
const TIMEOUT_MS = 2000;
/** Five times what one takes of a controller's time, which does all in one go. */
const ENGINE_MS = 2;
/** The controller itself gives an engine ten minutes to sleep, or to wake up. */
const SLEEP_TIMEOUT_MS = 610_000;
/** Announcements under way: they are hints, and the latest are the ones that count. */
const ANNOUNCEMENTS_MAX = 16;
const RULES: OptionRules<ConnectOptions> = {
  pollMs: number(50, 60_000),
  timeoutMs: number(50, 60_000),
  token: tokenRule,
  onChange: callback,
  onProblem: callback,
};

/**
 * Looks at a controller from now on, until closed. Until its first answer, and while it doesn't
 * answer, no engine counts as connected.
 *
 * @throws OptionError for what is no HTTP URL, and for options that are unknown or out of range
 */
export function connectController(url: string, options: ConnectOptions = {}): ControllerClient {
  checkOptions(options, RULES);
  const base = baseUrl(url);
  if (base === undefined) {
    const expected = "Expected url to be such as http://10.0.0.7:7480, without user and password";
    // Before an "@" there may be a password, which is nobody's to read.
    const has = typeof url === "string" && url.includes("@");
    const got = has ? "one with them" : shown(url);
    throw new OptionError("url", `${expected}, got ${got}.`);
  }
  return new HttpController(base, options);
}

class HttpController implements ControllerClient {
  readonly #base: URL;
  readonly #options: ConnectOptions;
  readonly #waiters = new Waiters<EngineSnapshot>();
  readonly #closing = new AbortController();
  #engines: readonly EngineSnapshot[] = [];
  #seen = "";
  #announcing = 0;
  #timer: NodeJS.Timeout | undefined;
  readonly #problems: Problems;
  connected = false;
  problem: LazygraphError | undefined;
  announcementsDropped = 0;

  constructor(base: URL, options: ConnectOptions) {
    this.#base = base;
    this.#options = options;
    this.#problems = new Problems(options.onProblem);
    void this.#look();
  }

  get url(): string {
    return this.#base.href;
  }

  engines(): readonly EngineSnapshot[] {
    return this.#engines;
  }

  async #look(): Promise<void> {
    let engines = this.#engines;
    let problem: LazygraphError | undefined;
    let seen: string;
    try {
      const timeoutMs = this.#timeoutMs + ENGINE_MS * engines.length;
      seen = await callText(this.#base, "v1/engines", this.#how({ timeoutMs }));
      // Of thousands of engines reading it takes the most time.
      if (seen !== this.#seen) engines = enginesOf(this.#base, answered(this.#base, seen));
    } catch (error) {
      if (this.#closing.signal.aborted) return;
      problem = error as LazygraphError;
      engines = this.#away(problem);
      seen = problem.message;
    }
    if (this.#closing.signal.aborted) return;
    const { pollMs = POLL_MS, onChange } = this.#options;
    this.#timer = setTimeout(() => void this.#look(), pollMs);
    const connected = problem === undefined;
    this.connected = connected;
    this.problem = problem;
    this.#tell(problem);
    if (seen === this.#seen) return;
    this.#seen = seen;
    this.#engines = engines;
    this.#waiters.wake((wanted) => this.#find(wanted));
    callListener("onChange", onChange);
  }

  /** What was seen last, of which nothing is known any more. */
  #away({ message }: LazygraphError): readonly EngineSnapshot[] {
    return this.#engines.map((engine) => ({ ...engine, connected: false, lostReason: message }));
  }

  #tell(problem: LazygraphError | undefined): void {
    if (problem === undefined) this.#problems.went("look");
    else this.#problems.failed("look", problem);
    if (isRefusal(problem)) this.#waiters.fail(problem);
  }

  get #timeoutMs(): number {
    return this.#options.timeoutMs ?? TIMEOUT_MS;
  }

  #how(how: Call): Call {
    const { token } = this.#options;
    return { ...how, signal: this.#closing.signal, ...(token === undefined ? {} : { token }) };
  }

  #call(
    path: string,
    method: "PUT" | "POST",
    body: object,
    timeoutMs: number = this.#timeoutMs,
  ): Promise<object> {
    return call(this.#base, path, this.#how({ method, body, timeoutMs }));
  }

  #find(wanted: WaitOptions): EngineSnapshot | undefined {
    return this.#engines.find(
      ({ engine, connected, phase, settled, cudagraphMode }) =>
        connected &&
        (wanted.engine ?? engine) === engine &&
        (wanted.phase ?? phase) === phase &&
        // As the controller's own: one that served before it says a moment later what it holds.
        (wanted.phase !== "serving" || cudagraphMode !== undefined) &&
        (wanted.settled !== true || settled),
    );
  }

  async waitForEngine(options: WaitOptions = {}): Promise<EngineSnapshot> {
    checkWait(options);
    if (options.signal?.aborted === true) throw this.#because(endOfWait(options));
    this.#requireOpen();
    const found = this.#find(options);
    if (found !== undefined) return found;
    if (isRefusal(this.problem)) throw this.problem;
    return this.#waiters.wait(options).catch((error: unknown) => {
      throw this.#because(error);
    });
  }

  /** Of a wait that took too long the reason, where one is known. */
  #because(error: unknown): unknown {
    const { problem } = this;
    const isLate = error instanceof LazygraphError && error.code === "ERR_LAZYGRAPH_ENGINE_TIMEOUT";
    if (problem === undefined || !isLate) return error;
    return new LazygraphError(problem.code, problem.message, { cause: error.cause });
  }

  announce(engine: string, announcement: Announcement): void {
    checkEngine(engine);
    checkAnnouncement(announcement);
    this.#requireOpen();
    const known = this.#engines.find((candidate) => candidate.engine === engine);
    if (known === undefined) throw unknown(engine);
    if (!known.connected) {
      throw new LazygraphError(
        "ERR_LAZYGRAPH_ENGINE_LOST",
        known.lostReason ?? `${engine} is lost.`,
      );
    }
    if (this.#announcing >= ANNOUNCEMENTS_MAX) {
      this.announcementsDropped++;
      return;
    }
    this.#announcing++;
    this.#call(`v1/engines/${encodeURIComponent(engine)}/announce`, "POST", announcement)
      .then(() => this.#problems.went("announcement"))
      .catch((error: unknown) => {
        this.announcementsDropped++;
        if (!this.#closing.signal.aborted) this.#problems.failed("announcement", error);
      })
      .finally(() => this.#announcing--);
  }

  async setMode(engine: string, mode: Mode): Promise<void> {
    checkEngine(engine);
    checkMode(mode);
    this.#requireOpen();
    await this.#call(`v1/engines/${encodeURIComponent(engine)}/mode`, "PUT", { mode });
  }

  async freeze(engine: string, reason = "freeze() was called"): Promise<void> {
    checkEngine(engine);
    checkReason(reason);
    this.#requireOpen();
    await this.#call(`v1/engines/${encodeURIComponent(engine)}/freeze`, "POST", { reason });
  }

  async sleep(engine: string, options: SleepOptions = {}): Promise<void> {
    checkEngine(engine);
    checkSleep(options);
    this.#requireOpen();
    const path = `v1/engines/${encodeURIComponent(engine)}/sleep`;
    await this.#call(path, "POST", options, SLEEP_TIMEOUT_MS);
  }

  async wake(engine: string, options: WakeOptions = {}): Promise<void> {
    checkEngine(engine);
    checkWake(options);
    this.#requireOpen();
    const path = `v1/engines/${encodeURIComponent(engine)}/wake`;
    await this.#call(path, "POST", options, SLEEP_TIMEOUT_MS);
  }

  async close(): Promise<void> {
    clearTimeout(this.#timer);
    this.#closing.abort(closedError());
    this.connected = false;
    this.#engines = this.#away(closedError());
    this.#waiters.fail(closedError());
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #requireOpen(): void {
    if (this.#closing.signal.aborted) throw closedError();
  }
}

/** Of a controller that is there, and won't: asking again changes nothing. */
function isRefusal(problem: LazygraphError | undefined): problem is LazygraphError {
  return problem?.code === "ERR_LAZYGRAPH_TOKEN";
}

function enginesOf(base: URL, answer: object): readonly EngineSnapshot[] {
  const engines = "engines" in answer ? answer.engines : undefined;
  if (Array.isArray(engines) && engines.every(isSnapshot)) return engines;
  throw unreachable(base, "an answer that is no controller's");
}

/** As far as a stranger's answer would not be one. */
function isSnapshot(value: unknown): value is EngineSnapshot {
  if (typeof value !== "object" || value === null) return false;
  const { engine, phase, connected, graphs } = value as Partial<EngineSnapshot>;
  const named = typeof engine === "string" && typeof phase === "string";
  return named && typeof connected === "boolean" && Array.isArray(graphs);
}

function unknown(engine: string): LazygraphError {
  return new LazygraphError(
    "ERR_LAZYGRAPH_ENGINE_UNKNOWN",
    `Expected the name of an engine that joined, got ${JSON.stringify(engine.slice(0, 100))}.`,
  );
}

function closedError(): LazygraphError {
  return new LazygraphError(
    "ERR_LAZYGRAPH_CLOSED",
    "Expected an open connection to a controller, but it is closed: connect again.",
  );
}
