/** What checks.py claims: from lines made up here, some of them bad. */

import { expect, test } from "vitest";
import { type Check, checkFindings } from "../../bench/lib/claims-checks.ts";

const TOLD = { source: "checks.json", command: "checks.py" };

function told(check: Check): Record<string, number> {
  return Object.fromEntries(checkFindings([check], TOLD).map(({ id, value }) => [id, value]));
}

test("an adapter that answers otherwise is what counts, and how many captures there were", () => {
  const check = {
    ...{ check: "lora-8b-4.lora-tokens", fine: false, sequencesEach: 18, capturedInTraffic: 136 },
    sameByAdapter: { 0: 18, 1: 9, 2: 18 },
  };
  expect(told(check)).toEqual({
    "v033.lora.8b-4.tokens-exact": 0.5,
    "v033.lora.8b-4.captures-between-steps": 136,
  });
});

test("graphs of a case without traffic are counted", () => {
  const check = { check: "lora-8b-4.lora-lazy", fine: false, unused: ["FULL:8"] };
  expect(told(check)).toEqual({ "v033.lora.8b-4.unused-captured": 1 });
});

test("of drafts: tokens, shapes, and acceptance beyond two runs of stock's", () => {
  const check: Check = {
    ...{ check: "spec-eagle-8b.spec-tokens", fine: false, sequences: 96 },
    ...{ differing: { during: 24, tokens: 0 }, mismatches: ["16 after 13"] },
    ...{ accepted: { stock: 0.9, ours: 0.7 }, acceptedBetween: [0.88, 0.92] },
  };
  const values = told(check);
  expect(values["v033.spec.eagle-8b.tokens-exact"]).toBe(0.75);
  expect(values["v033.spec.eagle-8b.shape-mismatches"]).toBe(1);
  expect(values["v033.spec.eagle-8b.acceptance-apart"]).toBeCloseTo(0.18, 9);
});

test("the slowest number of requests is a step's ratio", () => {
  const byRequests = { 1: { ratio: 1.002 }, 64: { ratio: 1.03 } };
  const check = { check: "spec-ngram-8b.spec-steps", fine: false, byRequests };
  expect(told(check)).toEqual({ "v033.spec.ngram-8b.step-ratio": 1.03 });
});

test("of sleep: each sort of cycles beside stock's of its level", () => {
  const sort = (asleepBytes: number, seconds: number, grownBytes = 0) => {
    const firstTokenSeconds = [seconds, seconds, 9];
    return { cycles: 3, grownBytes, asleepBytes, firstTokenSeconds };
  };
  const check: Check = {
    ...{ check: "sleep-8b.sleep", fine: true, sequences: 96, exact: true, controlSame: 0 },
    sorts: {
      ...{ "stock.1": sort(3 * 2 ** 20, 0.5), "kept.1": sort(2 ** 20, 0.75, 2 ** 21) },
      ...{ "stock.2": sort(3 * 2 ** 20, 1), "dropped.2": sort(4 * 2 ** 20, 0.5) },
      "offload.2": sort(6 * 2 ** 20, 0.5, 2 ** 24),
    },
  };
  expect(told(check)).toEqual({
    "v033.sleep.8b.tokens-exact": 1,
    "v033.sleep.8b.control-found": 1,
    "v033.sleep.8b.growth": 2,
    "v033.sleep.8b.level-1.kept.first-token-later": 0.25,
    "v033.sleep.8b.level-1.kept.asleep-more": -2,
    "v033.sleep.8b.level-2.dropped.first-token-later": -0.5,
    "v033.sleep.8b.level-2.dropped.asleep-more": 1,
    "v033.sleep.8b.level-2.dropped.asleep-more-than-offloaded": -2,
  });
  const found = { ...check, exact: false, controlSame: 96 };
  expect(told(found)).toMatchObject({
    ...{ "v033.sleep.8b.tokens-exact": 0, "v033.sleep.8b.control-found": 0 },
  });
});

test("of weights read again: exact with every loader, and a control", () => {
  const check: Check = { check: "sleep-8b.reload", fine: true, sequences: 96, exact: true };
  const id = "v033.sleep.8b.reload";
  expect(told({ ...check, controlSame: 2 })).toEqual({
    ...{ [`${id}.tokens-exact`]: 1, [`${id}.control-found`]: 1 },
  });
  expect(told({ ...check, exact: false, controlSame: 96 })).toEqual({
    ...{ [`${id}.tokens-exact`]: 0, [`${id}.control-found`]: 0 },
  });
});

test("of offloading: both controls count, by what each of them changed", () => {
  const check: Check = {
    ...{ check: "offload-8b.offload-tokens", fine: true, sequencesEach: 160, amongCopies: 55 },
    ...{ differing: { cold: 0, during: 40 }, controlDiffers: { during: 30 } },
    ...{ writesDiffers: { during: 0 } },
  };
  expect(told(check)).toEqual({
    "v033.offload.8b.tokens-exact": 0.75,
    "v033.offload.8b.captures-among-copies": 55,
    "v033.offload.8b.controls-found": 1,
  });
});

test("of captures aside: the control counts where there was one", () => {
  const check: Check = { check: "hybrid-4l.aside", fine: true, sequences: 96, same: 96 };
  expect(told(check)).toEqual({ "v033.hybrid-4l.tokens-exact": 1 });
  expect(told({ ...check, controlSame: 96 })).toMatchObject({
    "v033.hybrid-4l.traffic-control-found": 0,
  });
  const touched = { "PIECEWISE:8": 2, "PIECEWISE:4": 1 };
  expect(told({ ...check, controlSame: 3, states: 900, touched })).toEqual({
    ...{ "v033.hybrid-4l.tokens-exact": 1, "v033.hybrid-4l.traffic-control-found": 1 },
    "v033.hybrid-4l.states-touched": 3,
  });
});

test("a line without what its kind must have claims no number that could hold", () => {
  for (const kind of [
    "verify",
    "tokens",
    "lora-tokens",
    "lora-lazy",
    "spec-tokens",
    "spec-steps",
    "sleep",
    "offload-tokens",
    "aside",
  ]) {
    const found = checkFindings([{ check: `spec-x.${kind}`, fine: true }], TOLD);
    const holding = found.filter(({ sense, value, limit }) =>
      sense === "atMost" ? value <= limit : value >= limit,
    );
    expect(holding, kind).toEqual([]);
  }
});

test("a kind that nobody reads is refused, not claimed as another", () => {
  const checks = [{ check: "dense-8b.guess", fine: true }];
  expect(() => checkFindings(checks, TOLD)).toThrow("got dense-8b.guess");
});
