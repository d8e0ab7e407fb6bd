/** Every shape through the benchmark's own client, over a socket. */

import diagnostics from "node:diagnostics_channel";
import { once } from "node:events";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { beforeAll, describe, expect, test } from "vitest";
import { streamRequest } from "../../src/bench/stream.ts";
import { ServerAddress } from "../../src/measure/server-address.ts";
import { SHAPES, type Shape } from "./shapes.ts";

let url: URL;
let shape: Shape;
/** When the piece with the first content was sent: all before it had arrived by then. */
let firstSentAtMs: number;
const received = { bytes: 0, changed: () => {} };

/** undici tells of every piece of a body that it has handed on. */
const CHANNEL = "undici:request:bodyChunkReceived";

function onPiece(message: unknown): void {
  received.bytes += (message as { chunk: Uint8Array }).chunk.length;
  received.changed();
}

async function until(bytes: number): Promise<void> {
  while (received.bytes < bytes) {
    await new Promise<void>((resolve) => {
      received.changed = resolve;
    });
  }
}

async function answer(response: ServerResponse): Promise<void> {
  const { pieces, contentType = "text/event-stream", contentEncoding, cut, want } = shape;
  const encoding = contentEncoding === undefined ? {} : { "content-encoding": contentEncoding };
  response.writeHead(200, { "content-type": contentType, ...encoding });
  let sent = 0;
  for (const [index, piece] of pieces.entries()) {
    if (index === want.first) firstSentAtMs = performance.now();
    const bytes = Buffer.from(piece);
    sent += bytes.length;
    response.write(bytes);
    // A client that has seen enough hangs up: nobody waits for it then.
    await Promise.race([until(sent), once(response, "close")]);
  }
  if (cut === true) response.destroy();
  else response.end();
}

beforeAll(async () => {
  const server = createServer((request, response) => {
    request.resume().on("end", () => void answer(response));
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  url = new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  diagnostics.subscribe(CHANNEL, onPiece);
  return () => {
    diagnostics.unsubscribe(CHANNEL, onPiece);
    server.closeAllConnections();
    server.close();
  };
});

describe("bench", () => {
  test.for(SHAPES)("$name", async (wanted) => {
    shape = wanted;
    received.bytes = 0;
    firstSentAtMs = Number.POSITIVE_INFINITY;
    const outcome = await streamRequest({
      server: new ServerAddress(url),
      endpoint: "completions",
      model: "m",
      prompt: "p",
      maxTokens: 2,
      ignoreEos: true,
      timeoutMs: 60_000,
    });
    const { first, content, prompt, output, failure } = wanted.want;
    expect(outcome.failure?.kind).toBe(failure);
    expect(outcome.tokensAtMs).toHaveLength(content);
    if (first !== undefined) expect(outcome.tokensAtMs[0]).toBeGreaterThanOrEqual(firstSentAtMs);
    if (failure === undefined) {
      expect(outcome).toMatchObject({ promptTokens: prompt, outputTokens: output });
    }
  });
});
