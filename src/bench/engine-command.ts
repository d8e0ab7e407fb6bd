/** The engine's command of one run: started in a process group of its own, logged, and ended. */

import { type ChildProcess, spawn } from "node:child_process";
import { randomInt } from "node:crypto";
import { once } from "node:events";
import { createWriteStream } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { LazygraphError } from "../base/errors.ts";
import { statusOf } from "../base/http-status.ts";
import { sleep } from "./driver.ts";

export interface CommandOptions {
  readonly command: readonly string[];
  readonly environment: NodeJS.ProcessEnv;
  /** Its stdout and stderr. */
  readonly logFile: string;
  /** What sentences call it. @default its path */
  readonly logName?: string;
}

const STOP_MS_MAX = 30_000;
const POLL_MS = 10;
const POLL_TIMEOUT_MS = 2000;

export class EngineCommand {
  /** `performance.now()` at the spawn. */
  readonly spawnedAtMs: number;
  /** What sentences call it. */
  readonly log: string;
  readonly #child: ChildProcess;
  readonly #ended: Promise<void>;
  #end: string | undefined;
  readonly #killOnExit = (): void => this.#killGroup();

  private constructor(child: ChildProcess, spawnedAtMs: number, options: CommandOptions) {
    const { logFile, logName = logFile } = options;
    this.#child = child;
    this.log = logName;
    this.spawnedAtMs = spawnedAtMs;
    const log = createWriteStream(logFile);
    const outputs = [child.stdout, child.stderr].filter((output) => output !== null);
    for (const output of outputs) output.pipe(log, { end: false });
    // A full disk costs the log: a command whose output nobody reads would stand still.
    log.on("error", () => {
      for (const output of outputs) output.unpipe(log).resume();
    });
    this.#ended = new Promise((resolve) => {
      const end = (why: string): void => {
        this.#end ??= why;
        resolve();
      };
      // Not "close": ranks that outlive it hold its output open.
      child.once("exit", (code, signal) => end(signal ?? `exit code ${code}`));
      child.once("close", () => log.end());
      child.once("error", (error) => {
        if (child.pid === undefined) end(error.message);
      });
    });
    // The group outlives a benchmark that is ended by a defect, and would keep the GPU.
    process.once("exit", this.#killOnExit);
  }

  static start(options: CommandOptions): EngineCommand {
    const { command, environment } = options;
    const [file = "", ...args] = command;
    const spawnedAtMs = performance.now();
    const child = spawn(file, args, {
      env: environment,
      detached: true,
      stdio: ["ignore", "pipe", "pipe"],
    });
    return new EngineCommand(child, spawnedAtMs, options);
  }

  /** How it ended, if it has. */
  get end(): string | undefined {
    return this.#end;
  }

  /**
   * Polls until the server answers.
   *
   * @throws LazygraphError `ERR_LAZYGRAPH_COMMAND_DIED`, or `ERR_LAZYGRAPH_BENCH` when the time is
   *   up; nothing when aborted
   */
  async untilReady(url: URL, secondsMax: number, signal: AbortSignal): Promise<void> {
    const deadline = performance.now() + secondsMax * 1000;
    while (!signal.aborted) {
      if (await isReady(url)) return;
      if (this.#end !== undefined) {
        throw new LazygraphError(
          "ERR_LAZYGRAPH_COMMAND_DIED",
          `Expected the engine to get ready, but its command ended by ${this.#end}: see ` +
            `${this.log}.`,
        );
      }
      if (performance.now() > deadline) {
        throw new LazygraphError(
          "ERR_LAZYGRAPH_BENCH",
          `Expected the engine to answer at ${url.href} within ${secondsMax} s, but it didn't: ` +
            `see ${this.log}.`,
        );
      }
      await sleep(POLL_MS, signal);
    }
  }

  /** Asks it to end, then kills whatever is left of its group. */
  async stop(): Promise<void> {
    if (this.#end === undefined) {
      this.#child.kill("SIGTERM");
      const timer = setTimeout(() => this.#killGroup(), STOP_MS_MAX);
      await this.#ended;
      clearTimeout(timer);
    }
    // Ranks that lost their parent would keep the GPU's memory.
    this.#killGroup();
    process.off("exit", this.#killOnExit);
  }

  #killGroup(): void {
    if (this.#child.pid === undefined) return;
    try {
      process.kill(-this.#child.pid, "SIGKILL");
    } catch {
      // Nobody is left.
    }
  }
}

/** `/health` where there is one, else the list of models. */
async function isReady(url: URL): Promise<boolean> {
  for (const path of ["health", "v1/models"]) {
    const base = url.href.endsWith("/") ? url.href : `${url.href}/`;
    const status = await statusOf(new URL(path, base), POLL_TIMEOUT_MS);
    if (status === 200) return true;
    if (status !== 404) return false;
  }
  return false;
}

/** Below those that systems give to whoever asks for any, or connects. */
const [PORT_MIN, PORT_MAX] = [11_000, 32_767];
let lastPort = randomInt(PORT_MIN, 32_000);

/** Free at this moment; nobody holds it until the command binds it, but nobody gets it by chance. */
export async function freePort(triesLeft = 20): Promise<number> {
  lastPort = lastPort < PORT_MAX ? lastPort + 1 : PORT_MIN;
  const server = createServer().listen(triesLeft > 0 ? lastPort : 0, "127.0.0.1");
  try {
    await once(server, "listening");
  } catch (error) {
    if (triesLeft > 0) return freePort(triesLeft - 1);
    throw error;
  }
  const { port } = server.address() as AddressInfo;
  await once(server.close(), "close");
  return port;
}
