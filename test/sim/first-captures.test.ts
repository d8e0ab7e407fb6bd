import { expect, test } from "vitest";
import { FirstCaptures } from "../../src/sim/model/first-captures.ts";
import { plan } from "../helpers/fake-engine.ts";

const planned = plan(1, 2, 4, 8, 16, 32, 64, 128, 256, 512);
const graph = (id: string) => planned.find((candidate) => candidate.id === id) as never;
const TOPS = ["PIECEWISE:512", "FULL:512"].map(graph);
const MORE = ["FULL:64", "FULL:8", "FULL:2", "FULL:32"].map(graph);

/** Ids in the order of their captures; a kind's first one takes `cold` times as long. */
function captured(first: FirstCaptures, seconds: number, cold = 10): string[] {
  const ids: string[] = [];
  const warm = new Set<string>();
  for (let next = first.next(); next !== undefined; next = first.next()) {
    const warmUp = !warm.has(next.kind);
    warm.add(next.kind);
    first.timed(next.kind, warmUp ? cold * seconds : seconds, warmUp);
    ids.push(next.id);
  }
  return ids;
}

test("what was told comes whatever it takes, more while it fits the seconds given", () => {
  const none = new FirstCaptures(planned, TOPS, MORE, 0);
  expect(captured(none, 0.02)).toEqual(["PIECEWISE:512", "FULL:512"]);
  // Tops 0.4 s; a graph is judged by the dearest of its kind so far, cold if no other was.
  const some = new FirstCaptures(planned, TOPS, MORE, 0.61);
  expect(captured(some, 0.02)).toHaveLength(2 + MORE.length);
  expect(captured(new FirstCaptures(planned, TOPS, MORE, 0.59), 0.02)).toHaveLength(2);
});

test("without seconds given, a share of what stock would take decides", () => {
  // 20 graphs: stock takes less than 20 times a top, so that a thirtieth is less than the tops.
  expect(captured(new FirstCaptures(planned, TOPS, MORE, undefined), 0.02)).toHaveLength(2);
  const many = plan(...Array.from({ length: 128 }, (_, index) => index + 1), 512);
  const wide = new FirstCaptures(many, TOPS, MORE, undefined);
  // At least 258 captures of 20 ms: a thirtieth holds more than the tops' 120 ms.
  expect(captured(wide, 0.02, 3).slice(0, 4)).toEqual([
    "PIECEWISE:512",
    "FULL:512",
    "FULL:64",
    "FULL:8",
  ]);
});

test("no graph comes twice", () => {
  const both = new FirstCaptures(planned, TOPS, [...TOPS, ...MORE], 100);
  const ids = captured(both, 0.02);
  expect(new Set(ids).size).toBe(ids.length);
  expect(ids).toHaveLength(TOPS.length + MORE.length);
});
