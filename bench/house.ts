/**
 * `BEFORE=CHECKOUT npm run bench:house`: how the source hangs together, and what a decision takes, in
 * this checkout and in an earlier one: rooms, arrows and cycles as `npm run graph` counts them; files
 * opened one after the other from src/index.ts to where something happens, by the shortest way along
 * imports; and `npm run bench:decisions` of both in turn, the fastest of each. Writes
 * bench/results/house.json, and of this checkout bench/results/decisions.json.
 *
 * Hypothesis, against commit 491cc66: half the rooms and arrows, no cycle, at most 2, 2, 3 and 4
 * files, and no slower decision at p99.
 */

import { execFileSync, spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseDependencyTree } from "dpdm";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const RUNS = Number(process.env["RUNS"] ?? 3);
/** Where something happens: by what that file exports. */
const PLACES = {
  "a message is validated": "FROM_ENGINE",
  "memory is forecast": "MemoryForecast",
  "the next graph is chosen": "createCostPolicy",
  "who acts on it": "EngineDriver",
} as const;

interface Shape {
  readonly rooms: number;
  readonly arrows: number;
  readonly cycles: number;
  /** Files opened, the first one not counted, by what was looked for. */
  readonly opened: Readonly<Record<string, number>>;
  /** The files on the way. */
  readonly ways: Readonly<Record<string, readonly string[]>>;
}

async function shapeOf(checkout: string): Promise<Shape> {
  const script = join(ROOT, "scripts/graph.mjs");
  const { stdout } = spawnSync(process.execPath, [script, checkout], { encoding: "utf8" });
  const counts = /^(\d+) rooms, (\d+) arrows, (\d+) cycles$/m.exec(stdout);
  if (counts === null) throw new Error(`Expected counts of ${checkout}, got ${stdout}`);
  const [rooms = 0, arrows = 0, cycles = 0] = counts.slice(1).map(Number);
  const tree = await parseDependencyTree(join(checkout, "src/**/*.ts"), {
    ...{ context: checkout, transform: false, include: /./, exclude: /node_modules/ },
    extensions: ["", ".ts"],
  });
  const ways: Record<string, readonly string[]> = {};
  for (const [what, name] of Object.entries(PLACES)) {
    const file = Object.keys(tree).find((path) => exportsName(join(checkout, path), name));
    if (file === undefined)
      throw new Error(`Expected ${name} in ${checkout}/src, found it nowhere.`);
    ways[what] = shortestWay(tree, "src/index.ts", file);
  }
  const opened = Object.fromEntries(
    Object.entries(ways).map(([what, way]) => [what, way.length - 1]),
  );
  return { rooms, arrows, cycles, opened, ways };
}

function exportsName(file: string, name: string): boolean {
  const text = readFileSync(file, "utf8");
  return new RegExp(`^export (?:const|class|function) ${name}\\b`, "m").test(text);
}

/** From one file to another by as few imports as can be, both ends in it. */
function shortestWay(
  tree: Awaited<ReturnType<typeof parseDependencyTree>>,
  from: string,
  to: string,
): string[] {
  const ways: string[][] = [[from]];
  const seen = new Set([from]);
  for (let way = ways.shift(); way !== undefined; way = ways.shift()) {
    const last = way.at(-1) ?? from;
    if (last === to) return way;
    for (const { id } of tree[last] ?? []) {
      if (id === null || seen.has(id)) continue;
      seen.add(id);
      ways.push([...way, id]);
    }
  }
  throw new Error(`Expected imports from ${from} to ${to}, there are none.`);
}

interface Decisions {
  readonly results: readonly { readonly graphs: number; readonly p99Micros: number }[];
}

/** Microseconds at p99 by number of graphs. */
function decisionsOf(checkout: string): Map<number, number> {
  execFileSync(process.execPath, ["--import", "tsx", "bench/decisions.ts"], { cwd: checkout });
  const file = join(checkout, "bench/results/decisions.json");
  const { results } = JSON.parse(readFileSync(file, "utf8")) as Decisions;
  return new Map(results.map(({ graphs, p99Micros }) => [graphs, p99Micros]));
}

const before = process.env["BEFORE"];
if (before === undefined) {
  console.error("Expected BEFORE to name an earlier checkout with node_modules, got nothing.");
  process.exit(2);
}
const [then, now] = [await shapeOf(resolve(before)), await shapeOf(ROOT)];
const fastest = { before: new Map<number, number>(), now: new Map<number, number>() };
for (let run = 0; run < RUNS; run++) {
  for (const [side, folder] of [
    ["before", resolve(before)],
    ["now", ROOT],
  ] as const) {
    for (const [graphs, micros] of decisionsOf(folder)) {
      const least = Math.min(micros, fastest[side].get(graphs) ?? Number.POSITIVE_INFINITY);
      fastest[side].set(graphs, least);
    }
  }
}
const decisions = [...fastest.now].map(([graphs, nowMicros]) => {
  return { graphs, beforeMicros: fastest.before.get(graphs) ?? Number.NaN, nowMicros };
});
const head = execFileSync("git", ["rev-parse", "--short", "HEAD"], { cwd: resolve(before) });
const document = {
  ...{ node: process.version, commitBefore: head.toString().trim(), runs: RUNS },
  ...{ before: then, now, decisions },
};
const text = `${JSON.stringify(document, null, 1)}\n`;
writeFileSync(new URL("results/house.json", import.meta.url), text);
console.log("| | before | now |\n|---|--:|--:|");
for (const count of ["rooms", "arrows", "cycles"] as const) {
  console.log(`| ${count} | ${then[count]} | ${now[count]} |`);
}
for (const what of Object.keys(PLACES)) {
  console.log(`| files to: ${what} | ${then.opened[what]} | ${now.opened[what]} |`);
}
for (const { graphs, beforeMicros, nowMicros } of decisions) {
  const cells = [beforeMicros, nowMicros].map((micros) => micros.toFixed(1));
  console.log(`| a decision at p99 with ${graphs} graphs, µs | ${cells.join(" | ")} |`);
}
