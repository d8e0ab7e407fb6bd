/**
 * `npm run bench:simulate`: every policy under many loads on the simulated engine, as added
 * request-seconds against the oracle. Prints the tables of docs/policy.md and writes the raw
 * figures to bench/results/simulate-8b.json.
 *
 * What would refute us: a comparator other than oracle and floor below idle-costed, or stock or
 * pr23184 below lazy-costed, under any load but the overloaded ones.
 */

import { writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { DEFAULT_PROFILE, loadProfile } from "../src/sim/profile.ts";
import { createSetup, POLICY_NAMES } from "../src/sim/setups.ts";
import { type SimulatedRun, simulate } from "../src/sim/virtual.ts";
import { readTrace, type TraceRequest } from "../src/trace.ts";
import { gammaRequests } from "./lib/gamma.ts";

const TRACE = fileURLToPath(
  new URL("../traces/azure-llm-2023-conversation.csv.gz", import.meta.url),
);
const RESULTS = new URL("./results/simulate-8b.json", import.meta.url);

interface Load {
  readonly name: string;
  readonly requests: () => AsyncIterable<TraceRequest> | Iterable<TraceRequest>;
}

const conversation = (speed: number, seconds?: number): Load => ({
  name: `conversation trace, speed ${speed}${seconds === undefined ? "" : `, first ${seconds} s`}`,
  requests: () => readTrace(TRACE, { speed, ...(seconds === undefined ? {} : { seconds }) }),
});

const gamma = (rate: number, cv: number): Load => ({
  name: `gamma, ${rate} a second, cv ${cv}, 300 s`,
  requests: () => gammaRequests({ rate, cv, seconds: 300, seed: 7 }),
});

const LOADS: readonly Load[] = [
  conversation(1, 300),
  conversation(0.02),
  conversation(1),
  conversation(3, 300),
  conversation(3),
  conversation(6, 300),
  conversation(10, 300),
  ...[0.5, 2.5, 8].flatMap((rate) => [0.5, 1, 3].map((cv) => gamma(rate, cv))),
];

const profile = loadProfile(DEFAULT_PROFILE);
const results: object[] = [];
console.log(`SIMULATED, profile ${profile.name}. Added request-seconds against the oracle.\n`);
console.log(
  `| load | ${POLICY_NAMES.join(" | ")} |\n|---|${POLICY_NAMES.map(() => "--:|").join("")}`,
);
for (const load of LOADS) {
  const runs: (SimulatedRun & { wallSeconds: number })[] = [];
  for (const name of POLICY_NAMES) {
    const started = performance.now();
    const run = await simulate({
      profile,
      ...createSetup(name, profile),
      requests: load.requests(),
    });
    runs.push({ ...run, wallSeconds: (performance.now() - started) / 1000 });
    console.error(`${load.name}: ${name} in ${runs.at(-1)?.wallSeconds.toFixed(1)} s`);
  }
  const oracle = runs[0]?.completionSecondsSum ?? 0;
  const added = runs.map((run) => run.completionSecondsSum - oracle);
  console.log(`| ${load.name} | ${added.map((value) => value.toFixed(2)).join(" | ")} |`);
  results.push({
    load: load.name,
    policies: runs.map((run, index) => ({ ...run, addedRequestSeconds: added[index] })),
  });
}
const document = { simulated: true, profile: profile.name, node: process.version, loads: results };
await writeFile(RESULTS, `${JSON.stringify(document, null, 1)}\n`);
