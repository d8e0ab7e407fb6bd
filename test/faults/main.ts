/**
 * The fault simulator:
 *
 *   npm run faults -- [--seeds N] [--from SEED] [--hours H] [--jobs J] [--plant DEFECT]
 *                     [--output FILE]
 *   npm run faults -- --seed SEED [--hours 0] [--log]
 *
 * Runs N courses, one a seed, or as many as simulate H hours, in J processes (one a core); prints how
 * often each kill point was hit, and of a seed that fails what does not hold and the command that
 * runs it again. The exit code is 1 then, and where 1,000 seeds or more left a kill point out.
 * `--output` adds the result to a file of results.
 */

import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import { runInJobs } from "./jobs.ts";
import { PLANTS } from "./network.ts";
import { type RowOptions, runRow } from "./row.ts";

const FAILURES_SHOWN_MAX = 10;
/** From here on a row goes through all kill points; a shorter one needn't. */
const COMPLETE_SEEDS = 1000;
/** A long run's courses. */
const LONG_SECONDS = 1800;
const JOBS_MAX = 256;

interface Known {
  readonly planted?: object;
}

const { values } = parseArgs({
  options: {
    seeds: { type: "string", default: "100" },
    from: { type: "string", default: "1" },
    hours: { type: "string" },
    jobs: { type: "string", default: String(availableParallelism()) },
    seed: { type: "string" },
    plant: { type: "string" },
    log: { type: "boolean", default: false },
    output: { type: "string" },
  },
});

function wholeNumber(name: string, text: string, min = 0, max = Number.MAX_SAFE_INTEGER): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= min && value <= max) return value;
  console.error(`Expected --${name} to be a whole number from ${min} to ${max}, got ${text}.`);
  process.exit(2);
}

const plant = PLANTS.find((one) => one === values.plant);
if (values.plant !== undefined && plant === undefined) {
  console.error(`Expected --plant to be one of ${PLANTS.join(", ")}, got ${values.plant}.`);
  process.exit(2);
}

const began = performance.now();
const hours = values.hours === undefined ? undefined : wholeNumber("hours", values.hours);
const from = wholeNumber("seed", values.seed ?? values.from);
const one = values.seed !== undefined;
const seeds = one ? 1 : wholeNumber("seeds", values.seeds);
const jobs = wholeNumber("jobs", values.jobs, 1, JOBS_MAX);
const options: RowOptions = {
  from,
  step: 1,
  ...(one || hours === undefined ? { courses: seeds } : { hours }),
  ...(hours === undefined ? {} : { seconds: LONG_SECONDS }),
  ...(plant === undefined ? {} : { plant }),
};
const log = values.log ? { log: (line: string) => console.log(line) } : {};
const result = await (one ? runRow({ ...options, ...log }) : runInJobs(options, jobs));
const seconds = (performance.now() - began) / 1000;

const again = `${hours === undefined ? "" : " --hours 0"}${plant === undefined ? "" : ` --plant ${plant}`}`;
for (const { seed, violation } of result.failures.slice(0, FAILURES_SHOWN_MAX)) {
  console.log(`seed ${seed}: ${violation}`);
  console.log(`  again: npm run faults -- --seed ${seed} --log${again}`);
}
const kills = Object.entries(result.kills);
for (const [name, count] of kills) console.log(`${String(count).padStart(6)} ${name}`);
const missed = kills.filter(([, count]) => count === 0);
const { courses, failed, simulatedSeconds, events, cpuSeconds } = result;
console.log(
  `${courses} courses, ${failed} failed; ${(simulatedSeconds / 3600).toFixed(1)} simulated hours, ` +
    `${events} events, ${seconds.toFixed(1)} s in ${one ? 1 : jobs} processes (${cpuSeconds.toFixed(1)} s ` +
    `of a core); ${kills.length - missed.length} of ${kills.length} kill points hit`,
);
if (values.output !== undefined) {
  const file = values.output;
  const known = existsSync(file) ? (JSON.parse(readFileSync(file, "utf8")) as Known) : {};
  const told = { from, courses, failed };
  const { failures, kills: killPoints } = result;
  const more = { failures, jobs, simulatedHours: simulatedSeconds / 3600, events, seconds };
  const row = { ...told, ...more, cpuSeconds, killPoints };
  const name = hours === undefined ? "seeds" : "hours";
  // Of a defect that was put in, all that matters is that it is found.
  const added =
    plant === undefined ? { [name]: row } : { planted: { ...known.planted, [plant]: told } };
  writeFileSync(file, `${JSON.stringify({ ...known, ...added }, null, 1)}\n`);
}
const leftOut = hours === undefined && !one && seeds >= COMPLETE_SEEDS ? missed.length : 0;
if (leftOut > 0) console.log(`not hit: ${missed.map(([name]) => name).join("; ")}`);
process.exitCode = failed + leftOut > 0 ? 1 : 0;
