/** A wait with a limit that can be called off. */

import { setMaxListeners } from "node:events";

/**
 * What `work` makes, whose signal aborts with `signal` and after `ms` milliseconds.
 *
 * Not by `AbortSignal.any([signal, AbortSignal.timeout(ms)])`: on Node 20 nothing keeps the second
 * one alive, and once collected it never fires.
 */
export async function within<T>(
  ms: number,
  signal: AbortSignal,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const both = new AbortController();
  const follow = (): void => both.abort(signal.reason);
  const late = (): void => both.abort(new Error(`no answer within ${ms / 1000} s`));
  const timer = setTimeout(late, ms);
  // Every request under way listens, so that their number is no leak.
  setMaxListeners(0, signal);
  signal.addEventListener("abort", follow, { once: true });
  if (signal.aborted) follow();
  try {
    return await work(both.signal);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", follow);
  }
}
