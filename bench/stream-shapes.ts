/**
 * Every stream shape of test/measure/shapes.ts through the three that read streams: the benchmark's
 * own client, the recording proxy and the example gateway. Of each shape and reader: whether the
 * time of the first content, the count of tokens and the verdict are right.
 *
 *   npm run bench:stream-shapes        prints the counts, writes bench/results/stream-shapes.json.gz
 */

import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Registry } from "prom-client";
import { Gateway } from "../examples/gateway/src/gateway.ts";
import { streamRequest } from "../src/bench/stream.ts";
import { createController } from "../src/controller/controller.ts";
import { ServerAddress } from "../src/measure/server-address.ts";
import { createRecordingProxy } from "../src/record/proxy.ts";
import { createTraceRecorder } from "../src/record/recorder.ts";
import { readTrace } from "../src/trace/trace.ts";
import { listen } from "../test/helpers/listen.ts";
import { PacedShape } from "../test/measure/paced.ts";
import type { Shape } from "../test/measure/shape.ts";
import { SHAPES } from "../test/measure/shapes.ts";
import { writeResult } from "./lib/result-file.ts";

interface Seen {
  /** When the first content was seen; undefined where none was. */
  readonly firstAtMs: number | undefined;
  readonly tokens: number | undefined;
  readonly verdict: string;
}

const COMPLETION = "completion";
const POLL_MS = 5;
const POLLS_MAX = 4_000;

const paced = new PacedShape();
const folder = await mkdtemp(join(tmpdir(), "lazygraph-shapes-"));
const engine = createServer((request, response) => {
  if (request.url === "/health") response.end();
  else paced.listener(request, response);
});
const engineUrl = await listen(engine);

/** What a client reads does not matter here, and some of it breaks off. */
async function post(url: URL): Promise<void> {
  const call = await fetch(new URL("/v1/chat/completions", url), { method: "POST", body: "{}" });
  await call.arrayBuffer().catch(() => undefined);
}

async function byBench(): Promise<Seen> {
  const { tokensAtMs, outputTokens, failure } = await streamRequest({
    ...{ server: new ServerAddress(engineUrl), endpoint: "completions", model: "m", prompt: "p" },
    ...{ maxTokens: 2, ignoreEos: true, timeoutMs: 60_000 },
  });
  const tokens = outputTokens ?? tokensAtMs.length;
  return { firstAtMs: tokensAtMs[0], tokens, verdict: failure?.kind ?? COMPLETION };
}

let recordings = 0;

/** The recorder keeps no time of its own: what passes is judged once it has ended. */
async function byRecord(): Promise<Omit<Seen, "firstAtMs">> {
  const file = join(folder, `${recordings++}.csv`);
  const recorder = await createTraceRecorder({ file });
  const proxy = createRecordingProxy(new ServerAddress(engineUrl), recorder);
  await post(await listen(proxy));
  const { reasons } = await recorder.close();
  proxy.closeAllConnections();
  proxy.close();
  const [reason] = Object.keys(reasons);
  if (reason !== undefined) return { tokens: undefined, verdict: reason };
  for await (const { outputTokens } of readTrace(file)) {
    return { tokens: outputTokens, verdict: COMPLETION };
  }
  return { tokens: undefined, verdict: "nothing" };
}

const registry = new Registry();
const controller = createController({ plan: false });
await controller.start();
const gateway = new Gateway({
  ...{ holdMax: 512, holdBytes: 64 << 20, holdSeconds: 20, firstByteSeconds: 20 },
  ...{ engines: new Map([["a", new ServerAddress(engineUrl)]]), controller, registry },
});
const gatewayUrl = await listen(gateway.server);

async function byGateway(): Promise<Seen> {
  registry.resetMetrics();
  await post(gatewayUrl);
  for (let poll = 0; poll < POLLS_MAX; poll++) {
    const ends = await samplesOf("gateway_answers_total");
    const end = ends.find(({ value }) => value > 0);
    if (end === undefined) {
      await sleep(POLL_MS);
      continue;
    }
    const [tokens] = await samplesOf("gateway_output_tokens_total");
    const first = await samplesOf("gateway_first_token_seconds");
    const sum = (suffix: string): number =>
      first.find(({ metricName }) => metricName?.endsWith(suffix))?.value ?? 0;
    return {
      // Its clock starts with the request, which it has before the engine is asked.
      firstAtMs: sum("_count") === 0 ? undefined : paced.askedAtMs + sum("_sum") * 1000,
      tokens: tokens?.value,
      verdict: String(end.labels.end),
    };
  }
  return { firstAtMs: undefined, tokens: undefined, verdict: "nothing" };
}

interface MetricSample {
  readonly value: number;
  readonly labels: { readonly end?: string };
  readonly metricName?: string;
}

async function samplesOf(name: string): Promise<readonly MetricSample[]> {
  const metric = await registry.getSingleMetric(name)?.get();
  return (metric?.values ?? []) as readonly MetricSample[];
}

/** All before the piece with the first content had arrived when that piece was sent. */
function isFirstRight(shape: Shape, firstAtMs: number | undefined): boolean {
  if (shape.want.first === undefined) return firstAtMs === undefined;
  return firstAtMs !== undefined && firstAtMs >= paced.firstSentAtMs;
}

interface Judged {
  readonly seen: Omit<Seen, "firstAtMs">;
  readonly right: boolean;
}

function judge(shape: Shape, seen: Omit<Seen, "firstAtMs">, first: boolean): Judged {
  const { failure, content, output = content } = shape.want;
  const verdict = failure ?? COMPLETION;
  // What failed has no count that anybody reports.
  const counted = failure !== undefined || seen.tokens === output;
  const { tokens, verdict: got } = seen;
  return { seen: { tokens, verdict: got }, right: first && counted && got === verdict };
}

const rows: object[] = [];
const right = { bench: 0, record: 0, gateway: 0 };
for (const shape of SHAPES) {
  paced.next(shape);
  const own = await byBench();
  const bench = judge(shape, own, isFirstRight(shape, own.firstAtMs));
  paced.next(shape);
  const record = judge(shape, await byRecord(), true);
  paced.next(shape);
  const passed = await byGateway();
  const passing = judge(shape, passed, isFirstRight(shape, passed.firstAtMs));
  right.bench += Number(bench.right);
  right.record += Number(record.right);
  right.gateway += Number(passing.right);
  rows.push({ name: shape.name, from: shape.from, bench, record, gateway: passing });
}
await gateway.close(0);
await controller.close();
paced.close();
engine.closeAllConnections();
engine.close();
await rm(folder, { recursive: true });
const result = {
  what: "stream shapes whose first token, count and verdict are right, by reader",
  shapes: SHAPES.length,
  right,
  rows,
};
console.log(`${SHAPES.length} shapes: ${JSON.stringify(right)} right`);
writeResult(new URL("results/stream-shapes.json.gz", import.meta.url), result);
process.exitCode = Object.values(right).every((count) => count === SHAPES.length) ? 0 : 1;
