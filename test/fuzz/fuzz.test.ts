/** A fixed number of frames for each decoder; `npm run fuzz -- --frames 1000000` runs more. */

import { describe, expect, test } from "vitest";
import { corpus, golden, kept } from "./corpus.ts";
import { outcomeOf, type Side } from "./decoders.ts";
import { fuzz, toPython } from "./fuzz.ts";

const FRAMES = 10_000;
const SIDES: readonly Side[] = ["from-engine", "to-engine"];

describe.for(SIDES)("frames %s", (side) => {
  test("come to a message, an unknown type or a refusal, each in many ways", () => {
    const { faults, messages, refused, outcomes } = fuzz(side, FRAMES, 1);
    expect(faults).toEqual([]);
    // The fuzzing is about structure: frames that are no msgpack at all would be all refused.
    expect(Math.min(messages, refused)).toBeGreaterThan(FRAMES / 20);
    expect(outcomes).toBeGreaterThan(100);
  });

  test("of the kept corpus lead to more outcomes than the golden ones alone", () => {
    const ways = (frames: readonly Uint8Array[]): number =>
      new Set(frames.map((frame) => JSON.stringify(outcomeOf(side, frame)))).size;
    expect(kept()[side].length).toBeGreaterThan(50);
    expect(ways(corpus(side))).toBeGreaterThan(2 * ways(golden(side)));
  });
});

test("the plugin's decoder takes the same frames as well", async () => {
  const { faults, frames, messages, refused } = await toPython(FRAMES, 1);
  expect(faults).toEqual([]);
  expect(frames).toBe(FRAMES);
  expect(Math.min(messages, refused)).toBeGreaterThan(FRAMES / 20);
});
