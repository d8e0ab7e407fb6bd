import { expect, test } from "vitest";
import { DecisionLog } from "../../src/engine/decision-log.ts";

const decision = (n: number) =>
  n % 2 === 0
    ? { atUnixMs: 1.8e12 + n, decision: "dispatch", reason: `table ${n}` }
    : { atUnixMs: 1.8e12 + n, decision: "capture", graph: `FULL:${n}`, reason: `graph ${n}` };

test.for([0, 1, 63, 64, 65, 200])("of %d decisions the last 64 are told, in order", (count) => {
  const log = new DecisionLog();
  const all = Array.from({ length: count }, (_, n) => decision(n));
  for (const one of all) log.add(one);
  const told = log.list();
  expect(told).toStrictEqual(all.slice(-64));
  log.add(decision(1000));
  expect(told).toStrictEqual(all.slice(-64));
});
