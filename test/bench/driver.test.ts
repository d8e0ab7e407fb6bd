import { expect, test } from "vitest";
import { recordOf, runOpenLoop } from "../../src/bench/driver.ts";

test("requests go out when due, however slow the answers before them are", async () => {
  const sent: number[] = [];
  const answers: (() => void)[] = [];
  const start = performance.now();
  const count = 20;
  let done = false;
  const loop = runOpenLoop({
    dues: Array.from({ length: count }, (_, index) => ({ index, atMs: start + index * 2 })),
    signal: new AbortController().signal,
    send: ({ index, atMs }) => {
      expect(performance.now()).toBeGreaterThanOrEqual(atMs);
      sent.push(index);
      return new Promise((resolve) => {
        answers.push(resolve);
        // Not one is answered before the last one is out: a closed loop would wait for ever.
        if (sent.length === count) for (const answer of answers) answer();
      });
    },
  }).then(() => {
    done = true;
  });
  await loop;
  expect(done).toBe(true);
  expect(sent).toEqual(Array.from({ length: count }, (_, index) => index));
});

test("an abort sends no more requests, and waits for those under way", async () => {
  const controller = new AbortController();
  const ended: number[] = [];
  const start = performance.now();
  await runOpenLoop({
    dues: [
      { index: 0, atMs: start },
      { index: 1, atMs: start + 3_600_000 },
    ],
    signal: controller.signal,
    async send({ index }) {
      await new Promise((resolve) => setImmediate(resolve));
      ended.push(index);
      controller.abort();
    },
  });
  expect(ended).toEqual([0]);
});

test("a record counts seconds from the origin and microseconds between tokens", () => {
  const sent = { index: 3, warmUp: false, dueAtMs: 1500, promptTokens: 10, outputTokens: 3 };
  const outcome = {
    sentAtMs: 1501,
    tokensAtMs: [1520, 1525.5, 1530],
    promptTokens: 11,
    outputTokens: 3,
    resent: false,
    failure: undefined,
  };
  expect(recordOf(sent, outcome, 1000)).toEqual({
    index: 3,
    warmUp: false,
    dueSeconds: 0.5,
    sentSeconds: 0.501,
    firstSeconds: 0.52,
    lastSeconds: 0.53,
    itlMicros: [5500, 4500],
    promptTokensWanted: 10,
    outputTokensWanted: 3,
    promptTokens: 11,
    outputTokens: 3,
  });
});
