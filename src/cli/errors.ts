/** How an error reaches the terminal: one sentence, its code, and the exit code that goes with it. */

import { constants } from "node:os";
import { codeOf, type ErrorCode, LazygraphError, messageOf, OptionError } from "../base/errors.ts";
import { nearMiss } from "../base/near-miss.ts";

export const EXIT = { ok: 0, failure: 1, usage: 2, notExecutable: 126, notFound: 127 } as const;

/** As a shell tells of what a signal ended. */
export function signalExit(name: NodeJS.Signals): number {
  return 128 + constants.signals[name];
}

/** `OptionError` with the three things a usage error must name; nothing came if undefined. */
export function usageError(option: string, expected: string, got: string | undefined): OptionError {
  const came = got === undefined ? "nothing" : quote(got);
  return new OptionError(option, `Expected ${option} to be ${expected}, got ${came}.`);
}

/** One of `values`, or the sentence that names them, and the one that was probably meant. */
export function choice<T extends string>(
  option: string,
  values: readonly T[],
  got: string | undefined,
): T {
  const found = values.find((value) => value === got);
  if (found !== undefined) return found;
  const meant = nearMiss(got ?? "", values);
  const error = usageError(option, orList(values), got);
  if (meant === undefined) throw error;
  throw new OptionError(option, `${error.message.replace(/\.$/, "")}: did you mean ${meant}?`);
}

/** `new, show or allow`. */
export function orList(values: readonly string[]): string {
  return `${values.slice(0, -1).join(", ")} or ${values.at(-1)}`;
}

/** What a user typed, in quotes and bounded, so that one bad argument can't flood a terminal. */
export function quote(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 77)}...` : text);
}

/** `lazygraph: <sentence> [CODE]`; errors that aren't ours keep their own code, if they have one. */
export function errorLine(error: unknown): string {
  const code = codeOf(error);
  return `lazygraph: ${errorSentence(error)}${code === undefined ? "" : ` [${code}]`}`;
}

/** What an error says, on one line, without its code. */
export function errorSentence(error: unknown): string {
  return (
    messageOf(error)
      .trim()
      .replaceAll(/\s*\n\s*/g, " ") || "Failed without a message."
  );
}

/** What the user gave can't be used: an option, a command, or a file that an option named. */
const USAGE_CODES: ReadonlySet<string> = new Set([
  "ERR_LAZYGRAPH_OPTION",
  "ERR_LAZYGRAPH_COMMAND_NOT_VLLM",
  "ERR_LAZYGRAPH_TRACE",
  "ERR_LAZYGRAPH_PROFILE",
  "ERR_LAZYGRAPH_PLAN",
]);

export function exitCodeOf(error: unknown): number {
  // By code and not by class: an option error may come from another copy of the package.
  return USAGE_CODES.has(codeOf(error) ?? "") ? EXIT.usage : EXIT.failure;
}

/** Prints the error on stderr and returns the exit code. A defect shows its stack, to be reported. */
export function reportError(error: unknown): number {
  const expected = error instanceof LazygraphError || codeOf(error) !== undefined;
  process.stderr.write(`${errorLine(error)}\n`);
  if (!expected && error instanceof Error && error.stack !== undefined) {
    process.stderr.write(`${error.stack}\n`);
  }
  return exitCodeOf(error);
}

/** A note that isn't fatal, in the same form. */
export function note(sentence: string, code?: ErrorCode): void {
  process.stderr.write(`lazygraph: ${sentence}${code === undefined ? "" : ` [${code}]`}\n`);
}
