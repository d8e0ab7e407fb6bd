/** The load of a parity cell: Poisson arrivals against one server, each request recorded. */

import { type Due, recordOf, runOpenLoop } from "../../../src/bench/driver.ts";
import { type ScheduledRequest, scheduleOf } from "../../../src/bench/load.ts";
import type { RequestRecord } from "../../../src/bench/samples.ts";
import { streamRequest } from "../../../src/bench/stream.ts";
import { ServerAddress } from "../../../src/measure/server-address.ts";
import { promptIds } from "./decode.ts";

export interface ParityLoad {
  readonly url: URL;
  readonly model: string;
  readonly rate: number;
  readonly seconds: number;
  readonly seed: number;
  /** Milliseconds of `performance.now()`: the schedule's second 0, and the origin of records. */
  readonly startsAtMs: number;
  readonly originMs: number;
  /** When the server answers; what is due before waits for it, as at a gateway. */
  readonly ready: Promise<number>;
  readonly signal: AbortSignal;
}

const INPUT_TOKENS = 256;
const OUTPUT_TOKENS = 128;
const REQUEST_MS_MAX = 120_000;

export async function runParityLoad(load: ParityLoad): Promise<RequestRecord[]> {
  const schedule = await scheduleOf({
    arrivals: "poisson",
    requestRate: load.rate,
    seconds: load.seconds,
    inputLen: INPUT_TOKENS,
    outputLen: OUTPUT_TOKENS,
    seed: load.seed,
  });
  const records: RequestRecord[] = [];
  const send = async ({ atMs, index }: Due): Promise<void> => {
    await load.ready;
    const { promptTokens, outputTokens } = schedule[index] as ScheduledRequest;
    const { url, model, signal } = load;
    const outcome = await streamRequest({
      ...{
        server: new ServerAddress(url),
        model,
        signal,
        endpoint: "completions",
        ignoreEos: true,
      },
      prompt: promptIds(promptTokens, load.seed * 10_000 + index),
      maxTokens: outputTokens,
      timeoutMs: REQUEST_MS_MAX,
    });
    const sent = { index, warmUp: false, dueAtMs: atMs, promptTokens, outputTokens };
    records.push(recordOf(sent, outcome, load.originMs));
  };
  const dues = schedule.map(({ atSeconds }, index) => {
    return { atMs: load.startsAtMs + atSeconds * 1000, index };
  });
  await runOpenLoop({ dues, send, signal: load.signal });
  return records.sort((a, b) => a.index - b.index);
}
