/**
 * The command under `lazygraph run`: started with the terminal as its own, signals passed on, and
 * its end turned into the exit code a shell would report.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { isatty } from "node:tty";
import { LazygraphError } from "../base/errors.ts";
import { EXIT, note, signalExit } from "./errors.ts";
import { requireExecutable, startError } from "./start-error.ts";

/** Signals passed on, and whether they ask the command to end. */
const FORWARDED = {
  SIGINT: true,
  SIGTERM: true,
  SIGQUIT: true,
  SIGHUP: true,
  // A listener for SIGUSR1 also keeps Node from opening its debugger.
  SIGUSR1: false,
  SIGUSR2: false,
} as const;

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

export interface ChildOptions {
  readonly environment: NodeJS.ProcessEnv;
  /** Both ignore SIGHUP, as a command under `nohup` does. */
  readonly ignoreHangup: boolean;
}

/** Resolves when the command runs; rejects with one sentence and a code when it can't start. */
export async function startChild(
  command: readonly string[],
  { environment, ignoreHangup }: ChildOptions,
): Promise<Child> {
  const [file = ""] = command;
  // The shell would report a missing command in its own words.
  if (ignoreHangup) await requireExecutable(file, environment);
  const [program = "", ...args] = ignoreHangup ? withoutHangup(command) : command;
  // Before the command runs: a signal just after it must find the listeners in place.
  const forwarding = forwardSignals(ignoreHangup);
  let child: ChildProcess;
  try {
    child = spawn(program, args, { stdio: "inherit", env: environment });
  } catch (error) {
    forwarding.stop();
    // Some reasons are thrown, others are told by an event.
    throw await startError(file, environment, error as NodeJS.ErrnoException);
  }
  const ended = supervise(child, forwarding);
  const failure = await new Promise<NodeJS.ErrnoException | undefined>((resolve) => {
    child.once("spawn", () => resolve(undefined));
    child.once("error", resolve);
  });
  if (failure !== undefined) throw await startError(file, environment, failure);
  return { pid: child.pid ?? 0, ended };
}

/** Node starts children with default dispositions; what a shell ignores stays ignored by exec. */
function withoutHangup(command: readonly string[]): string[] {
  return ["/bin/sh", "-c", `trap "" HUP; exec "$@"`, "sh", ...command];
}

/** The exit code of a command that couldn't be started, by the shell's convention. */
export function startExitCode(error: unknown): number {
  const missing =
    error instanceof LazygraphError && error.code === "ERR_LAZYGRAPH_COMMAND_NOT_FOUND";
  return missing ? EXIT.notFound : EXIT.notExecutable;
}

interface Forwarding {
  to(child: ChildProcess): void;
  /** Whether a signal asked the command to end. */
  asked(): boolean;
  stop(): void;
}

/** A listener only ever runs after the synchronous `spawn`, so that nothing is lost before `to`. */
function forwardSignals(ignoreHangup: boolean): Forwarding {
  let asked = false;
  let target: ChildProcess | undefined;
  const handlers = Object.entries(FORWARDED).map(([name, asks]) => {
    const signal = name as keyof typeof FORWARDED;
    const handler = (): void => {
      if (signal === "SIGHUP" && ignoreHangup) return;
      // The terminal sends Ctrl-C to the whole foreground group, the child included. Passing the
      // first one on as well would look like an impatient user: vLLM then skips its clean-up.
      const fromTerminal = signal === "SIGINT" && isatty(0) && !asked;
      asked ||= asks;
      if (!fromTerminal) target?.kill(signal);
    };
    process.on(signal, handler);
    return { signal, handler };
  });
  return {
    to(child) {
      target = child;
    },
    asked: () => asked,
    stop() {
      for (const { signal, handler } of handlers) process.off(signal, handler);
    },
  };
}

function supervise(child: ChildProcess, forwarding: Forwarding): Promise<ChildEnd> {
  forwarding.to(child);
  return new Promise((resolve) => {
    const end = (code: number | null, signal: NodeJS.Signals | null): void => {
      forwarding.stop();
      const exitCode = signal === null ? (code ?? EXIT.failure) : signalExit(signal);
      resolve({ exitCode, signal: signal ?? undefined, asked: forwarding.asked() });
    };
    child.once("exit", end);
    // Of a signal that may not be sent, such as to another user's command, one comes each time.
    child.on("error", ({ message }) => {
      if (child.pid === undefined) end(EXIT.failure, null);
      else note(`Expected to pass a signal on to the command, got ${message}: send it there.`);
    });
  });
}
