/** Every shape through the example gateway: passed on, and counted as what it is. */

import { createServer } from "node:http";
import { Registry } from "prom-client";
import { beforeAll, describe, expect, test } from "vitest";
import { Gateway } from "../../examples/gateway/src/gateway.ts";
import { ServerAddress } from "../../src/measure/server-address.ts";
import { startController } from "../helpers/joined.ts";
import { listen } from "../helpers/listen.ts";
import { PacedShape } from "./paced.ts";
import { SHAPES } from "./shapes.ts";

const registry = new Registry();
const paced = new PacedShape();
let url: URL;

beforeAll(async () => {
  const engine = createServer((request, response) => {
    if (request.url === "/health") response.end();
    else paced.listener(request, response);
  });
  const engines = new Map([["a", new ServerAddress(await listen(engine))]]);
  const controller = await startController({ plan: false });
  const limits = { holdMax: 512, holdBytes: 64 << 20, holdSeconds: 100, firstByteSeconds: 100 };
  const gateway = new Gateway({ ...limits, engines, controller, registry });
  url = await listen(gateway.server);
  return async () => {
    await gateway.close(0);
    await controller.close();
    paced.close();
    engine.closeAllConnections();
    engine.close();
  };
});

/** The sum of a metric's samples of a name, by their label `end` where they have one. */
async function valuesOf(name: string, sample = name): Promise<Record<string, number>> {
  const metric = await registry.getSingleMetric(name)?.get();
  const values: readonly { value: number; labels: object; metricName?: string }[] =
    metric?.values ?? [];
  return Object.fromEntries(
    values
      .filter(({ metricName = name }) => metricName === sample)
      .map(({ labels, value }) => ["end" in labels ? String(labels.end) : "all", value]),
  );
}

describe("gateway", () => {
  test.for(SHAPES)("$name", async (shape) => {
    registry.resetMetrics();
    paced.next(shape);
    const post = { method: "POST", body: "{}" };
    const startedAtMs = performance.now();
    const call = await fetch(new URL("/v1/chat/completions", url), post);
    const bytes = await call.arrayBuffer().catch(() => undefined);
    const { first, content, output = content, failure } = shape.want;
    // Compressed bytes are unpacked by this client, but for zstd, which it doesn't know.
    if (shape.contentEncoding === undefined && shape.cut === undefined) {
      const sent = Buffer.concat(shape.pieces.map((piece) => Buffer.from(piece as string)));
      expect(Buffer.from(bytes ?? new ArrayBuffer(0)).equals(sent)).toBe(true);
    }
    const end = failure ?? "completion";
    await expect.poll(() => valuesOf("gateway_answers_total")).toEqual({ [end]: 1 });
    const tokens = await valuesOf("gateway_output_tokens_total");
    expect(tokens).toEqual(failure === undefined ? { all: output } : {});
    const histogram = "gateway_first_token_seconds";
    const { all: count = 0 } = await valuesOf(histogram, `${histogram}_count`);
    expect(count).toBe(first === undefined ? 0 : 1);
    if (first === undefined) return;
    const { all: seconds = 0 } = await valuesOf(histogram, `${histogram}_sum`);
    // Counted from the request's arrival, which was between the two, to the piece with content.
    expect(seconds * 1000).toBeGreaterThanOrEqual(paced.firstSentAtMs - paced.askedAtMs);
    expect(seconds * 1000).toBeLessThanOrEqual(performance.now() - startedAtMs);
  });
});
