/** How a trace that can't be used is told: file, line, what was expected and what came. */

import { LazygraphError } from "../base/errors.ts";

export function traceError(
  file: string,
  line: number,
  expected: string,
  got: string,
  cause?: unknown,
): LazygraphError {
  return new LazygraphError(
    "ERR_LAZYGRAPH_TRACE",
    `${file}, line ${line}: expected ${expected}, got ${got}.`,
    cause === undefined ? undefined : { cause },
  );
}

/** What stood in the file, bounded: a line may have megabytes. */
export function quoted(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 77)}...` : text);
}
