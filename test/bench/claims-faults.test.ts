import { expect, test } from "vitest";
import type { Finding } from "../../bench/lib/claims.ts";
import {
  type Chaos,
  chaosFindings,
  type FaultRow,
  faultFindings,
  fuzzFindings,
} from "../../bench/lib/claims-faults.ts";

const ORIGIN = { source: "x.json", command: "x" };

/** Ids of what doesn't hold. */
function missed(findings: readonly Finding[]): string[] {
  return findings
    .filter(({ value, limit, sense }) => (sense === "atMost" ? value > limit : value < limit))
    .map(({ id }) => id)
    .sort();
}

const seeds: FaultRow = {
  courses: 10_000,
  failed: 0,
  simulatedHours: 76,
  killPoints: { a: 1, b: 2 },
};
const hours: FaultRow = {
  courses: 48,
  failed: 0,
  simulatedHours: 24.1,
  killPoints: { a: 1, b: 0 },
};
const planted = { "a-defect": { courses: 200, failed: 3 } };

test("faults: seeds, hours, violations and kill points are each judged", () => {
  expect(missed(faultFindings({ seeds, hours, planted }, ORIGIN))).toEqual([]);
  const few = { ...seeds, courses: 9999, failed: 1, killPoints: { a: 1, b: 0 } };
  const short = { ...hours, simulatedHours: 23.9, failed: 1 };
  expect(missed(faultFindings({ seeds: few, hours: short, planted }, ORIGIN))).toEqual(
    ["hours", "hours.violated", "kill-points", "seeds", "seeds.violated"].map(
      (id) => `trust.faults.${id}`,
    ),
  );
  // Nothing hit must not read as all of nothing.
  const none = { ...seeds, killPoints: {} };
  expect(missed(faultFindings({ seeds: none, hours, planted }, ORIGIN))).toEqual([
    "trust.faults.kill-points",
  ]);
  const unseen = { "a-defect": { courses: 200, failed: 0 } };
  expect(missed(faultFindings({ seeds, hours, planted: unseen }, ORIGIN))).toEqual([
    "trust.faults.planted.a-defect",
  ]);
});

test("frames: each decoder has its own two claims", () => {
  const row = { decoder: "TypeScript, from-engine", frames: 1e6, faults: [] };
  const python = { decoder: "Python, to-engine", frames: 999_999, faults: ["one"] };
  expect(missed(fuzzFindings({ rows: [row, python] }, ORIGIN))).toEqual([
    "trust.fuzz.python-to-engine.faults",
    "trust.fuzz.python-to-engine.frames",
  ]);
});

function chaos(last: Partial<Chaos["rows"][number]> = {}, wrongCaptures = 0): Chaos {
  const row = { wholeSeconds: 0.5, ordersBroken: [], controllerRssMib: 100, steadyRssMib: 40 };
  const rows = Array.from({ length: 200 }, (_, place) =>
    place === 199 ? { ...row, ...last } : row,
  );
  return { heartbeatSeconds: 1, wrongCaptures, rows };
}

test.for([
  ["nothing", {}, 0, []],
  ["an order", { ordersBroken: ["engine-0"] }, 0, ["orders-broken"]],
  ["a session that came back late", { wholeSeconds: 2.1 }, 0, ["not-whole-within-two-heartbeats"]],
  [
    "a session that never came back",
    { wholeSeconds: null },
    0,
    ["not-whole-within-two-heartbeats"],
  ],
  ["a capture", {}, 1, ["wrong-captures"]],
  ["the engine's memory", { steadyRssMib: 400 }, 0, ["engine-memory"]],
  ["the controller's memory", { controllerRssMib: 1000 }, 0, ["controller-memory"]],
] as const)("chaos: %s is seen", ([, last, wrong, ids]) => {
  expect(missed(chaosFindings(chaos(last, wrong), ORIGIN))).toEqual(
    ids.map((id) => `trust.chaos.${id}`),
  );
  const few = { ...chaos(), rows: chaos().rows.slice(1) };
  expect(missed(chaosFindings(few, ORIGIN))).toEqual(["trust.chaos.faults"]);
});
