import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { onTestFinished } from "vitest";

export const worker = fileURLToPath(new URL("../../worker", import.meta.url));

export interface EngineEvent {
  readonly event: "ready" | "captured" | "end";
  readonly captured?: readonly string[];
  readonly ranks?: readonly (readonly string[])[];
  readonly steps?: number;
}

/** The Python side of the protocol, the plugin's own code, in a process of its own. */
export class PythonEngine {
  readonly events: EngineEvent[] = [];
  readonly #child: ChildProcess;
  #waiters: (() => void)[] = [];
  #stderr = "";

  constructor(endpoint: string, args: readonly string[] = [], env: NodeJS.ProcessEnv = {}) {
    const script = `${worker}/tests/engine_process.py`;
    this.#child = spawn(workerPython(), [script, "--endpoint", endpoint, ...args], {
      env: { ...process.env, ...env, PYTHONPATH: `${worker}/src` },
      stdio: ["pipe", "pipe", "pipe"],
    });
    onTestFinished(() => void this.#child.kill("SIGKILL"));
    this.#child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      this.#stderr += text;
    });
    if (this.#child.stdout === null) throw new Error("The engine has no standard output.");
    createInterface({ input: this.#child.stdout }).on("line", (line) => {
      this.events.push(JSON.parse(line) as EngineEvent);
      this.#wake();
    });
    this.#child.once("exit", () => this.#wake());
  }

  /** Keeps the engine busy with steps that want the graphs of 8 tokens. */
  load(seconds: number): void {
    this.#child.stdin?.write(`load ${seconds}\n`);
  }

  /** What it has logged so far. */
  get log(): string {
    return this.#stderr;
  }

  /** The first event that matches, past or to come; rejects when the engine is gone. */
  async first(matches: (event: EngineEvent) => boolean): Promise<EngineEvent> {
    for (;;) {
      const found = this.events.find(matches);
      if (found !== undefined) return found;
      if (this.#child.exitCode !== null || this.#child.signalCode !== null) {
        throw new Error(`The engine ended before that event.\n${this.#stderr}`);
      }
      await new Promise<void>((resolve) => this.#waiters.push(resolve));
    }
  }

  /** Ends it as a drained server ends; resolves with its last words. */
  async end(): Promise<EngineEvent> {
    const exited = once(this.#child, "exit");
    this.#child.stdin?.end();
    const last = await this.first((event) => event.event === "end");
    await exited;
    return last;
  }

  #wake(): void {
    for (const wake of this.#waiters.splice(0)) wake();
  }
}

/** The virtual environment that `npm test` makes for the worker's tests. */
export function workerPython(): string {
  const file = `${worker}/.venv/bin/python`;
  if (existsSync(file)) return file;
  throw new Error(`Expected the Python of the worker's tests at ${file}: run npm test once.`);
}
