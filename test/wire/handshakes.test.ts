import { expect, test } from "vitest";
import { Handshakes } from "../../src/wire/handshakes.ts";

test("one sentence a minute and kind, with their number", () => {
  const handshakes = new Handshakes(true);
  expect(handshakes.failed("key", 0)).toMatch(/^Expected engines that have .* as server\.key\.$/);
  for (let at = 1; at < 60; at += 1) expect(handshakes.failed("key", at)).toBeUndefined();
  expect(handshakes.failed("refused", 59.5)).toMatch(
    / \(60 connections since the last such line\)\.$/,
  );
  expect(handshakes.failed("key", 60)).toMatch(/as server\.key\.$/);
});

test("a probe that only connects is nothing; two at once may be an engine, once", () => {
  const handshakes = new Handshakes(false);
  for (let at = 0; at < 100; at += 10) expect(handshakes.failed("hang-up", at)).toBeUndefined();
  expect(handshakes.failed("hang-up", 90.1)).toContain("(here are none), or a probe.");
  for (let at = 100; at < 10_000; at += 1) {
    expect(handshakes.failed("hang-up", at)).toBeUndefined();
  }
});
