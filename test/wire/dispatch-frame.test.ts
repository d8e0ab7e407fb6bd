import fc from "fast-check";
import { expect, test } from "vitest";
import { encode, encodeInGeneral } from "../../src/wire/codec.ts";
import { writeDispatch } from "../../src/wire/dispatch-frame.ts";
import { type Dispatch, type DispatchRow, LIMITS } from "../../src/wire/protocol.ts";

const PLAIN: Dispatch = {
  type: "dispatch",
  uniform: [
    { upTo: 8, graphs: ["FULL:8", "PIECEWISE:8"] },
    { upTo: 300, graphs: ["FULL:512"] },
    { upTo: 70_000, graphs: [] },
  ],
  mixed: [],
};

function rows(name: fc.Arbitrary<string>, lengthMax: number): fc.Arbitrary<DispatchRow[]> {
  const graphs = fc.array(name, { maxLength: 20 });
  return fc
    .uniqueArray(fc.integer({ min: 1, max: LIMITS.tokens }), { maxLength: lengthMax })
    .map((sizes) => sizes.sort((a, b) => a - b))
    .chain((sizes) =>
      fc.tuple(...sizes.map((upTo) => graphs.map((ids): DispatchRow => ({ upTo, graphs: ids })))),
    );
}

test("a plain table is written straight, in the bytes of the general way", () => {
  const name = fc.string({ unit: "grapheme-ascii", minLength: 1, maxLength: 31 });
  const tables = fc.record({
    type: fc.constant("dispatch" as const),
    uniform: rows(name, 40),
    mixed: rows(name, 40),
  });
  fc.assert(
    fc.property(tables, (table) => {
      const general = encodeInGeneral(table);
      expect(writeDispatch(table)).toEqual(general);
      expect(encode(table)).toEqual(general);
    }),
    { numRuns: 200 },
  );
});

test.for<[string, DispatchRow[]]>([
  ["a name with an accent", [{ upTo: 8, graphs: ["é"] }]],
  ["a long name", [{ upTo: 8, graphs: ["x".repeat(32)] }]],
  ["sizes that don't rise", [8, 4].map((upTo) => ({ upTo, graphs: ["FULL:8"] }))],
  [
    "more than there is room for",
    Array.from({ length: 2000 }, (_, n) => ({ upTo: n + 1, graphs: ["x".repeat(31)] })),
  ],
])("%s is written in general", ([, mixed]) => {
  const table: Dispatch = { ...PLAIN, mixed };
  expect(writeDispatch(PLAIN)).toBeDefined();
  expect(writeDispatch(table)).toBeUndefined();
  expect(encode(table)).toEqual(encodeInGeneral(table));
});

test.for<[string, unknown]>([
  ["a size of 0", [{ upTo: 0, graphs: [] }]],
  ["a size twice", [8, 8].map((upTo) => ({ upTo, graphs: [] }))],
  ["half a token", [{ upTo: 1.5, graphs: [] }]],
  ["a size beyond the limit", [{ upTo: LIMITS.tokens + 1, graphs: [] }]],
  ["a row that is none", [null]],
  ["rows that are none", "FULL:8"],
  ["no graphs", [{ upTo: 8 }]],
  ["an empty name", [{ upTo: 8, graphs: [""] }]],
  ["a name that is none", [{ upTo: 8, graphs: [8] }]],
  ["a control character", [{ upTo: 8, graphs: ["a\n"] }]],
  [
    "too many graphs",
    [{ upTo: 8, graphs: Array.from({ length: LIMITS.rowGraphs + 1 }, (_, n) => `${n}`) }],
  ],
  [
    "too many rows",
    Array.from({ length: LIMITS.tableRows + 1 }, (_, n) => ({ upTo: n + 1, graphs: [] })),
  ],
])("%s is refused with the general way's sentence", ([, mixed]) => {
  const table = { ...PLAIN, mixed } as Dispatch;
  let sentence = "";
  try {
    encodeInGeneral(table);
  } catch (error) {
    sentence = String(error);
  }
  expect(sentence).toMatch(/Expected/);
  expect(() => encode(table)).toThrow(sentence.replace(/^[^:]*: /, ""));
});
