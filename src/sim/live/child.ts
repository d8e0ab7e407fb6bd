/**
 * A simulated engine in a process of its own, as tests and the demo start it: its life, and what
 * it says.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import { fileURLToPath, pathToFileURL } from "node:url";
import { ERROR_CODES, LazygraphError } from "../../base/errors.ts";
import {
  checkSimulatedEngineOptions,
  type SimulatedEngineEvent,
  type SimulatedEngineOptions,
} from "./child-options.ts";

export interface ProcessEnd {
  readonly exitCode: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface SimulatedEngine {
  readonly pid: number;
  readonly session: string;
  /** Settles when the process has ended. Never rejects. */
  readonly exited: Promise<ProcessEnd>;
  /**
   * The first event of this type, at once if it has happened.
   *
   * @throws LazygraphError `ERR_LAZYGRAPH_ENGINE_LOST` when the process ends before it.
   */
  waitFor<T extends SimulatedEngineEvent["type"]>(
    type: T,
  ): Promise<Extract<SimulatedEngineEvent, { type: T }>>;
  /**
   * Lets a stranger hold this much of its GPU from now on, 0: nothing.
   *
   * @returns the bytes that are free then
   * @throws LazygraphError `ERR_LAZYGRAPH_ENGINE_LOST` when the process has ended.
   */
  setStrangerBytes(bytes: number): Promise<number>;
  /** Sends a signal: SIGKILL for an engine that dies, SIGSTOP for one that hangs. */
  kill(signal?: NodeJS.Signals): boolean;
  /** Asks it to say goodbye and end; kills it when it doesn't. */
  close(): Promise<ProcessEnd>;
  [Symbol.asyncDispose](): Promise<void>;
}

const START_MS_MAX = 30_000;
const CLOSE_MS_MAX = 5000;

/**
 * Starts a simulated engine as a process. It ends with this one.
 *
 * @throws OptionError for an unknown option or one that breaks its rule, before anything is started;
 *   LazygraphError `ERR_LAZYGRAPH_ADDRESS_IN_USE`, `ERR_LAZYGRAPH_BIND`, `ERR_LAZYGRAPH_PROFILE` or
 *   `ERR_LAZYGRAPH_TRACE` for what the engine can't use, `ERR_LAZYGRAPH_COMMAND_DIED` when it ends
 *   for another reason before it has started; the signal's reason.
 */
export async function startSimulatedEngine(
  options: SimulatedEngineOptions = {},
): Promise<SimulatedEngine> {
  checkSimulatedEngineOptions(options);
  const child = spawn(process.execPath, [...simulatedEngineProgram(), ...argumentsOf(options)], {
    stdio: ["ignore", "pipe", "inherit", "ipc"],
    env: environmentOf(options),
    ...(options.signal === undefined ? {} : { signal: options.signal, killSignal: "SIGKILL" }),
  });
  const engine = new EngineProcess(child, options.onEvent);
  const timer = setTimeout(() => child.kill("SIGKILL"), START_MS_MAX);
  try {
    const { session } = await engine.waitFor("started");
    return engine.handle(session);
  } catch (error) {
    const { exitCode, signal } = await engine.exited;
    options.signal?.throwIfAborted();
    if (engine.failure !== undefined) throw engine.failure;
    const end = signal === null ? `exit code ${exitCode}` : signal;
    throw new LazygraphError(
      "ERR_LAZYGRAPH_COMMAND_DIED",
      `Expected the simulated engine to start, got ${end}: see what it wrote on stderr.`,
      { cause: error },
    );
  } finally {
    clearTimeout(timer);
  }
}

/** Arguments for Node: from a checkout the sources, through tsx; from a package what was built. */
export function simulatedEngineProgram(): string[] {
  const source = import.meta.url.endsWith(".ts");
  const file = source ? "../../cli/simulated-engine.ts" : "../../cli/simulated-engine.js";
  const program = fileURLToPath(new URL(file, import.meta.url));
  if (!source) return [program];
  const loader = createRequire(import.meta.url).resolve("tsx");
  return ["--import", pathToFileURL(loader).href, program];
}

function argumentsOf(options: SimulatedEngineOptions): string[] {
  const { trace } = options;
  const values: Readonly<Record<string, string | number | undefined>> = {
    endpoint: options.endpoint,
    engine: options.engine ?? "simulated",
    mode: options.mode ?? "idle",
    profile: options.profile,
    speed: options.speed,
    trace: trace?.file,
    "trace-speed": trace?.speed,
    "trace-seconds": trace?.seconds,
    "trace-requests": trace?.requests,
    "handshake-ms": options.handshakeMs,
    "free-bytes": options.freeBytes,
    "gpu-uuid": options.gpuUuid,
    jitter: options.jitter,
    seed: options.seed,
    http: options.http,
    model: options.model,
    sizes: options.sizes === undefined ? undefined : sizesText(options.sizes),
  };
  return Object.entries(values).flatMap(([name, value]) =>
    value === undefined ? [] : [`--${name}=${value}`],
  );
}

function sizesText(sizes: readonly number[]): string {
  return sizes.length === 0 ? "none" : sizes.join(",");
}

/** Ours, less what a surrounding `lazygraph run` may have set: the options alone decide. */
function environmentOf({ curve }: SimulatedEngineOptions): NodeJS.ProcessEnv {
  const environment = { ...process.env };
  for (const name of Object.keys(environment)) {
    if (name.startsWith("LAZYGRAPH_")) delete environment[name];
  }
  if (curve === undefined) return environment;
  return {
    ...environment,
    LAZYGRAPH_SERVER_KEY: curve.serverKey,
    LAZYGRAPH_PUBLIC_KEY: curve.publicKey,
    LAZYGRAPH_SECRET_KEY: curve.secretKey,
  };
}

interface Waiter {
  readonly type: SimulatedEngineEvent["type"];
  readonly resolve: (event: SimulatedEngineEvent) => void;
  readonly reject: (error: LazygraphError) => void;
}

class EngineProcess {
  readonly exited: Promise<ProcessEnd>;
  readonly #child: ChildProcess;
  readonly #onEvent: ((event: SimulatedEngineEvent) => void) | undefined;
  readonly #seen = new Map<string, SimulatedEngineEvent>();
  #waiters: Waiter[] = [];
  #strangers: ((freeBytes: number | undefined) => void)[] = [];
  #ended = false;
  #failure: LazygraphError | undefined;

  constructor(child: ChildProcess, onEvent?: (event: SimulatedEngineEvent) => void) {
    this.#child = child;
    this.#onEvent = onEvent;
    // Both: the last lines of output may come after the exit.
    this.exited = new Promise((resolve) => {
      child.once("close", (exitCode, signal) => resolve({ exitCode, signal }));
    });
    void this.exited.then(() => this.#end());
    // An aborted signal or a failed spawn shows in `exited`; here it must only not be thrown.
    child.on("error", () => {});
    // Answers come in the order of what was asked.
    child.on("message", (answer) => {
      if (isStranger(answer)) this.#strangers.shift()?.(answer.freeBytes);
      else this.#failure = failureOf(answer) ?? this.#failure;
    });
    const lines = createInterface({ input: child.stdout as Readable });
    lines.on("line", (line) => {
      const event = eventOf(line);
      if (event !== undefined) this.#happened(event);
    });
  }

  /** Why it could not start, where it said so in an error of ours. Known once it has ended. */
  get failure(): LazygraphError | undefined {
    return this.#failure;
  }

  handle(session: string): SimulatedEngine {
    return {
      pid: this.#child.pid ?? 0,
      session,
      exited: this.exited,
      waitFor: (type) => this.waitFor(type),
      setStrangerBytes: (bytes) => this.#setStrangerBytes(bytes),
      kill: (signal) => this.#child.kill(signal),
      close: () => this.#close(),
      [Symbol.asyncDispose]: async () => {
        await this.#close();
      },
    };
  }

  waitFor<T extends SimulatedEngineEvent["type"]>(
    type: T,
  ): Promise<Extract<SimulatedEngineEvent, { type: T }>> {
    return new Promise((resolve, reject) => {
      const seen = this.#seen.get(type);
      const found = resolve as (event: SimulatedEngineEvent) => void;
      if (seen !== undefined) found(seen);
      else if (this.#ended) reject(goneBefore(type));
      else this.#waiters.push({ type, resolve: found, reject });
    });
  }

  async #setStrangerBytes(bytes: number): Promise<number> {
    if (this.#ended || !this.#child.connected) throw goneBefore("what a stranger got");
    const answer = new Promise<number | undefined>((resolve) => this.#strangers.push(resolve));
    this.#child.send({ type: "stranger", bytes });
    const freeBytes = await answer;
    if (freeBytes === undefined) throw goneBefore("what a stranger got");
    return freeBytes;
  }

  #happened(event: SimulatedEngineEvent): void {
    if (!this.#seen.has(event.type)) this.#seen.set(event.type, event);
    const waiters = this.#waiters.filter((waiter) => waiter.type === event.type);
    this.#waiters = this.#waiters.filter((waiter) => waiter.type !== event.type);
    for (const waiter of waiters) waiter.resolve(event);
    this.#onEvent?.(event);
  }

  #end(): void {
    this.#ended = true;
    for (const waiter of this.#waiters) waiter.reject(goneBefore(waiter.type));
    this.#waiters = [];
    for (const answer of this.#strangers) answer(undefined);
    this.#strangers = [];
  }

  async #close(): Promise<ProcessEnd> {
    const timer = setTimeout(() => this.#child.kill("SIGKILL"), CLOSE_MS_MAX);
    this.#child.kill("SIGTERM");
    try {
      return await this.exited;
    } finally {
      clearTimeout(timer);
    }
  }
}

/** Undefined for half a line, the last words of an engine that was killed. */
function eventOf(line: string): SimulatedEngineEvent | undefined {
  try {
    return JSON.parse(line) as SimulatedEngineEvent;
  } catch {
    return undefined;
  }
}

function isStranger(message: unknown): message is { readonly freeBytes: number } {
  return (
    typeof message === "object" &&
    message !== null &&
    "type" in message &&
    message.type === "stranger" &&
    "freeBytes" in message &&
    typeof message.freeBytes === "number"
  );
}

function failureOf(message: unknown): LazygraphError | undefined {
  const { type, code, message: sentence } = Object(message);
  const known = ERROR_CODES.find((candidate) => candidate === code);
  if (type !== "failed" || known === undefined || typeof sentence !== "string") return undefined;
  return new LazygraphError(known, sentence);
}

function goneBefore(type: string): LazygraphError {
  return new LazygraphError(
    "ERR_LAZYGRAPH_ENGINE_LOST",
    `Expected the simulated engine to tell ${type}, but its process has ended.`,
  );
}
