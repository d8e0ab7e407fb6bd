/** Every shape through the benchmark's own client, over a socket. */

import { createServer } from "node:http";
import { beforeAll, describe, expect, test } from "vitest";
import { streamRequest } from "../../src/bench/stream.ts";
import { ServerAddress } from "../../src/measure/server-address.ts";
import { listen } from "../helpers/listen.ts";
import { PacedShape } from "./paced.ts";
import { SHAPES } from "./shapes.ts";

const paced = new PacedShape();
let server: ServerAddress;

beforeAll(async () => {
  const upstream = createServer(paced.listener);
  server = new ServerAddress(await listen(upstream));
  return () => {
    paced.close();
    upstream.closeAllConnections();
    upstream.close();
  };
});

describe("bench", () => {
  test.for(SHAPES)("$name", async (shape) => {
    paced.next(shape);
    const outcome = await streamRequest({
      server,
      endpoint: "completions",
      model: "m",
      prompt: "p",
      maxTokens: 2,
      ignoreEos: true,
      timeoutMs: 60_000,
    });
    const { first, content, prompt, output, failure } = shape.want;
    expect(outcome.failure?.kind).toBe(failure);
    expect(outcome.tokensAtMs).toHaveLength(content);
    const firstSentAtMs = first === undefined ? undefined : paced.firstSentAtMs;
    if (firstSentAtMs !== undefined) {
      expect(outcome.tokensAtMs[0]).toBeGreaterThanOrEqual(firstSentAtMs);
    }
    if (failure === undefined) {
      expect(outcome).toMatchObject({ promptTokens: prompt, outputTokens: output });
    }
  });
});
