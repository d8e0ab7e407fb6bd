import { expect, test } from "vitest";
import { CapturePace } from "../../src/controller/pace.ts";
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
  expect(all.atOnce).toBe(128);
  for (let slot = 0; slot < 8; slot += 1) {
    clock.advance(SLOT_SECONDS);
    await Promise.resolve();
    expect(all.done).toBe(Math.min(1000, 128 * (slot + 2)));
  }
  expect(clock.pending).toBe(0);
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
  expect(begun[0]).toBe(85);
  expect(begun.at(-1)).toBe(8);
  busy = 0.1;
  await slots(20);
  expect(begun.at(-1)).toBe(128);
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
