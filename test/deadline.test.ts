import { setTimeout as sleep } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { describe, expect, test } from "vitest";
import { within } from "../src/base/deadline.ts";

/** As `fetch` does it: rejects with the signal's reason, and keeps nothing else of it. */
function never(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    const fail = (): void => reject(signal.reason as Error);
    if (signal.aborted) fail();
    else signal.addEventListener("abort", fail, { once: true });
  });
}

describe("a wait with a limit", () => {
  test("gives what the work made, and lets go of both signals", async () => {
    const outer = new AbortController();
    let seen: AbortSignal | undefined;
    const made = await within(20, outer.signal, (signal) => {
      seen = signal;
      return Promise.resolve(7);
    });
    expect(made).toBe(7);
    await sleep(40);
    outer.abort();
    expect(seen?.aborted).toBe(false);
  });

  test("ends when its time is over, garbage collected or not", { timeout: 20_000 }, async () => {
    setFlagsFromString("--expose-gc");
    const collect = runInNewContext("gc") as () => void;
    const waiting = within(300, new AbortController().signal, never);
    const rejected = expect(waiting).rejects.toThrow("no answer within 0.3 s");
    for (let round = 0; round < 5; round++) {
      await sleep(20);
      collect();
    }
    await rejected;
  });

  test("ends with the other signal's reason, before the work began too", async () => {
    const outer = new AbortController();
    const waiting = within(60_000, outer.signal, never);
    outer.abort(new Error("enough"));
    await expect(waiting).rejects.toThrow("enough");
    await expect(within(60_000, outer.signal, never)).rejects.toThrow("enough");
  });
});
