import * as v from "valibot";
import { describe, expect, test } from "vitest";
import {
  amount,
  exactFields,
  fields,
  line,
  list,
  named,
  number,
  oneOf,
  placeOf,
  readBy,
  type Schema,
  text,
  whole,
} from "../../src/base/schema.ts";

const fail = (place: string, expected: string, got: string): Error =>
  new Error(`Expected ${place === "" ? "it" : place} to be ${expected}, got ${got}.`);

const document = fields({
  name: line(8),
  note: v.exactOptional(text(8)),
  kind: oneOf(["FULL", "PIECEWISE"]),
  rows: list(fields({ tokens: whole(1, 8), seconds: amount(10) }), 2, 1),
  shares: named(number(0, 1), 2),
  layers: whole(1),
});
const sound = {
  ...{
    name: "a",
    kind: "FULL",
    rows: [{ tokens: 1, seconds: 0 }],
    shares: { "a/b": 1 },
    layers: 1,
  },
};

describe("a document that breaks a rule is told its place, what was expected and what came", () => {
  test.for([
    ["nothing", undefined, "Expected it to be an object, got nothing."],
    ["a list", [], "Expected it to be an object, got []."],
    [
      "a missing field",
      { name: undefined },
      "name to be a text of 1 to 8 characters, got nothing.",
    ],
    ["a missing list", { rows: undefined }, "rows to be a list of 1 to 2 entries, got nothing."],
    ["a missing group", { shares: undefined }, "shares to be an object, got nothing."],
    [
      "a control character",
      { name: "a\nb" },
      'name to be a text of 1 to 8 characters, got "a\\nb".',
    ],
    ["a text too long", { note: "123456789" }, "note to be a text of 1 to 8 characters"],
    ["another word", { kind: "HALF" }, 'kind to be one of FULL, PIECEWISE, got "HALF".'],
    ["a list too long", { rows: [1, 2, 3] }, "rows[0] to be an object, got 1."],
    ["an empty list", { rows: [] }, "rows to be a list of 1 to 2 entries, got []."],
    ["a field of an entry", { rows: [{ tokens: 1 }] }, "rows[0].seconds to be a number from 0 up"],
    ["a list as an entry", { rows: [[1, 2]] }, "rows[0] to be an object, got [1,2]."],
    ["a fraction", { rows: [{ tokens: 1.5 }] }, "rows[0].tokens to be a whole number from 1 to 8"],
    [
      "one too large",
      { rows: [{ tokens: 1, seconds: 11 }] },
      "seconds to be a number from 0 to 10",
    ],
    ["a named one", { shares: { "a/b": 2 } }, 'shares["a/b"] to be a number from 0 to 1, got 2.'],
    ["too many names", { shares: { a: 0, b: 0, c: 0 } }, "shares to be an object of at most 2"],
    ["none from 1 up", { layers: 0 }, "layers to be a whole number from 1 up, got 0."],
  ] as const)("%s", ([, change, sentence]) => {
    const whole = change === undefined || Array.isArray(change);
    const value = whole ? change : { ...sound, ...change };
    expect(() => readBy(document, value, fail)).toThrow(sentence);
  });

  test("a sound one is taken, without the fields that nobody asked for", () => {
    expect(readBy(document, { ...sound, more: 1 }, fail)).toEqual(sound);
  });

  test("a field that isn't known is a slip where all of them are", () => {
    const told: unknown[] = [];
    const tell = (...fault: unknown[]): Error => {
      told.push(fault);
      return new Error("a slip");
    };
    const exact = fields({ inner: exactFields({ runs: whole(1), model: text(8) }) });
    for (const inner of [
      { runs: 1, model: "m", rus: 2 },
      { runs: 1, model: "m", extra: 2 },
      { runs: 1 },
    ]) {
      expect(() => readBy(exact, { inner }, tell)).toThrow("a slip");
    }
    expect(told).toEqual([
      ["inner", "runs", '"rus"', true],
      ["inner", "one of runs, model", '"extra"', true],
      ["inner.model", "a text of 1 to 8 characters", "nothing", false],
    ]);
  });

  test("the first fault ends the reading: a long list of them costs no more", () => {
    let asked = 0;
    const never: Schema<number> = v.custom<number>(() => {
      asked++;
      return false;
    }, "none");
    expect(() => readBy(list(never, 1e6), new Array(100_000).fill(0), fail)).toThrow(
      "[0] to be none",
    );
    expect(asked).toBe(1);
  });

  test("names that every object has are left out", () => {
    const value = JSON.parse('{"__proto__": 2, "constructor": 3}');
    expect(readBy(named(number(0, 9), 2), value, fail)).toEqual({});
  });
});

test("a place is written as in JavaScript", () => {
  expect(placeOf([])).toBe("");
  expect(placeOf(["rows", 3, "a/b", "tokens"])).toBe('rows[3]["a/b"].tokens');
  expect(placeOf([0, 1])).toBe("[0][1]");
});
