import { messageOf } from "./errors.ts";

const warned = new WeakSet<object>();

/** Tells who asked to be told. What a listener throws or rejects with ends nothing, and is warned of once. */
export function callListener<A extends unknown[]>(
  name: string,
  listener: ((...args: A) => void) | undefined,
  ...args: A
): void {
  if (listener === undefined) return;
  // Called at once: only what comes of it is awaited.
  (async () => listener(...args))().catch((error: unknown) => {
    if (warned.has(listener)) return;
    warned.add(listener);
    process.emitWarning(`Expected ${name} not to throw, got: ${messageOf(error)}`, {
      type: "LazygraphWarning",
      code: "LAZYGRAPH_CALLBACK",
    });
  });
}
