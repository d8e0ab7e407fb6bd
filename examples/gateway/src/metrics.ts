/** The gateway's own metrics: an answer of status 200 may be no completion all the same. */

import type { Answer } from "lazygraph/measure";
import { Counter, Gauge, Histogram, type Registry } from "prom-client";

/** From a cached prompt on a small model to a long one behind a queue. */
const SECONDS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];

export class GatewayMetrics {
  readonly #requests: Counter;
  readonly #ends: Counter;
  readonly #tokens: Counter;
  readonly #firstToken: Histogram;

  constructor(registry: Registry, room: { readonly size: number }) {
    const common = { labelNames: ["engine"], registers: [registry] };
    this.#requests = new Counter({
      ...common,
      name: "gateway_requests_total",
      help: "Requests to engines by how they ended.",
      labelNames: ["engine", "outcome"],
    });
    new Gauge({
      name: "gateway_held_requests",
      help: "Requests that wait for an engine to be ready.",
      registers: [registry],
      collect() {
        this.set(room.size);
      },
    });
    this.#ends = new Counter({
      ...common,
      name: "gateway_answers_total",
      help: "Answers by how they ended: completion, or what was wrong with them.",
      labelNames: ["engine", "end"],
    });
    this.#tokens = new Counter({
      ...common,
      name: "gateway_output_tokens_total",
      help: "Tokens of completions, as the engines told them, else events with content.",
    });
    this.#firstToken = new Histogram({
      ...common,
      name: "gateway_first_token_seconds",
      help: "From a request's arrival to the first content of its answer.",
      buckets: SECONDS,
    });
  }

  request(engine: string, outcome: string): void {
    this.#requests.inc({ engine, outcome });
  }

  answer(engine: string, answer: Answer, startedAtMs: number): void {
    const { failure, firstContentAtMs, outputTokens, contentEvents } = answer;
    this.#ends.inc({ engine, end: failure?.kind ?? "completion" });
    if (failure === undefined) this.#tokens.inc({ engine }, outputTokens ?? contentEvents);
    if (firstContentAtMs === undefined) return;
    this.#firstToken.observe({ engine }, (firstContentAtMs - startedAtMs) / 1000);
  }
}
