/**
 * What `vllm-serve.sh` needs besides the two clients: a free port, a schedule in the form of
 * `vllm bench serve --dataset-name timed_trace`, and the comparison.
 */

import { readFileSync, writeFileSync } from "node:fs";
import Table from "cli-table3";
import { freePort } from "../../src/bench/engine-command.ts";
import { readTrace } from "../../src/trace/trace.ts";
import { type ClientResult, clientAgreement } from "../lib/client-agreement.ts";

/** Each id stands for so many random tokens. */
const TOKENS_PER_ID = 16;

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

function compare(out: string, files: readonly string[]): void {
  const read = (file: string) => JSON.parse(readFileSync(file, "utf8")) as ClientResult;
  const pairs = Array.from({ length: files.length / 2 }, (_, round) => ({
    ours: read(files[2 * round] as string),
    theirs: read(files[2 * round + 1] as string),
  }));
  const agreement = clientAgreement(pairs);
  writeFileSync(out, `${JSON.stringify(agreement, undefined, 1)}\n`);
  const table = new Table({
    head: ["figure", "lazygraph bench", "vllm bench serve", "ratio", "limit", ""],
    style: { head: [], border: [], compact: true },
  });
  const rounds = (values: readonly number[]) => values.map((value) => value.toFixed(2)).join(", ");
  for (const { name, ours, theirs, ratio, limit, verdict } of agreement.figures) {
    const within = limit === undefined ? "" : `within ${limit * 100}%`;
    table.push([name, rounds(ours), rounds(theirs), ratio.toFixed(3), within, verdict ?? ""]);
  }
  console.log(table.toString());
  if (!agreement.sameWork) {
    console.error(
      "Expected both clients to ask the server for the same work, got different counts: latencies can't be compared. Give vllm bench serve a tokenizer whose tokens are this server's (--tokenizer).",
    );
  }
  if (!agreement.holds) process.exitCode = 1;
}

const [word, ...args] = process.argv.slice(2);
if (word === "port") console.log(await freePort());
else if (word === "schedule") {
  await schedule(args[0] as string, args[1] as string, Number(args[2]));
} else if (word === "compare") compare(args[0] as string, args.slice(1));
else {
  console.error("usage: vllm-serve.ts port | schedule CSV JSONL ROUND | compare OUT OURS THEIRS…");
  process.exitCode = 2;
}
