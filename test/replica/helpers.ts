import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { onTestFinished } from "vitest";
import type { StandbyOptions } from "../../src/replica/standby.ts";

const SCRIPT = fileURLToPath(new URL("replica-process.ts", import.meta.url));

export interface ReplicaState {
  readonly leads: boolean;
  readonly follows: string | null;
  readonly engines: readonly string[];
}

/** A replica in a process of its own. */
export class ReplicaProcess {
  readonly #child: ChildProcess;
  readonly #states: ReplicaState[] = [];
  #waiters: (() => void)[] = [];
  #stderr = "";

  constructor(options: StandbyOptions) {
    const args = ["--import", "tsx", SCRIPT, JSON.stringify(options)];
    this.#child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "pipe"] });
    onTestFinished(() => void this.#child.kill("SIGKILL"));
    this.#child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      this.#stderr += text;
    });
    if (this.#child.stdout === null) throw new Error("The replica has no standard output.");
    createInterface({ input: this.#child.stdout }).on("line", (line) => {
      this.#states.push(JSON.parse(line) as ReplicaState);
      this.#wake();
    });
    this.#child.once("exit", () => this.#wake());
  }

  /** The first state from now on, or the latest, that matches. */
  async until(matches: (state: ReplicaState) => boolean): Promise<ReplicaState> {
    for (;;) {
      const latest = this.#states.at(-1);
      if (latest !== undefined && matches(latest)) return latest;
      if (this.#child.exitCode !== null) throw new Error(`The replica ended.\n${this.#stderr}`);
      await new Promise<void>((resolve) => this.#waiters.push(resolve));
    }
  }

  kill(): void {
    this.#child.kill("SIGKILL");
  }

  #wake(): void {
    for (const wake of this.#waiters.splice(0)) wake();
  }
}
