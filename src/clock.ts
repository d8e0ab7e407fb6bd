/** Where time comes from, so that a test or a simulation can bring its own. */
export interface Clock {
  /** Monotonic seconds from an arbitrary start. */
  now(): number;
  /** Calls `callback` once after `seconds`; the returned function cancels it. */
  after(seconds: number, callback: () => void): () => void;
}

export const systemClock: Clock = {
  now: () => performance.now() / 1000,
  after(seconds, callback) {
    const timer = setTimeout(callback, seconds * 1000);
    return () => clearTimeout(timer);
  },
};
