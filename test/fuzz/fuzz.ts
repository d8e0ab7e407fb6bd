/** Frames by a seed, through a decoder; what leads somewhere new is mutated further. */

import { createRandom } from "../../src/base/random.ts";
import { corpus } from "./corpus.ts";
import { outcomeOf, type Side } from "./decoders.ts";
import { mutate } from "./mutate.ts";
import { decodeInPython, type PythonResult } from "./python.ts";

const FAULTS_MAX = 20;
/** Frames that are mutated further, beside the corpus. */
const FOUND_MAX = 2000;
/** Larger ones would take nearly all of the time: what they lead to is mostly that they are large. */
const FOUND_BYTES_MAX = 65_536;

export interface FuzzResult extends Omit<PythonResult, "faults"> {
  readonly side: Side;
  readonly seconds: number;
  /** Different ways in which frames were refused, and types of messages. */
  readonly outcomes: number;
  readonly faults: readonly { readonly hex: string; readonly why: string }[];
  readonly found: readonly Uint8Array[];
}

export function fuzz(side: Side, frames: number, seed: number): FuzzResult {
  const random = createRandom(seed);
  const seeds = corpus(side);
  const seen = new Set<string>();
  const found: Uint8Array[] = [];
  const faults: { hex: string; why: string }[] = [];
  const counts = { message: 0, unknown: 0, refused: 0, fault: 0 };
  const began = performance.now();
  for (const frame of seeds) seen.add(JSON.stringify(outcomeOf(side, frame)));
  for (let count = 0; count < frames; count++) {
    const frame = mutate(random, seeds);
    const outcome = outcomeOf(side, frame);
    counts[outcome.type]++;
    if (outcome.type === "fault" && faults.length < FAULTS_MAX) {
      faults.push({ hex: Buffer.from(frame.subarray(0, 4096)).toString("hex"), why: outcome.why });
    }
    const key = JSON.stringify(outcome);
    if (seen.has(key) || found.length >= FOUND_MAX) continue;
    seen.add(key);
    if (frame.byteLength > FOUND_BYTES_MAX) continue;
    found.push(frame);
    seeds.push(frame);
  }
  const seconds = (performance.now() - began) / 1000;
  const { message: messages, unknown, refused } = counts;
  return { side, frames, messages, unknown, refused, faults, seconds, outcomes: seen.size, found };
}

/** The same sort of frames, for the plugin. */
export async function toPython(
  frames: number,
  seed: number,
): Promise<PythonResult & { readonly seconds: number }> {
  const began = performance.now();
  const result = await decodeInPython(framesOf(frames, seed));
  return { ...result, seconds: (performance.now() - began) / 1000 };
}

function* framesOf(frames: number, seed: number): Generator<Uint8Array> {
  const random = createRandom(seed);
  const seeds = corpus("to-engine");
  yield* seeds;
  for (let count = seeds.length; count < frames; count++) yield mutate(random, seeds);
}
