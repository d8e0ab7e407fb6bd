/**
 * What an open stream costs the benchmark's client in memory, besides eight bytes for the time of
 * each token: resident and JavaScript's own, between a hundred and a thousand open streams that
 * have each had a few tokens.
 *
 *   npm run bench:client-memory        prints the figures, writes bench/results/client-memory.json
 */

import { fork } from "node:child_process";
import { once, setMaxListeners } from "node:events";
import { writeFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { streamRequest } from "../src/bench/stream.ts";
import { ServerAddress } from "../src/measure/server-address.ts";

const FEW = 100;
const MANY = 1_000;
const TOKENS = 1_000_000;
/** For the streams to get going. */
const WARM_MS = 4_000;

const file = fileURLToPath(new URL("lib/token-server.ts", import.meta.url));
const child = fork(file, { execArgv: ["--import", "tsx"] });
const [{ port }] = (await once(child, "message")) as [{ port: number }];
const server = new ServerAddress(new URL(`http://127.0.0.1:${port}`));
const stop = new AbortController();
// Every stream listens, so that their number is no leak.
setMaxListeners(0, stop.signal);

interface Memory {
  readonly rssBytes: number;
  readonly heapBytes: number;
}

const ends: Promise<unknown>[] = [];

async function withStreams(count: number): Promise<Memory> {
  while (ends.length < count) {
    const fields = { endpoint: "completions", model: "m", prompt: "p", ignoreEos: true } as const;
    const request = { server, ...fields, maxTokens: TOKENS, timeoutMs: 600_000 };
    ends.push(streamRequest({ ...request, signal: stop.signal }));
  }
  await sleep(WARM_MS);
  globalThis.gc?.();
  const { rss, heapUsed, external } = process.memoryUsage();
  return { rssBytes: rss, heapBytes: heapUsed + external };
}

const few = await withStreams(FEW);
const many = await withStreams(MANY);
stop.abort();
await Promise.all(ends);
child.disconnect();
const each = (name: keyof Memory): number => Math.round((many[name] - few[name]) / (MANY - FEW));
const result = {
  what: `bytes a stream, between ${FEW} and ${MANY} open ones`,
  node: process.version,
  rssBytesPerStream: each("rssBytes"),
  heapBytesPerStream: each("heapBytes"),
};
console.log(
  `${result.rssBytesPerStream} bytes resident, ${result.heapBytesPerStream} of JavaScript`,
);
const target = new URL("results/client-memory.json", import.meta.url);
await writeFile(target, `${JSON.stringify(result, null, 2)}\n`);
