/**
 * Every trace format from its small sample (test/trace/samples) through `trace inspect`, `simulate`
 * and `bench --simulated`: each has to end well, with as many requests in the three. And Mooncake's
 * own traces against what their description says of them, where their folder is given.
 *
 *   MOONCAKE=…/FAST25-release/traces npm run bench:trace-formats
 *     prints the counts, writes bench/results/trace-formats.json
 *
 * The folder is of https://github.com/kvcache-ai/Mooncake.
 */

import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const SAMPLES = join(ROOT, "test", "trace", "samples");
const OUTPUT_BYTES_MAX = 64 << 20;

/** FAST25-release/README.md: requests, average input length, average output length. */
const MOONCAKE = {
  "conversation_trace.jsonl": [12_031, 12_035, 343],
  "toolagent_trace.jsonl": [23_608, 8_596, 182],
  "synthetic_trace.jsonl": [3_993, 15_325, 149],
} as const;

interface Inspected {
  readonly format: string;
  readonly requests: number;
  readonly promptTokens: { readonly mean: number };
  readonly outputTokens: { readonly mean: number };
  readonly prefixes?: { readonly reusedShare: number };
}

const execute = promisify(execFile);
const folder = await mkdtemp(join(tmpdir(), "lazygraph-traces-"));

async function lazygraph<T>(args: readonly string[]): Promise<T> {
  const main = join(ROOT, "src", "cli", "main.ts");
  const command = ["--import", "tsx", main, ...args];
  const { stdout } = await execute(process.execPath, command, {
    cwd: ROOT,
    maxBuffer: OUTPUT_BYTES_MAX,
  });
  return JSON.parse(stdout) as T;
}

async function throughAll(name: string) {
  const file = join(SAMPLES, name);
  const { format, requests } = await lazygraph<Inspected>(["trace", "inspect", file, "--json"]);
  const simulated = await lazygraph<{ trace: { requests: number } }>([
    ...["simulate", "--trace", file, "--policy", "idle", "--json"],
  ]);
  const benched = await lazygraph<{ cells: { runs: { completed: number }[] }[] }>([
    ...["bench", "--simulated", "--mode", "idle", "--trace", file, "--seconds", "100000"],
    ...["--out", join(folder, name), "--json", "--quiet"],
  ]);
  const counts = {
    inspect: requests,
    simulate: simulated.trace.requests,
    bench: benched.cells[0]?.runs[0]?.completed ?? 0,
  };
  const same = new Set(Object.values(counts)).size === 1;
  return { sample: name, format, ...counts, holds: requests > 0 && same };
}

async function described(traces: string, name: keyof typeof MOONCAKE) {
  const file = join(traces, name);
  const bytes = await readFile(file).catch(() => undefined);
  if (bytes === undefined) return [];
  const told = await lazygraph<Inspected>(["trace", "inspect", file, "--json"]);
  const { requests, promptTokens, outputTokens, prefixes } = told;
  const seen = [requests, Math.round(promptTokens.mean), Math.round(outputTokens.mean)];
  const says = MOONCAKE[name];
  const sha256 = createHash("sha256").update(bytes).digest("hex");
  const holds = seen.every((figure, at) => figure === says[at]);
  return [{ file: name, sha256, says, seen, reusedShare: prefixes?.reusedShare, holds }];
}

const formats = [];
for (const name of (await readdir(SAMPLES)).filter((entry) => entry !== "README.md").sort()) {
  const row = await throughAll(name);
  formats.push(row);
  console.log(`${row.holds ? "same" : "NOT THE SAME"}: ${name} (${row.format})`);
}
const mooncake = [];
const traces = process.env["MOONCAKE"];
if (traces !== undefined) {
  for (const name of Object.keys(MOONCAKE) as (keyof typeof MOONCAKE)[]) {
    mooncake.push(...(await described(traces, name)));
  }
}
for (const { file, holds, seen } of mooncake) {
  console.log(`${holds ? "as described" : "NOT AS DESCRIBED"}: ${file}, ${seen.join(", ")}`);
}
await rm(folder, { recursive: true });
const result = {
  what: "requests of each sample by three commands; Mooncake's traces against their README: requests, mean prompt tokens, mean output tokens",
  formats,
  mooncake,
};
const target = new URL("results/trace-formats.json", import.meta.url);
await writeFile(target, `${JSON.stringify(result, null, 1)}\n`);
process.exitCode = [...formats, ...mooncake].every(({ holds }) => holds) ? 0 : 1;
