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

test("a line without what its kind must have claims no number that could hold", () => {
  for (const kind of [
    "verify",
    "tokens",
    "lora-tokens",
    "lora-lazy",
    "spec-tokens",
    "spec-steps",
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
