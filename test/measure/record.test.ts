/** Every shape through the recording proxy: passed on as it is, and counted right. */

import { createServer, request as httpRequest } from "node:http";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { ServerAddress } from "../../src/measure/server-address.ts";
import { createRecordingProxy } from "../../src/record/proxy.ts";
import { createTraceRecorder } from "../../src/record/recorder.ts";
import { readTrace } from "../../src/trace/trace.ts";
import { temporaryFolder } from "../helpers/folder.ts";
import { listen } from "../helpers/listen.ts";
import { listening } from "../helpers/listening.ts";
import type { Shape } from "./shape.ts";
import { SHAPES } from "./shapes.ts";

let upstream: URL;
let shape: Shape;

beforeAll(async () => {
  const server = createServer((request, response) => {
    request.resume().on("end", async () => {
      const { pieces, contentType = "text/event-stream", contentEncoding, cut } = shape;
      const encoding = contentEncoding === undefined ? {} : { "content-encoding": contentEncoding };
      response.writeHead(200, { "content-type": contentType, ...encoding });
      for (const piece of pieces) {
        await new Promise<unknown>((resolve) => response.write(piece, resolve));
      }
      if (cut === true) response.destroy();
      else response.end();
    });
  });
  upstream = await listen(server);
  return () => {
    server.closeAllConnections();
    server.close();
  };
});

/** What came of an answer until it ended or broke off. */
function post(url: URL, body: string): Promise<{ bytes: Buffer; whole: boolean }> {
  return new Promise((resolve, reject) => {
    const call = httpRequest(url, { method: "POST" }, (response) => {
      const parts: Buffer[] = [];
      response.on("data", (part: Buffer) => parts.push(part));
      response.on("error", () => {});
      response.on("close", () =>
        resolve({ bytes: Buffer.concat(parts), whole: response.complete }),
      );
    });
    call.on("error", reject);
    call.end(body);
  });
}

describe("record", () => {
  test.for(SHAPES)("$name", async (wanted) => {
    shape = wanted;
    const file = join(await temporaryFolder(), "trace.csv");
    const recorder = await createTraceRecorder({ file });
    const proxy = createRecordingProxy(new ServerAddress(upstream), recorder);
    const url = new URL(await listening(proxy));
    const { bytes, whole } = await post(new URL("/v1/chat/completions/", url), "x".repeat(40));
    if (wanted.cut !== true) expect(bytes).toEqual(Buffer.concat(wanted.pieces.map(Buffer.from)));
    expect(whole).toBe(wanted.cut !== true);
    const counts = await recorder.close();
    const { failure, content, prompt = 10, output = content } = wanted.want;
    // Who records doesn't know what was asked for: an end without usage may be whole.
    expect(counts).toMatchObject(
      failure === undefined
        ? { recorded: 1, unanswered: 0, reasons: {} }
        : { recorded: 0, unanswered: 1, reasons: { [failure]: 1 } },
    );
    if (failure !== undefined) return;
    const rows: object[] = [];
    for await (const row of readTrace(file)) rows.push(row);
    expect(rows).toMatchObject([{ promptTokens: prompt, outputTokens: output }]);
  });
});
