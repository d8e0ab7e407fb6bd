import { setTimeout as sleep } from "node:timers/promises";
import { errorLine } from "./errors.ts";

const CLOSE_MS_MAX = 5_000;

/** Closes a controller, for at most five seconds and without throwing: the exit code is decided. */
export async function closeWithin(controller: { close(): Promise<void> }): Promise<void> {
  const limit = new AbortController();
  const late = sleep(CLOSE_MS_MAX, undefined, { signal: limit.signal, ref: false }).then(
    () => process.stderr.write("lazygraph: The controller didn't close in time; leaving it.\n"),
    () => undefined,
  );
  try {
    await Promise.race([controller.close(), late]);
  } catch (error) {
    process.stderr.write(`${errorLine(error)}\n`);
  } finally {
    limit.abort();
  }
}
