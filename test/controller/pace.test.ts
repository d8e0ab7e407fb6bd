import fc from "fast-check";
import { expect, test } from "vitest";
import { CapturePace, nextInRow } from "../../src/controller/pace.ts";
import { FakeClock } from "../helpers/fake-clock.ts";

const SLOT_SECONDS = 0.05;

/** Asks for a turn `count` times: how many had it at once, and how many have it by now. */
function asked(pace: CapturePace, count: number): { atOnce: number; readonly done: number } {
  let done = 0;
  let atOnce = 0;
  for (let n = 0; n < count; n += 1) {
    const turn = pace.turn();
    if (turn === undefined) {
      atOnce += 1;
      done += 1;
    } else {
      void turn.then(() => {
        done += 1;
      });
    }
  }
  return {
    atOnce,
    get done() {
      return done;
    },
  };
}

test("captures begin at once while there are few", () => {
  const clock = new FakeClock();
  const pace = new CapturePace({ clock, busyShare: () => 0.2 });
  for (let slot = 0; slot < 100; slot += 1) {
    expect(asked(pace, 20).atOnce).toBe(20);
    clock.advance(SLOT_SECONDS);
  }
  expect(clock.pending).toBe(0);
});

test("all engines at once don't begin in one burst, and each has its turn", async () => {
  const clock = new FakeClock();
  const pace = new CapturePace({ clock, busyShare: () => 0.2 });
  const all = asked(pace, 1000);
  expect(all.atOnce).toBe(21);
  const begun: number[] = [];
  while (clock.pending > 0) {
    const before = all.done;
    clock.advance(0.004);
    await Promise.resolve();
    begun.push(all.done - before);
  }
  expect(all.done).toBe(1000);
  // The first slot has had what the row may be ahead by. From then on 128 in a slot are 10.24 in
  // each 4 ms, as evenly as whole ones can be.
  const slotLooks = 12;
  expect(21 + begun.slice(0, slotLooks - 1).reduce((sum, count) => sum + count, 0)).toBe(128);
  expect(Math.max(...begun.slice(0, slotLooks))).toBeLessThanOrEqual(21);
  expect(new Set(begun.slice(slotLooks, -1))).toEqual(new Set([10, 11]));
});

test("what a stall has kept waiting is spread again, not made up for", async () => {
  const clock = new FakeClock();
  const pace = new CapturePace({ clock, busyShare: () => 0.2 });
  const all = asked(pace, 1000);
  clock.stall(0.3);
  await Promise.resolve();
  expect(all.done).toBe(21 + 21);
  clock.advance(0.004);
  await Promise.resolve();
  expect(all.done - 42).toBeLessThanOrEqual(11);
});

const SLOT_CAPTURES_MAX = 128;
const ALLOWED = fc.integer({ min: 8, max: SLOT_CAPTURES_MAX });

test("no time has more than its share of an even row, whoever asks when", () => {
  const asks = fc.array(fc.double({ min: 0, max: 0.02, noNaN: true }), { maxLength: 400 });
  fc.assert(
    fc.property(ALLOWED, asks, (allowed, pauses) => {
      const begun: number[] = [];
      let [now, row] = [0, 0];
      for (const pause of pauses) {
        now += pause;
        const next = nextInRow(row, now, allowed);
        if (next === undefined) continue;
        expect(next).toBeGreaterThan(now);
        row = next;
        begun.push(now);
      }
      // What it may be ahead by is 8 ms of the row, and one is in the row itself.
      begun.forEach((from, first) => {
        begun.slice(first).forEach((until, after) => {
          const share = ((until - from + 0.008) * allowed) / SLOT_SECONDS;
          expect(after + 1).toBeLessThanOrEqual(share + 1 + 1e-6);
        });
      });
    }),
  );
});

test("an engine alone is never kept waiting, however few are allowed", () => {
  const pauses = fc.array(fc.double({ min: SLOT_SECONDS / 8, max: 2, noNaN: true }));
  fc.assert(
    fc.property(ALLOWED, pauses, (allowed, each) => {
      let [now, row] = [0, 0];
      for (const pause of each) {
        const next = nextInRow(row, now, allowed);
        expect(next).toBeDefined();
        row = next ?? Number.NaN;
        now += pause;
      }
    }),
  );
});

test("a row keeps its pace where it is looked at now and then", () => {
  fc.assert(
    fc.property(ALLOWED, (allowed) => {
      let [row, begun] = [0, 0];
      for (let now = 0; now < 20 * SLOT_SECONDS; now += 0.004) {
        let next = nextInRow(row, now, allowed);
        for (; next !== undefined; next = nextInRow(row, now, allowed)) {
          row = next;
          begun += 1;
        }
      }
      expect(begun).toBeGreaterThanOrEqual(20 * allowed);
    }),
  );
});

test("a busy event loop has fewer of them, down to a few, and an idle one more again", async () => {
  const clock = new FakeClock();
  let busy = 0.9;
  const pace = new CapturePace({ clock, busyShare: () => busy });
  const all = asked(pace, 5000);
  const begun: number[] = [];
  const slots = async (count: number): Promise<void> => {
    for (let slot = 0; slot < count; slot += 1) {
      const before = all.done;
      clock.advance(SLOT_SECONDS);
      await Promise.resolve();
      begun.push(all.done - before);
    }
  };
  await slots(20);
  expect(begun[1]).toBeLessThanOrEqual(86);
  expect(begun.at(-1)).toBe(8);
  busy = 0.1;
  await slots(20);
  // Looks come every 4 ms: 12 or 13 in a slot's time.
  expect(begun.at(-1)).toBeGreaterThanOrEqual(122);
  expect(begun.at(-1)).toBeLessThanOrEqual(134);
});

test("nobody waits for a controller that is closed", async () => {
  const clock = new FakeClock();
  const pace = new CapturePace({ clock, busyShare: () => 1 });
  const all = asked(pace, 500);
  pace.close();
  await Promise.resolve();
  expect(all.done).toBe(500);
  expect(clock.pending).toBe(0);
});
