import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { systemClock } from "../../src/base/clock.ts";

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

const DAY_SECONDS = 86_400;

// The longest timer of Node has 24.8 days; what is longer fires at once.
test.for([0.01, 1, 24 * DAY_SECONDS, 25 * DAY_SECONDS, 365 * DAY_SECONDS])(
  "%d seconds are waited for in full, and once",
  (seconds) => {
    const callback = vi.fn();
    systemClock.after(seconds, callback);
    vi.advanceTimersByTime(seconds * 1000 - 1);
    expect(callback).not.toHaveBeenCalled();
    vi.advanceTimersByTime(1);
    expect(callback).toHaveBeenCalledTimes(1);
    vi.advanceTimersByTime(seconds * 1000);
    expect(callback).toHaveBeenCalledTimes(1);
    expect(vi.getTimerCount()).toBe(0);
  },
);

test("a long wait can be cancelled late", () => {
  const callback = vi.fn();
  const cancel = systemClock.after(60 * DAY_SECONDS, callback);
  vi.advanceTimersByTime(50 * DAY_SECONDS * 1000);
  cancel();
  expect(vi.getTimerCount()).toBe(0);
  vi.advanceTimersByTime(20 * DAY_SECONDS * 1000);
  expect(callback).not.toHaveBeenCalled();
});
