/** Bodies of requests: read within a limit, and checked. */

import type { IncomingMessage } from "node:http";
import * as v from "valibot";
import type { Schema } from "../base/schema.ts";
import { shownWhole } from "../base/shown.ts";
import { HttpError } from "./answer.ts";

/** Room for the longest reason, each of its characters written as `\uXXXX`. */
const BODY_BYTES_MAX = 16_384;

/** The body as JSON; undefined when there is none. Bounded before it is held in memory. */
export async function readJson(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > BODY_BYTES_MAX) {
      throw new HttpError(
        413,
        "ERR_HTTP_BODY",
        `Expected a body of at most ${BODY_BYTES_MAX} bytes, got more.`,
      );
    }
    chunks.push(chunk);
  }
  if (bytes === 0) return undefined;
  const text = Buffer.concat(chunks).toString("utf8");
  try {
    return JSON.parse(text);
  } catch {
    throw new HttpError(400, "ERR_HTTP_BODY", `Expected a JSON body, got ${shownWhole(text)}.`);
  }
}

/** A field that nobody reads would be taken for one that works. */
export function bodyBy<T>(schema: Schema<T>, body: unknown, expected: string): T {
  const result = v.safeParse(schema, body);
  if (result.success) return result.output;
  throw new HttpError(400, "ERR_HTTP_BODY", `Expected ${expected}, got ${shownWhole(body)}.`);
}
