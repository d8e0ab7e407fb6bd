/** Where time comes from, so that a test or a simulation can bring its own. */
export interface Clock {
  /** Monotonic seconds from an arbitrary start. */
  now(): number;
  /** Calls `callback` once after `seconds`; the returned function cancels it. */
  after(seconds: number, callback: () => void): () => void;
}

/** Resolves as `work`, or to undefined after so many seconds: then it goes on by itself. */
export async function withinSeconds<T>(
  clock: Clock,
  seconds: number,
  work: Promise<T>,
): Promise<T | undefined> {
  let cancel = (): void => {};
  const late = new Promise<undefined>((resolve) => {
    cancel = clock.after(seconds, () => resolve(undefined));
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    cancel();
  }
}

/**
 * A clock whose timers come up to half a tick early or late: those of one tick by one timer of
 * `clock`. A thousand engines with a timer each wake a process a thousand times; with ticks, a few.
 * What is asked for again from a timer, a whole number of ticks later, keeps to its times.
 */
export function coarseClock(clock: Clock, tickSeconds: number): Clock {
  const ticks = new Map<number, Tick>();
  return {
    now: () => clock.now(),
    after(seconds, callback) {
      const number = Math.round((clock.now() + seconds) / tickSeconds);
      let tick = ticks.get(number);
      if (tick === undefined) {
        const opened: Tick = {
          calls: new Set(),
          cancel: clock.after(Math.max(0, number * tickSeconds - clock.now()), () => {
            // What is asked for meanwhile begins a tick of its own.
            ticks.delete(number);
            for (const call of opened.calls) call.callback();
          }),
        };
        tick = opened;
        ticks.set(number, tick);
      }
      const { calls, cancel } = tick;
      const call = { callback };
      calls.add(call);
      return () => {
        calls.delete(call);
        if (calls.size > 0 || ticks.get(number)?.calls !== calls) return;
        ticks.delete(number);
        cancel();
      };
    },
  };
}

interface Tick {
  readonly calls: Set<{ readonly callback: () => void }>;
  readonly cancel: () => void;
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
