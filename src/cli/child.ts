/**
 * The command under `lazygraph run`: started with the terminal as its own, signals passed on, and
 * its end turned into the exit code a shell would report.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { constants } from "node:os";
import { isatty } from "node:tty";
import { LazygraphError } from "../errors.ts";
import { EXIT, quote } from "./errors.ts";

const FORWARDED = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

export interface ChildEnd {
  /** What a shell would report: the exit code, or 128 + the signal's number. */
  readonly exitCode: number;
  readonly signal: NodeJS.Signals | undefined;
  /** Whether somebody asked it to end, through us or through the terminal. */
  readonly asked: boolean;
}

export interface Child {
  readonly pid: number;
  /** Settles once, when the command has ended. Never rejects. */
  readonly ended: Promise<ChildEnd>;
}

/** Resolves when the command runs; rejects with one sentence and a code when it can't start. */
export async function startChild(
  command: readonly string[],
  environment: NodeJS.ProcessEnv,
): Promise<Child> {
  const [file = "", ...args] = command;
  const child = spawn(file, args, { stdio: "inherit", env: environment });
  const ended = supervise(child);
  await new Promise<void>((resolve, reject) => {
    child.once("spawn", resolve);
    child.once("error", (error: NodeJS.ErrnoException) => reject(startError(file, error)));
  });
  return { pid: child.pid ?? 0, ended };
}

/** The exit code of a command that couldn't be started, by the shell's convention. */
export function startExitCode(error: unknown): number {
  const cause = error instanceof LazygraphError ? error.cause : undefined;
  const code = (cause as NodeJS.ErrnoException | undefined)?.code;
  return code === "ENOENT" ? EXIT.notFound : EXIT.notExecutable;
}

function startError(file: string, cause: NodeJS.ErrnoException): LazygraphError {
  const sentence =
    cause.code === "ENOENT"
      ? `Expected a command that exists after --, got ${quote(file)}, which is not on PATH: ` +
        "install it, activate its environment or give its full path."
      : `Expected a command that can be executed after --, got ${quote(file)}: ${cause.message}.`;
  return new LazygraphError("ERR_LAZYGRAPH_COMMAND_NOT_FOUND", sentence, { cause });
}

function supervise(child: ChildProcess): Promise<ChildEnd> {
  let asked = false;
  const handlers = FORWARDED.map((signal) => {
    const handler = (): void => {
      // The terminal sends Ctrl-C to the whole foreground group, the child included. Passing the
      // first one on as well would look like an impatient user: vLLM then skips its clean-up.
      const fromTerminal = signal === "SIGINT" && isatty(0) && !asked;
      asked = true;
      if (!fromTerminal) child.kill(signal);
    };
    process.on(signal, handler);
    return { signal, handler };
  });
  return new Promise((resolve) => {
    const end = (code: number | null, signal: NodeJS.Signals | null): void => {
      for (const { signal: name, handler } of handlers) process.off(name, handler);
      const exitCode = signal === null ? (code ?? EXIT.failure) : 128 + constants.signals[signal];
      resolve({ exitCode, signal: signal ?? undefined, asked });
    };
    child.once("exit", end);
    child.once("error", () => {
      if (child.pid === undefined) end(EXIT.failure, null);
    });
  });
}
