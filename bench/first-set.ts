/**
 * `npm run bench:first-set`: what the first set by value is worth, SIMULATED. A mixture of experts
 * with rough costs of vLLM 0.33 under the first 300 s of the conversation trace at speeds 1 and 3,
 * beside what the policies of commit 04c5aeb came to (bench/results/first-set-before.json); then lazy
 * and idle mode against stock and the fixed ladder, for this engine and two 8Bs, under loads from a
 * few requests a minute to far too many. Prints the tables of docs/policy.md and writes
 * bench/results/first-set.json.gz.
 *
 * What would refute us: idle-costed above half of what it was; lazy-costed above stock or ladder.
 */

import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { DEFAULT_PROFILE, loadProfile } from "../src/profile/load.ts";
import type { Profile } from "../src/profile/profile.ts";
import { DEFAULT_POLICY } from "../src/schedule/choice.ts";
import type { Load } from "./lib/added.ts";
import { type Arm, type ArmName, armsOf } from "./lib/first-set.ts";
import { conversation, gammas, window } from "./lib/loads.ts";
import { writeResult } from "./lib/result-file.ts";

const BEFORE = new URL("./results/first-set-before.json", import.meta.url);
const RESULTS = new URL("./results/first-set.json.gz", import.meta.url);
const MOE = fileURLToPath(new URL("./profiles/moe-0.33-rough.json", import.meta.url));

const ARMS: readonly ArmName[] = [
  "stock",
  "ladder",
  "pr23184",
  "largest-first",
  "eager",
  "lazy-simple",
  "idle-simple",
  "lazy-costed",
  "idle-costed",
  "lazy, unknown engine",
  "idle, unknown engine",
];
const LIMITS = ["stock", "ladder"] as const;
const MODES = [
  "lazy-costed",
  "idle-costed",
  "lazy, unknown engine",
  "idle, unknown engine",
] as const;
const FIRST: readonly Load[] = [conversation(1, 300), conversation(3, 300)];
const LOADS: readonly Load[] = [
  ...[0.02, 0.2, 1, 2, 2.9, 3, 3.1, 6, 10].map((speed) => conversation(speed, 300)),
  ...[1, 2, 3].flatMap((speed) => [window(speed, 450), window(speed, 900)]),
  ...gammas(101, 200),
];
/** The share of its old self that idle mode by cost may come to. */
const SHARE_MAX = 0.5;

interface Before {
  readonly commit: string;
  readonly loads: readonly {
    readonly load: string;
    readonly policies: readonly { readonly name: string; readonly addedRequestSeconds: number }[];
  }[];
}

interface FirstTable {
  readonly load: string;
  readonly arms: readonly (Arm & { readonly before?: number })[];
  readonly share: number;
  readonly holds: boolean;
}

interface Comparison {
  readonly profile: string;
  readonly load: string;
  readonly arms: readonly Arm[];
  /** Pairs of a mode and a comparator that it came out above. */
  readonly above: readonly (readonly [mode: string, limit: string])[];
}

async function firstTables(moe: Profile, other: Profile): Promise<FirstTable[]> {
  const before = JSON.parse(await readFile(BEFORE, "utf8")) as Before;
  const tables: FirstTable[] = [];
  for (const load of FIRST) {
    const earlier = before.loads.find((entry) => entry.load === load.name)?.policies ?? [];
    const addedBefore = (name: string): number | undefined =>
      earlier.find((policy) => policy.name === name)?.addedRequestSeconds;
    const arms = (await armsOf(moe, other, load, ARMS)).map((arm) => {
      const added = addedBefore(arm.name);
      return added === undefined ? arm : { ...arm, before: added };
    });
    const now = arms.find(({ name }) => name === "idle-costed")?.addedRequestSeconds ?? Number.NaN;
    const share = now / (addedBefore("idle-costed") ?? Number.NaN);
    tables.push({ load: load.name, arms, share, holds: share <= SHARE_MAX });
    printFirst(load.name, before.commit, arms);
    console.log(`idle-costed: ${share.toFixed(2)} of what it was; wanted: at most ${SHARE_MAX}`);
  }
  return tables;
}

function printFirst(load: string, commit: string, arms: FirstTable["arms"]): void {
  console.log(
    `\n| ${load} | added | at ${commit} | s before ready | graphs then | in the end |\n|---|--:|--:|--:|--:|--:|`,
  );
  for (const arm of arms) {
    const cells = [
      arm.addedRequestSeconds.toFixed(1),
      arm.before?.toFixed(1) ?? "",
      arm.captureBeforeReadySeconds.toFixed(2),
      arm.graphsBeforeReady,
      arm.graphsCaptured,
    ];
    console.log(`| \`${arm.name}\` | ${cells.join(" | ")} |`);
  }
}

async function comparisons(profiles: readonly Profile[], other: Profile): Promise<Comparison[]> {
  const names = [...LIMITS, ...MODES];
  const found: Comparison[] = [];
  for (const profile of profiles) {
    console.log(
      `\n| ${profile.name} | ${names.join(" | ")} |\n|---|${names.map(() => "--:|").join("")}`,
    );
    for (const load of LOADS) {
      const arms = await armsOf(profile, other, load, names);
      const added = new Map(arms.map((arm) => [arm.name, arm.addedRequestSeconds]));
      const above = MODES.flatMap((mode) =>
        LIMITS.filter((limit) => (added.get(mode) ?? 0) > (added.get(limit) ?? 0)).map(
          (limit) => [mode, limit] as const,
        ),
      );
      found.push({ profile: profile.name, load: load.name, arms, above });
      const cells = names.map((name) => (added.get(name) ?? Number.NaN).toFixed(2));
      console.log(`| ${load.name} | ${cells.join(" | ")} |`);
    }
  }
  return found;
}

function printVerdicts(found: readonly Comparison[]): void {
  console.log(`\n| of ${found.length} loads, above | stock | ladder |\n|---|--:|--:|`);
  for (const mode of MODES) {
    const cells = LIMITS.map(
      (limit) =>
        found.filter(({ above }) => above.some((p) => p[0] === mode && p[1] === limit)).length,
    );
    console.log(`| ${mode} | ${cells.join(" | ")} |`);
  }
  for (const { profile, load, above } of found) {
    for (const [mode, limit] of above) console.log(`${mode} above ${limit}: ${profile}, ${load}`);
  }
}

const moe = loadProfile(MOE);
const other = loadProfile(DEFAULT_PROFILE);
console.log(`SIMULATED, no GPU was used. ${moe.title}. Added request-seconds against the oracle.`);
console.log(`Lazy and idle mode are by the policy "${DEFAULT_POLICY}" where nobody says.`);
const first = await firstTables(moe, other);
const compared = await comparisons([moe, other, loadProfile("llama-3.1-8b-h200-serve")], other);
printVerdicts(compared);
const document = {
  simulated: true,
  node: process.version,
  shareMax: SHARE_MAX,
  first,
  comparisons: compared,
};
writeResult(RESULTS, document);
