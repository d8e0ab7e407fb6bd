/** A server under measurement as a child process: its start, its readiness, its end. */

import { type ChildProcess, spawn } from "node:child_process";
import { createWriteStream, type WriteStream } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

export interface ServerStart {
  readonly name: string;
  readonly command: readonly string[];
  readonly env: NodeJS.ProcessEnv;
  /** Gets all that it prints. */
  readonly log: string;
}

export interface Server {
  readonly name: string;
  readonly child: ChildProcess;
  readonly log: WriteStream;
  /** Milliseconds of `performance.now()`. */
  readonly spawnedAtMs: number;
}

const POLL_MS = 10;
const ANSWER_MS_MAX = 1000;
const END_MS_MAX = 15_000;

export function startServer({ name, command, env, log }: ServerStart): Server {
  const spawnedAtMs = performance.now();
  const [file, ...args] = command as [string, ...string[]];
  const child = spawn(file, args, { env, detached: true, stdio: ["ignore", "pipe", "pipe"] });
  const output = createWriteStream(log);
  child.stdout?.pipe(output, { end: false });
  child.stderr?.pipe(output, { end: false });
  // `exitCode` tells as much, a moment later; without a listener this would end the benchmark.
  child.once("error", (error) => output.write(`${error.message}\n`));
  return { name, child, log: output, spawnedAtMs };
}

function hasEnded({ exitCode, signalCode, pid }: ChildProcess): boolean {
  return exitCode !== null || signalCode !== null || pid === undefined;
}

/**
 * When it answered first, in milliseconds of `performance.now()`.
 *
 * @throws Error when it ends before, or doesn't get ready in time
 */
export async function untilReady(url: URL, server: Server, secondsMax: number): Promise<number> {
  const deadline = performance.now() + secondsMax * 1000;
  while (performance.now() < deadline) {
    const { name, child } = server;
    if (hasEnded(child)) {
      const how = child.signalCode ?? `code ${child.exitCode}`;
      throw new Error(`${name}: expected a server, it ended with ${how}; see its log.`);
    }
    try {
      const signal = AbortSignal.timeout(ANSWER_MS_MAX);
      const response = await fetch(new URL("/health", url), { signal });
      if (response.ok) return performance.now();
    } catch {
      // Not listening yet.
    }
    await sleep(POLL_MS);
  }
  throw new Error(
    `${server.name}: expected it ready within ${secondsMax} s, it was not; see its log.`,
  );
}

/** Ends it and all that it started; returns when nothing of its process group is left. */
export async function stopServer({ child, log }: Server): Promise<void> {
  if (child.pid === undefined) {
    log.end();
    return;
  }
  if (!hasEnded(child)) {
    const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
    child.kill("SIGTERM");
    const late = sleep(END_MS_MAX, "late" as const, { ref: false });
    if ((await Promise.race([ended, late])) === "late") killGroup(child.pid);
    await ended;
  }
  killGroup(child.pid); // Stray ranks would keep the GPU's memory.
  log.end();
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // Nobody left.
  }
}
