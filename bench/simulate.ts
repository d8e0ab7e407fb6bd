/**
 * `npm run bench:simulate`: every policy under many loads on the simulated engine, as added
 * request-seconds against the oracle; the hold-out loads, which no constant was chosen on; and
 * second starts with what a first one learned. Prints the tables of docs/policy.md and writes the
 * raw figures to bench/results/simulate-8b.json.br. With `--second-starts` it makes the second starts
 * only, and the rest of that file stays as it is.
 *
 * What would refute us: a comparator other than oracle and floor below idle-costed, or stock,
 * pr23184 or ladder below lazy-costed, under any load but the overloaded ones; a second start with more than
 * 60% of the first one's excess over floor.
 */

import { parseArgs } from "node:util";
import { DEFAULT_PROFILE, loadProfile } from "../src/profile/load.ts";
import { POLICY_NAMES, type PolicyName } from "../src/sim/virtual/setups.ts";
import { type AddedRun, addedRuns, type Load, type SecondStart, secondStart } from "./lib/added.ts";
import { conversation, gamma, gammas, window } from "./lib/loads.ts";
import { readResult, writeResult } from "./lib/result-file.ts";

const RESULTS = new URL("./results/simulate-8b.json.br", import.meta.url);

const LOADS: readonly Load[] = [
  conversation(1, 300),
  conversation(0.02),
  conversation(1),
  conversation(3, 300),
  conversation(3),
  conversation(6, 300),
  conversation(10, 300),
  ...gammas(7, 300),
];
const HOLD_OUT: readonly Load[] = [...gammas(101, 200), ...gammas(102, 200)];
/** What the first start saw, and what the second one is measured under. */
const SECOND_STARTS: readonly (readonly [Load, Load])[] = [
  [conversation(1, 300), conversation(1, 300)],
  [conversation(1, 300), window(1, 900)],
  [window(1, 900), conversation(1, 300)],
  [conversation(0.02), conversation(0.02)],
  [conversation(3, 300), conversation(3, 300)],
  [conversation(3, 300), window(3, 800)],
  [conversation(6, 300), conversation(6, 300)],
  [conversation(10, 300), conversation(10, 300)],
  [conversation(1, 300), conversation(6, 300)],
  ...[0.5, 2.5, 8].map((rate) => [gamma(rate, 1), gamma(rate, 1, 8)] as const),
];

/** Pairs that no constant was chosen on. */
const HOLD_OUT_SECOND_STARTS: readonly (readonly [Load, Load])[] = [
  [window(1, 1200), window(1, 2100)],
  [window(1, 2700), window(1, 3000)],
  [window(1, 150), window(1, 450)],
  [window(2, 900), window(2, 1400)],
  [window(2, 100), window(2, 100)],
  [window(3, 600), window(3, 600)],
  [window(3, 700), window(3, 850)],
  [window(3, 150), window(3, 250)],
  [window(1, 1200), window(3, 600)],
  [window(3, 600), window(1, 1200)],
  [conversation(3, 300), conversation(3)],
  [gamma(1, 3, 61), gamma(1, 3, 62)],
  [gamma(4, 1, 63), gamma(4, 1, 64)],
  [gamma(8, 0.5, 65), gamma(8, 0.5, 66)],
  [gamma(8, 3, 67), gamma(8, 3, 68)],
  [gamma(12, 1, 69), gamma(12, 1, 70)],
  [gamma(8, 1, 71), gamma(1, 1, 72)],
  [gamma(1, 1, 73), gamma(8, 1, 74)],
];

const { values: options } = parseArgs({ options: { "second-starts": { type: "boolean" } } });
const profile = loadProfile(DEFAULT_PROFILE);

async function table(loads: readonly Load[], names: readonly PolicyName[]): Promise<object[]> {
  console.log(`\n| load | ${names.join(" | ")} |\n|---|${names.map(() => "--:|").join("")}`);
  const results: object[] = [];
  for (const load of loads) {
    const runs: AddedRun[] = await addedRuns(profile, load, names);
    const cells = runs.map(({ addedRequestSeconds }) => addedRequestSeconds.toFixed(2));
    console.log(`| ${load.name} | ${cells.join(" | ")} |`);
    results.push({ load: load.name, policies: runs.map(figures) });
  }
  return results;
}

/** What a request waited is in no table, and is told by `lazygraph simulate` at any time. */
function figures({ ttftSeconds: _, tpotSeconds: _tpot, wallSeconds: _wall, ...kept }: AddedRun) {
  return kept;
}

async function firstStarts(): Promise<object> {
  const others = POLICY_NAMES.filter((name) => name !== "oracle");
  const loads = await table(LOADS, others);
  console.log("\nHold-out loads:");
  const holdOut = await table(
    HOLD_OUT,
    others.filter((name) => name !== "none" && name !== "largest-first"),
  );
  return { simulated: true, profile: profile.name, node: process.version, loads, holdOut };
}

async function secondStarts(
  title: string,
  pairs: readonly (readonly [Load, Load])[],
): Promise<SecondStart[]> {
  console.log(
    `\n${title}:\n\n| policy | learned from | load | floor | first | second | share |\n|---|---|---|--:|--:|--:|--:|`,
  );
  const results: SecondStart[] = [];
  for (const name of ["lazy-costed", "idle-costed"] as const) {
    for (const pair of pairs) {
      const result = await secondStart(profile, name, pair);
      results.push(result);
      const { floor, first, second, excessShare } = result;
      const figures = [floor, first, second, excessShare].map((value) => value.toFixed(2));
      console.log(`| ${name} | ${pair[0].name} | ${pair[1].name} | ${figures.join(" | ")} |`);
    }
  }
  return results;
}

console.log(`SIMULATED, profile ${profile.name}. Added request-seconds against the oracle.`);
const head = options["second-starts"] ? readResult<object>(RESULTS) : await firstStarts();
const document = {
  ...head,
  secondStarts: await secondStarts("Second starts", SECOND_STARTS),
  holdOutSecondStarts: await secondStarts("Hold-out second starts", HOLD_OUT_SECOND_STARTS),
};
writeResult(RESULTS, document);
