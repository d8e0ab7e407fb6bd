/** Loads that several benches share: the shipped trace, windows of it, and gamma arrivals. */

import { gammaRequests } from "../../src/bench/gamma.ts";
import { readTrace, type TraceRequest } from "../../src/trace/trace.ts";
import type { Load } from "./added.ts";

const TRACE = "azure-llm-2023-conversation";

export const conversation = (speed: number, seconds?: number): Load => ({
  name: `conversation, speed ${speed}${seconds === undefined ? "" : `, first ${seconds} s`}`,
  requests: () => readTrace(TRACE, { speed, ...(seconds === undefined ? {} : { seconds }) }),
});

/** Five minutes from the middle of the trace. */
export const window = (speed: number, fromSeconds: number): Load => ({
  name: `conversation, speed ${speed}, 300 s from ${fromSeconds}`,
  requests: () => cut(readTrace(TRACE, { speed, seconds: fromSeconds + 300 }), fromSeconds),
});

async function* cut(
  requests: AsyncIterable<TraceRequest>,
  fromSeconds: number,
): AsyncGenerator<TraceRequest, void, void> {
  for await (const request of requests) {
    if (request.atSeconds < fromSeconds) continue;
    yield { ...request, atSeconds: request.atSeconds - fromSeconds };
  }
}

export const gamma = (rate: number, cv: number, seed = 7, seconds = 300): Load => ({
  name: `gamma, ${rate} a second, cv ${cv}, ${seconds} s, seed ${seed}`,
  requests: () => gammaRequests({ rate, cv, seconds, seed }),
});

/** Three rates at three coefficients of variation. */
export const gammas = (seed: number, seconds: number): Load[] =>
  [0.5, 2.5, 8].flatMap((rate) => [0.5, 1, 3].map((cv) => gamma(rate, cv, seed, seconds)));
