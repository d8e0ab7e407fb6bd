/** Whatever a public function is given: what it can't use is an OptionError, never a raw one. */

import { expect, test } from "vitest";
import { LazygraphError, OptionError } from "../../src/base/errors.ts";
import * as index from "../../src/index.ts";
import * as measure from "../../src/measure.ts";
import * as metrics from "../../src/metrics.ts";
import * as testing from "../../src/testing.ts";
import * as tracing from "../../src/tracing.ts";

type Callable = (...given: readonly unknown[]) => unknown;

/** Pure ones, of src/schedule: they run for every step of an engine, and trust what calls them. */
const UNCHECKED = [
  "capturedGraphs",
  "covers",
  "createCostPolicy",
  "createIdlePolicy",
  "dispatch",
  "dispatchTable",
  "idealGraph",
  "missingGraphs",
  "topGraphs",
];
const WRONG = [undefined, null, 5, "\0", {}, [], () => 1, Symbol("wrong")];
/** Without arguments, or with no options, each of these does its work. */
const STARTS = new Set([undefined, WRONG[4]]);

const functions = Object.entries({ ...index, ...measure, ...metrics, ...testing, ...tracing })
  .filter(
    (entry): entry is [string, Callable & (typeof entry)[1]] => typeof entry[1] === "function",
  )
  .filter(([name]) => !/Error$/.test(name));

async function outcome(callable: Callable, given: readonly unknown[]): Promise<unknown> {
  try {
    const isClass = /^class\s/.test(Function.prototype.toString.call(callable));
    const made = isClass ? Reflect.construct(callable, given) : callable(...given);
    const its = Object(await made) as AsyncIterator<unknown> & { close?: () => unknown };
    if (Symbol.asyncIterator in its && typeof its.next === "function") await its.next();
    if (typeof its.close === "function") await its.close();
    if (typeof made === "function") made();
    return undefined;
  } catch (error) {
    return error;
  }
}

test.each(functions.filter(([name]) => !UNCHECKED.includes(name)))(
  "%s names what it can't use",
  async (name, callable) => {
    for (const wrong of WRONG) {
      if (/^startSimulated/.test(name) && STARTS.has(wrong as undefined)) continue;
      for (const given of [[wrong], [wrong, wrong]]) {
        const error = await outcome(callable, given);
        const isOurs = error instanceof OptionError || error instanceof LazygraphError;
        if (error !== undefined && !isOurs) throw error;
      }
    }
  },
);

test("what isn't checked would be seen", async () => {
  for (const name of UNCHECKED) {
    const [, callable] = functions.find(([known]) => known === name) ?? [];
    const error = await outcome(callable as Callable, [null]);
    expect(error).toBeInstanceOf(TypeError);
    expect(error).not.toBeInstanceOf(OptionError);
  }
});

test("an address is a URL or its text; what is none is named without what is secret in it", () => {
  const { ServerAddress } = measure;
  for (const url of ["http://h:1/v1", new URL("http://h:1/v1")]) {
    expect(new ServerAddress(url)).toMatchObject({ origin: "http://h:1", prefix: "" });
  }
  for (const wrong of ["h:1", "ftp://h", new URL("ftp://h"), 5, undefined, {}]) {
    expect(() => new ServerAddress(wrong as string)).toThrow(
      expect.objectContaining({ name: "OptionError", option: "url" }),
    );
  }
  const secret = "user:hush@h/x?key=hush";
  expect(() => new ServerAddress(secret)).toThrow(OptionError);
  expect(() => new ServerAddress(secret)).not.toThrow(/hush/);
  expect(() => new ServerAddress("http://h", { apikey: "hush" } as object)).toThrow(/apiKey/);
});

test("an event that there is none of, and a token that is too short, are told without the token", () => {
  expect(() => index.onEvent("lazygraph:ready" as "lazygraph:problem", () => undefined)).toThrow(
    /name to be one of lazygraph:engine:join/,
  );
  for (const make of [
    () => index.createHttpServer({} as index.Controller),
    () => index.connectController("http://h", { token: "a-token-with-its-line-end\n" }),
  ]) {
    expect(make).toThrow(OptionError);
    expect(make).not.toThrow(/a-token-with/);
  }
});
