/** Where time comes from, so that a test or a simulation can bring its own. */
export interface Clock {
  /** Monotonic seconds from an arbitrary start. */
  now(): number;
  /** Calls `callback` once after `seconds`; the returned function cancels it. */
  after(seconds: number, callback: () => void): () => void;
}

/** Resolves with `work`, or after so many seconds without it: then it goes on by itself. */
export async function withinSeconds(
  clock: Clock,
  seconds: number,
  work: Promise<void>,
): Promise<void> {
  let cancel = (): void => {};
  const late = new Promise<void>((resolve) => {
    cancel = clock.after(seconds, resolve);
  });
  try {
    await Promise.race([work, late]);
  } finally {
    cancel();
  }
}

/** Node's longest timer, 24.8 days: a longer one would fire at once. */
const TIMER_MS_MAX = 2 ** 31 - 1;

export const systemClock: Clock = {
  now: () => performance.now() / 1000,
  after(seconds, callback) {
    let timer: NodeJS.Timeout;
    const arm = (leftMs: number): void => {
      const further = leftMs - TIMER_MS_MAX;
      timer =
        further > 0 ? setTimeout(() => arm(further), TIMER_MS_MAX) : setTimeout(callback, leftMs);
    };
    arm(seconds * 1000);
    return () => clearTimeout(timer);
  },
};
