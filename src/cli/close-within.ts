import { setTimeout as sleep } from "node:timers/promises";
import { codeOf, type ErrorCode } from "../base/errors.ts";
import { errorSentence, note } from "./errors.ts";

const CLOSE_MS_MAX = 5_000;

/** Closes a controller, for at most five seconds and without throwing: the exit code is decided. */
export async function closeWithin(
  controller: { close(): Promise<void> },
  tell: typeof note = note,
): Promise<void> {
  const limit = new AbortController();
  const late = sleep(CLOSE_MS_MAX, undefined, { signal: limit.signal, ref: false }).then(
    () => tell("The controller didn't close in time; leaving it."),
    () => undefined,
  );
  try {
    await Promise.race([controller.close(), late]);
  } catch (error) {
    tell(errorSentence(error), codeOf(error) as ErrorCode | undefined);
  } finally {
    limit.abort();
  }
}
