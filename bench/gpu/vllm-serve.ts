/**
 * What `vllm-serve.sh` needs besides the two clients: a free port, a schedule in the form of
 * `vllm bench serve --dataset-name timed_trace`, and the comparison.
 */

import { readFileSync, writeFileSync } from "node:fs";
import Table from "cli-table3";
import { freePort } from "../../src/bench/engine-command.ts";
import { readTrace } from "../../src/trace.ts";

/** Each id stands for so many random tokens. */
const TOKENS_PER_ID = 16;
const FIGURES = [
  "completed",
  "median_ttft_ms",
  "p99_ttft_ms",
  "median_tpot_ms",
  "p99_tpot_ms",
  "median_itl_ms",
  "median_e2el_ms",
  "output_throughput",
];

async function schedule(from: string, to: string, round: number): Promise<void> {
  const lines: string[] = [];
  // No id twice, also over rounds: a shared prefix would be cached.
  let id = round * 10_000_000;
  for await (const { atSeconds, promptTokens, outputTokens } of readTrace(from)) {
    const count = Math.ceil(promptTokens / TOKENS_PER_ID);
    lines.push(
      JSON.stringify({
        timestamp: atSeconds,
        input_length: promptTokens,
        output_length: outputTokens,
        hash_ids: Array.from({ length: count }, () => id++),
      }),
    );
  }
  writeFileSync(to, `${lines.join("\n")}\n`);
  console.log(lines.length);
}

function compare(files: readonly string[]): void {
  const read = (file: string) => JSON.parse(readFileSync(file, "utf8")) as Record<string, number>;
  const table = new Table({
    head: ["round", "figure", "lazygraph bench", "vllm bench serve", "ratio"],
    style: { head: [], border: [], compact: true },
  });
  for (let at = 0; at + 1 < files.length; at += 2) {
    const ours = read(files[at] as string);
    const theirs = read(files[at + 1] as string);
    for (const name of FIGURES) {
      const [a = Number.NaN, b = Number.NaN] = [ours[name], theirs[name]];
      table.push([String(at / 2 + 1), name, a.toFixed(3), b.toFixed(3), (a / b).toFixed(3)]);
    }
  }
  console.log(table.toString());
}

const [word, ...args] = process.argv.slice(2);
if (word === "port") console.log(await freePort());
else if (word === "schedule") {
  await schedule(args[0] as string, args[1] as string, Number(args[2]));
} else if (word === "compare") compare(args);
else {
  console.error("usage: vllm-serve.ts port | schedule CSV JSONL ROUND | compare OURS THEIRS…");
  process.exitCode = 2;
}
