/**
 * A row of courses over several processes, each with every so manieth seed: a course is one thread's
 * work, and stands in for the clock of its whole process.
 */

import { fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { type RowOptions, type RowResult, runRow, together } from "./row.ts";

/** Courses leave much behind that lives for one of them: more room for it is a tenth less time. */
const NODE_OPTIONS = ["--max-semi-space-size=64"];

export type JobOptions = Omit<RowOptions, "log">;

/** @throws Error where a job ends without a result */
export async function runInJobs(options: JobOptions, jobs: number): Promise<RowResult> {
  const { from, step, courses, hours } = options;
  const shares = Array.from({ length: jobs }, (_, place): JobOptions => {
    // The first jobs take one more each where it doesn't come out even.
    const share = courses === undefined ? {} : { courses: Math.ceil((courses - place) / jobs) };
    const time = hours === undefined ? {} : { hours: hours / jobs };
    return { ...options, from: from + place * step, step: step * jobs, ...share, ...time };
  });
  return together(await Promise.all(shares.map(inProcess)));
}

async function inProcess(options: JobOptions): Promise<RowResult> {
  const child = fork(fileURLToPath(import.meta.url), {
    execArgv: [...process.execArgv, ...NODE_OPTIONS],
  });
  let result: RowResult | undefined;
  child.once("message", (message) => {
    result = message as RowResult;
  });
  child.send(options);
  const [code] = (await once(child, "exit")) as [number | null];
  if (result !== undefined) return result;
  throw new Error(
    `Expected the seeds from ${options.from} to be run, but their job ended (${code}).`,
  );
}

if (process.send !== undefined && process.argv[1] === fileURLToPath(import.meta.url)) {
  // Ends with whoever waits for its result.
  process.once("disconnect", () => process.exit());
  process.once("message", (options) => {
    void runRow(options as JobOptions).then((result) =>
      process.send?.(result, () => process.disconnect()),
    );
  });
}
