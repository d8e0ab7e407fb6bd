/** Answers of the HTTP side, errors included: what they are, and how they are sent. */

import type { ServerResponse } from "node:http";
import { codeOf, messageOf } from "../base/errors.ts";

/** An answer that isn't the expected one; `status` is HTTP's. */
export class HttpError extends Error {
  override readonly name = "HttpError";
  readonly status: number;
  readonly code: string;
  readonly allow: string | undefined;

  constructor(status: number, code: string, message: string, allow?: string) {
    super(message);
    this.status = status;
    this.code = code;
    this.allow = allow;
  }
}

/** JSON with another status than 200. */
export class StatusAnswer {
  readonly status: number;
  readonly body: unknown;
  readonly retryAfterSeconds: number;

  constructor(status: number, body: unknown, retryAfterSeconds: number) {
    this.status = status;
    this.body = body;
    this.retryAfterSeconds = retryAfterSeconds;
  }
}

/** An answer that is text already, of whatever type. */
export class TextAnswer {
  readonly contentType: string;
  readonly text: string;

  constructor(contentType: string, text: string) {
    this.contentType = contentType;
    this.text = text;
  }
}

/** As any other answer is sent. */
export function jsonAnswer(body: unknown): TextAnswer {
  return new TextAnswer("application/json; charset=utf-8", `${JSON.stringify(body)}\n`);
}

export function sendAnswer(response: ServerResponse, body: unknown): void {
  const other = body instanceof StatusAnswer ? body : undefined;
  if (other !== undefined) response.setHeader("retry-after", other.retryAfterSeconds);
  send(response, other?.status ?? 200, other === undefined ? body : other.body);
}

function send(response: ServerResponse, status: number, body: unknown): void {
  const { contentType, text } = body instanceof TextAnswer ? body : jsonAnswer(body);
  response.writeHead(status, {
    "content-type": contentType,
    "content-length": Buffer.byteLength(text),
    "cache-control": "no-store",
  });
  response.end(text);
}

export function sendError(response: ServerResponse, error: unknown): void {
  const http = error instanceof HttpError ? error : undefined;
  const status = http?.status ?? STATUSES.get(codeOf(error)) ?? 500;
  if (http?.allow !== undefined) response.setHeader("allow", http.allow);
  // The rest of a body that is too large isn't read: the connection ends with the answer.
  // As does one of a request that was refused before its body was read.
  if (status === 413 || status === 401) response.setHeader("connection", "close");
  if (status === 401) response.setHeader("www-authenticate", "Bearer");
  const code = codeOf(error) ?? "ERR_HTTP_INTERNAL";
  const message = messageOf(error);
  send(response, status, { error: { code, message } });
}

/** Errors of the controller itself: the engine is away or takes too long, or there is no place. */
const STATUSES: ReadonlyMap<unknown, number> = new Map([
  ["ERR_LAZYGRAPH_OPTION", 400],
  ["ERR_LAZYGRAPH_ENGINE_UNKNOWN", 404],
  ["ERR_LAZYGRAPH_ENGINE_LOST", 409],
  ["ERR_LAZYGRAPH_ENGINE_SLEEP", 409],
  ["ERR_LAZYGRAPH_BUSY", 503],
  ["ERR_LAZYGRAPH_CLOSED", 503],
  ["ERR_LAZYGRAPH_ENGINE_TIMEOUT", 504],
]);
