/** Callers that wait for an engine to be something. */

import { LazygraphError } from "../base/errors.ts";
import type { EngineRecord } from "../engine/record.ts";
import type { Phase } from "../wire/protocol.ts";

/** Callers that may wait at once. */
const WAITERS_MAX = 1024;

export interface WaitOptions {
  /** Only this engine. @default any */
  readonly engine?: string;
  /** Only once it is in this phase. @default any */
  readonly phase?: Phase;
  /** Only once nothing is left to capture. @default false */
  readonly settled?: boolean;
  /**
   * Ends the wait with its reason; `AbortSignal.timeout(ms)` bounds it, and what it ends so rejects
   * with `ERR_LAZYGRAPH_ENGINE_TIMEOUT`, its reason as the cause.
   */
  readonly signal?: AbortSignal;
}

/** Whether a connected engine is what a caller waits for. */
export function isWaitedFor(record: EngineRecord, options: WaitOptions): boolean {
  const { engine, phase, settled } = options;
  // One that served before this controller came says so at once, and a moment later what it holds.
  const isKnown = phase !== "serving" || record.state !== undefined;
  return (
    record.connected &&
    (engine === undefined || engine === record.hello.engine) &&
    (phase === undefined || (phase === record.phase && isKnown)) &&
    (settled !== true || record.state?.settled === true)
  );
}

/** What a wait ends with once its signal is aborted: a time-out has a code, which its reason lacks. */
export function endOfWait({ engine, phase, settled, signal }: WaitOptions): unknown {
  const reason: unknown = signal?.reason;
  if ((reason as Error | null)?.name !== "TimeoutError") return reason;
  const wanted = [
    engine === undefined ? "an engine" : `engine ${JSON.stringify(engine)}`,
    ...(phase === undefined ? [] : [`in phase ${phase}`]),
    ...(settled === true ? ["with nothing left to capture"] : []),
  ];
  return new LazygraphError(
    "ERR_LAZYGRAPH_ENGINE_TIMEOUT",
    `Expected ${wanted.join(" ")} before the wait timed out, got none: engines() lists what has ` +
      "joined, and where each stands.",
    { cause: reason },
  );
}

interface Waiter<Found> {
  readonly options: WaitOptions;
  readonly settle: (outcome: { snapshot: Found } | { error: unknown }) => void;
}

export class Waiters<Found> {
  readonly #waiters = new Set<Waiter<Found>>();

  /** @throws LazygraphError ERR_LAZYGRAPH_BUSY when too many wait already */
  wait(options: WaitOptions): Promise<Found> {
    if (this.#waiters.size >= WAITERS_MAX) {
      throw new LazygraphError(
        "ERR_LAZYGRAPH_BUSY",
        `Expected at most ${WAITERS_MAX} calls to wait for engines at once, got one more: share a ` +
          "wait among requests, or refuse some.",
      );
    }
    return new Promise((resolve, reject) => {
      const onAbort = (): void => waiter.settle({ error: endOfWait(options) });
      const waiter: Waiter<Found> = {
        options,
        settle: (outcome) => {
          this.#waiters.delete(waiter);
          options.signal?.removeEventListener("abort", onAbort);
          if ("error" in outcome) reject(outcome.error);
          else resolve(outcome.snapshot);
        },
      };
      this.#waiters.add(waiter);
      options.signal?.addEventListener("abort", onAbort, { once: true });
    });
  }

  /** Settles every wait that `find` has an engine for. */
  wake(find: (options: WaitOptions) => Found | undefined): void {
    for (const waiter of this.#waiters) {
      const snapshot = find(waiter.options);
      if (snapshot !== undefined) waiter.settle({ snapshot });
    }
  }

  fail(error: unknown): void {
    for (const waiter of this.#waiters) waiter.settle({ error });
  }
}
