/**
 * The fault simulator:
 *
 *   npm run faults -- [--seeds N] [--from SEED] [--hours H] [--plant DEFECT] [--output FILE]
 *   npm run faults -- --seed SEED [--log]
 *
 * Runs N courses, one a seed, or as many as simulate H hours; prints how often each kill point was
 * hit, and of a seed that fails what does not hold and the command that runs it again. The exit
 * code is 1 then, and where 1,000 seeds or more left a kill point out.
 */

import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { type CourseOptions, type CourseResult, runCourse } from "./course.ts";
import { KILL_POINTS, nameOf } from "./kill-points.ts";
import { PLANTS } from "./network.ts";

const FAILURES_SHOWN_MAX = 10;
/** A long run's courses. */
const LONG_SECONDS = 1800;

const { values } = parseArgs({
  options: {
    seeds: { type: "string", default: "100" },
    from: { type: "string", default: "1" },
    hours: { type: "string" },
    seed: { type: "string" },
    plant: { type: "string" },
    log: { type: "boolean", default: false },
    output: { type: "string" },
  },
});

function wholeNumber(name: string, text: string): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= 0) return value;
  console.error(`Expected --${name} to be a whole number, got ${text}.`);
  process.exit(2);
}

const plant = PLANTS.find((one) => one === values.plant);
if (values.plant !== undefined && plant === undefined) {
  console.error(`Expected --plant to be one of ${PLANTS.join(", ")}, got ${values.plant}.`);
  process.exit(2);
}

const began = performance.now();
const failed: CourseResult[] = [];
const kills = new Map(KILL_POINTS.map((point) => [nameOf(point), 0]));
const sum = { courses: 0, seconds: 0, events: 0 };
const hours = values.hours === undefined ? undefined : wholeNumber("hours", values.hours);
const from = wholeNumber("seed", values.seed ?? values.from);
const seeds = values.seed === undefined ? wholeNumber("seeds", values.seeds) : 1;
const options: CourseOptions = {
  ...(hours === undefined ? {} : { seconds: LONG_SECONDS }),
  ...(plant === undefined ? {} : { plant }),
  ...(values.log ? { log: (line) => console.log(line) } : {}),
};
const goesOn = (): boolean =>
  hours === undefined ? sum.courses < seeds : sum.seconds < hours * 3600;
for (let seed = from; goesOn(); seed++) {
  const result = await runCourse(seed, options);
  sum.courses++;
  sum.seconds += result.simulatedSeconds;
  sum.events += result.events;
  for (const [name, count] of result.kills) kills.set(name, (kills.get(name) ?? 0) + count);
  if (result.violation === undefined) continue;
  failed.push(result);
  if (failed.length > FAILURES_SHOWN_MAX) continue;
  const more = `${hours === undefined ? "" : ` --hours 0`}${plant === undefined ? "" : ` --plant ${plant}`}`;
  console.log(`seed ${seed}: ${result.violation}`);
  console.log(`  again: npm run faults -- --seed ${seed} --log${more}`);
}
const took = (performance.now() - began) / 1000;
for (const [name, count] of kills) console.log(`${String(count).padStart(6)} ${name}`);
const missed = [...kills.values()].filter((count) => count === 0).length;
console.log(
  `${sum.courses} courses, ${failed.length} failed; ${(sum.seconds / 3600).toFixed(1)} simulated ` +
    `hours, ${sum.events} events, ${took.toFixed(1)} s; ${kills.size - missed} of ${kills.size} ` +
    "kill points hit",
);
if (values.output !== undefined) {
  const file = values.output;
  const known = existsSync(file) ? (JSON.parse(readFileSync(file, "utf8")) as object) : {};
  const name = plant ?? (hours === undefined ? "seeds" : "hours");
  const result = {
    from,
    courses: sum.courses,
    failed: failed.length,
    simulatedHours: sum.seconds / 3600,
    events: sum.events,
    seconds: took,
    killPoints: Object.fromEntries(kills),
  };
  writeFileSync(file, `${JSON.stringify({ ...known, [name]: result }, null, 1)}\n`);
}
// A row long enough goes through all kill points; a short one needn't.
const incomplete = missed > 0 && hours === undefined && seeds >= 1000;
process.exitCode = failed.length > 0 || incomplete ? 1 : 0;
