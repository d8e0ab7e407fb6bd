import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { coarseClock, systemClock } from "../../src/base/clock.ts";
import { FakeClock } from "../helpers/fake-clock.ts";

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

describe("a coarse clock", () => {
  const TICK_SECONDS = 0.05;

  test("has one timer for all of a tick, each call within half a tick of its time", () => {
    const clock = new FakeClock();
    const coarse = coarseClock(clock, TICK_SECONDS);
    const late: number[] = [];
    for (let n = 0; n < 1000; n++) {
      const seconds = 1 + n / 1000;
      coarse.after(seconds, () => late.push(clock.now() - seconds));
    }
    expect(clock.pending).toBe(21);
    clock.advance(3);
    expect(late).toHaveLength(1000);
    expect(Math.max(...late.map(Math.abs))).toBeLessThanOrEqual(TICK_SECONDS / 2 + 1e-9);
    expect(clock.pending).toBe(0);
  });

  test("who asks again each time keeps to the period, however late its calls are", () => {
    const clock = new FakeClock();
    const coarse = coarseClock(clock, TICK_SECONDS);
    let calls = 0;
    const again = (): void => {
      calls += 1;
      clock.stall(0.001);
      coarse.after(1, again);
    };
    coarse.after(1, again);
    clock.advance(60);
    expect(calls).toBe(60);
  });

  test("a cancelled call doesn't come, and the last one of a tick ends its timer", () => {
    const clock = new FakeClock();
    const coarse = coarseClock(clock, TICK_SECONDS);
    const calls: string[] = [];
    const one = coarse.after(1, () => calls.push("one"));
    const other = coarse.after(1, () => {
      calls.push("other");
      last();
      // It has gone, and what follows is none of its concern.
      coarse.after(0, () => calls.push("next"));
      other();
    });
    const last = coarse.after(1, () => calls.push("last"));
    one();
    expect(clock.pending).toBe(1);
    clock.advance(2);
    expect(calls).toEqual(["other", "next"]);
    coarse.after(1, () => calls.push("never"))();
    expect(clock.pending).toBe(0);
  });
});
