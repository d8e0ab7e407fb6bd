import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { onTestFinished } from "vitest";
import { MAIN } from "../../helpers/built.ts";

export interface Finished {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Running {
  readonly process: ChildProcess;
  readonly finished: Promise<Finished>;
  /** The first line of a stream that matches, or a rejection when the command ends before. */
  line(stream: "stdout" | "stderr", pattern: RegExp): Promise<string>;
}

/** Starts the command; killed with the test if it is still there. */
export function lazygraph(args: readonly string[], env: NodeJS.ProcessEnv = {}): Running {
  const inherited = { ...process.env };
  for (const name of Object.keys(inherited)) {
    if (name.startsWith("LAZYGRAPH_") || name === "VLLM_PLUGINS" || name === "_")
      delete inherited[name];
  }
  const child = spawn(process.execPath, [MAIN, ...args], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...inherited, ...env },
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  const output = { stdout: "", stderr: "" };
  const waiting = new Set<() => void>();
  for (const name of ["stdout", "stderr"] as const) {
    createInterface({ input: child[name] }).on("line", (text) => {
      output[name] += `${text}\n`;
      for (const wake of waiting) wake();
    });
  }
  const finished = once(child, "close").then(([code, signal]) => {
    for (const wake of waiting) wake();
    return { code, signal, ...output } as Finished;
  });
  return {
    process: child,
    finished,
    line(stream, pattern) {
      return new Promise((resolve, reject) => {
        const look = (): void => {
          const found = output[stream].split("\n").find((text) => pattern.test(text));
          if (found === undefined) return;
          waiting.delete(look);
          resolve(found);
        };
        waiting.add(look);
        look();
        finished.then(
          () => reject(new Error(`No line ${pattern} in:\n${output.stdout}\n${output.stderr}`)),
          reject,
        );
      });
    },
  };
}

/** Runs the command to its end. */
export function finish(args: readonly string[], env?: NodeJS.ProcessEnv): Promise<Finished> {
  return lazygraph(args, env).finished;
}
