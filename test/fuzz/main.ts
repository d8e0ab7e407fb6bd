/**
 * Fuzzes the decoders of both sides:
 *
 *   npm run fuzz -- [--frames N] [--seed S] [--keep] [--output FILE]
 *
 * N frames for each decoder: what engines send and what controllers send on this side, and the
 * latter in the plugin as well. A frame that leads to an outcome which none before it had is mutated
 * further; `--keep` adds it to the corpus in test/golden. The exit code is 1 where a frame came to
 * anything but a message, an unknown type or a refusal; it is printed then.
 */

import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { keep } from "./corpus.ts";
import type { Side } from "./decoders.ts";
import { fuzz, toPython } from "./fuzz.ts";

const { values } = parseArgs({
  options: {
    frames: { type: "string", default: "20000" },
    seed: { type: "string", default: "1" },
    keep: { type: "boolean", default: false },
    output: { type: "string" },
  },
});
const [frames = 0, seed = 0] = [values.frames, values.seed].map(Number);
if (!Number.isInteger(frames) || frames < 1 || !Number.isInteger(seed) || seed < 0) {
  console.error(`Expected whole numbers, got --frames ${values.frames} --seed ${values.seed}.`);
  process.exit(2);
}

const sides: readonly Side[] = ["from-engine", "to-engine"];
const results = sides.map((side) => fuzz(side, frames, seed));
if (values.keep) {
  const found = results.map(({ side, found }) => [side, found]);
  keep(Object.fromEntries(found) as Record<Side, Uint8Array[]>);
}
const python = await toPython(frames, seed);
const rows = [
  ...results.map(({ found: _, ...result }) => ({
    decoder: `TypeScript, ${result.side}`,
    ...result,
  })),
  { decoder: "Python, to-engine", side: "to-engine", ...python },
];
for (const { decoder, faults, ...row } of rows) {
  const { frames, messages, unknown, refused, seconds } = row;
  console.log(
    `${decoder}: ${frames} frames in ${seconds.toFixed(1)} s: ${messages} messages, ${unknown} of ` +
      `unknown types, ${refused} refused, ${faults.length} faults`,
  );
  for (const { why, hex } of faults) console.log(`  ${why}: ${hex}`);
}
if (values.output !== undefined)
  writeFileSync(values.output, `${JSON.stringify({ seed, rows }, null, 1)}\n`);
process.exitCode = rows.some(({ faults }) => faults.length > 0) ? 1 : 0;
