/**
 * `BEFORE=CHECKOUT npm run bench:simulated-hour`: seconds that the whole conversation trace, an hour
 * of traffic, takes in virtual time, by this checkout and by an earlier one. Each run is a process
 * of its own, the two checkouts in turn; the fastest of each counts, since what another process
 * takes away is not the simulator's. Writes bench/results/simulated-hour.json.
 *
 * Hypothesis: at most as long as at commit b699544, which had no memory guard in the simulator.
 */

import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const RUNS = Number(process.env["RUNS"] ?? 5);
const POLICIES = ["idle-costed", "lazy-costed", "idle-simple"] as const;

type Simulator = typeof import("../src/sim/virtual/virtual.ts");
type Setups = typeof import("../src/sim/virtual/setups.ts");
type Profiles = typeof import("../src/profile/load.ts");
type Traces = typeof import("../src/trace/trace.ts");

/** In a process of its own: one run by the checkout in `folder`, its processor seconds on stdout. */
async function child(folder: string, name: (typeof POLICIES)[number]): Promise<void> {
  const from = <T>(file: string): Promise<T> =>
    import(pathToFileURL(join(folder, "src", file)).href) as Promise<T>;
  const { simulate } = await from<Simulator>("sim/virtual/virtual.ts");
  const { createSetup } = await from<Setups>("sim/virtual/setups.ts");
  const { loadProfile } = await from<Profiles>("profile/load.ts");
  const { readTrace } = await from<Traces>("trace/trace.ts");
  const profile = loadProfile();
  const started = process.cpuUsage();
  const run = await simulate({
    profile,
    ...createSetup(name, profile),
    requests: readTrace("azure-llm-2023-conversation", {}),
  });
  const { user, system } = process.cpuUsage(started);
  process.stdout.write(JSON.stringify({ seconds: (user + system) / 1e6, requests: run.requests }));
}

function timed(folder: string, policy: string): { seconds: number; requests: number } {
  const script = fileURLToPath(import.meta.url);
  const { stdout, stderr, status } = spawnSync(
    process.execPath,
    ["--import", "tsx", script, folder, policy],
    { cwd: ROOT, encoding: "utf8" },
  );
  if (status !== 0) throw new Error(`Expected ${folder} to simulate ${policy}, got: ${stderr}`);
  return JSON.parse(stdout) as { seconds: number; requests: number };
}

function main(): void {
  const before = process.env["BEFORE"];
  if (before === undefined) {
    console.error("Expected BEFORE to name an earlier checkout with node_modules, got nothing.");
    process.exitCode = 2;
    return;
  }
  console.log("| policy | requests | before, s | now, s | share |\n|---|--:|--:|--:|--:|");
  const rows = POLICIES.map((policy) => {
    const seconds = { before: Number.POSITIVE_INFINITY, now: Number.POSITIVE_INFINITY };
    let requests = 0;
    for (let run = 0; run < RUNS; run++) {
      const earlier = timed(resolve(before), policy);
      const own = timed(ROOT, policy);
      seconds.before = Math.min(seconds.before, earlier.seconds);
      seconds.now = Math.min(seconds.now, own.seconds);
      requests = own.requests;
    }
    const share = seconds.now / seconds.before;
    const cells = [seconds.before, seconds.now, share].map((value) => value.toFixed(2));
    console.log(`| ${policy} | ${requests} | ${cells.join(" | ")} |`);
    return { policy, requests, beforeSeconds: seconds.before, nowSeconds: seconds.now };
  });
  const [cpu] = cpus();
  const head = { simulated: true, runs: RUNS, node: process.version, cpu: cpu?.model };
  const target = new URL("results/simulated-hour.json", import.meta.url);
  writeFileSync(target, `${JSON.stringify({ ...head, rows }, null, 1)}\n`);
}

const [folder, policy] = process.argv.slice(2);
if (folder === undefined) main();
else await child(folder, policy as (typeof POLICIES)[number]);
