import { setTimeout as sleep } from "node:timers/promises";
import { codeOf, type ErrorCode } from "../base/errors.ts";
import { printable } from "../base/printable.ts";
import { onEvent } from "../engine/events.ts";
import { errorSentence, note } from "./errors.ts";

const CLOSE_MS_MAX = 5_000;

/**
 * Closes a controller, for at most five seconds and without throwing: the exit code is decided. What
 * goes wrong with learned plans is told: most are written now, when nobody follows engines any more.
 *
 * @param planTold that their folder can't be used was told before
 */
export async function closeWithin(
  controller: { close(): Promise<void> },
  tell: typeof note = note,
  planTold = false,
): Promise<void> {
  const limit = new AbortController();
  const late = sleep(CLOSE_MS_MAX, undefined, { signal: limit.signal, ref: false }).then(
    () => tell("The controller didn't close in time; leaving it."),
    () => undefined,
  );
  const unsubscribe = onEvent("lazygraph:problem", ({ code, message }) => {
    if (code === "ERR_LAZYGRAPH_PLAN" && !planTold) tell(printable(message, 1000), code);
  });
  try {
    await Promise.race([controller.close(), late]);
  } catch (error) {
    tell(errorSentence(error), codeOf(error) as ErrorCode | undefined);
  } finally {
    unsubscribe();
    limit.abort();
  }
}
