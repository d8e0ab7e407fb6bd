/**
 * A pass-through in front of an OpenAI-compatible server that records its traffic. Bytes pass
 * unchanged both ways as they come; a client that leaves ends its request upstream.
 */

import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from "node:http";
import { pipeline } from "node:stream";
import type { Dispatcher } from "undici";
import type { ErrorCode } from "../base/errors.ts";
import { publishProblem } from "../engine/events.ts";
import { isGenerating } from "../measure/generating.ts";
import { connectionFailure, httpClient, isClosedConnection } from "../measure/http-client.ts";
import type { ServerAddress } from "../measure/server-address.ts";
import { type RequestBody, takeBody } from "./body.ts";
import type { TraceRecorder } from "./recorder.ts";
import type { RecordedRequest } from "./request.ts";

const UPSTREAM: ErrorCode = "ERR_LAZYGRAPH_UPSTREAM";
const CONNECTIONS_MAX = 8192;
const HEADERS_TIMEOUT_MS = 60_000;
/** Of one connection, and not of the message: RFC 9110, 7.6.1. */
const HOP_BY_HOP: ReadonlySet<string> = new Set([
  "connection",
  "keep-alive",
  "proxy-authenticate",
  "proxy-authorization",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
]);
/** Of the way here: Node has answered it already. */
const OF_THE_WAY: ReadonlySet<string> = new Set([...HOP_BY_HOP, "host", "expect"]);

/** @param upstream with the key that is sent where a client brings none */
export function createRecordingProxy(upstream: ServerAddress, recorder: TraceRecorder): Server {
  let told = false;
  /** Once: a server that is away would fill a log, and the counts tell the rest. */
  const tell = (message: string): void => {
    if (told) return;
    told = true;
    publishProblem("", UPSTREAM, message);
  };
  const server = createServer((incoming, response) => {
    void relay(incoming, response, upstream, recorder).then((fault) => {
      if (fault !== undefined) tell(fault);
    });
  });
  server.headersTimeout = HEADERS_TIMEOUT_MS;
  server.requestTimeout = 0;
  server.maxConnections = CONNECTIONS_MAX;
  return server;
}

/** @returns what is to be said of the upstream, if it failed */
async function relay(
  incoming: IncomingMessage,
  response: ServerResponse,
  upstream: ServerAddress,
  recorder: TraceRecorder,
): Promise<string | undefined> {
  const { method = "GET", url = "/" } = incoming;
  const generating = isGenerating(method, url);
  const recorded = generating ? recorder.arrived() : undefined;
  if (!generating) recorder.passed();
  const gone = new AbortController();
  response.on("close", () => {
    if (response.writableFinished) return;
    recorded?.left();
    gone.abort();
  });
  incoming.on("data", (chunk: Buffer) => recorded?.body(chunk.length));
  try {
    const body = await takeBody(incoming);
    const answer = await ask(incoming, upstream, body, gone.signal);
    passBack(answer, response, recorded);
    return undefined;
  } catch (error) {
    recorded?.drop();
    // Whoever left has ended the request; that is no fault of the server's.
    return response.destroyed ? undefined : refuse(response, upstream, error);
  }
}

async function ask(
  { method = "GET", url = "/", headers }: IncomingMessage,
  upstream: ServerAddress,
  body: RequestBody,
  signal: AbortSignal,
): Promise<Dispatcher.ResponseData> {
  const request: Dispatcher.RequestOptions = {
    origin: upstream.origin,
    path: upstream.path(url),
    method,
    // What the client brings beats what the command was given.
    headers: { ...upstream.headers, ...passed(headers, OF_THE_WAY) },
    body: body.whole ?? body.stream ?? null,
    signal,
  };
  try {
    return await httpClient().request(request);
  } catch (error) {
    // A server may close an idle connection just as a request goes out; a stream is gone by then.
    if (body.stream !== undefined || !isClosedConnection(error) || signal.aborted) throw error;
    return httpClient().request(request);
  }
}

function passed(headers: IncomingHttpHeaders, dropped: ReadonlySet<string>): IncomingHttpHeaders {
  const named = new Set(headers.connection?.toLowerCase().split(/\s*,\s*/));
  const kept = Object.entries(headers).filter(([name]) => !dropped.has(name) && !named.has(name));
  return Object.fromEntries(kept);
}

function passBack(
  { statusCode, statusText, headers, body }: Dispatcher.ResponseData,
  response: ServerResponse,
  recorded: RecordedRequest | undefined,
): void {
  recorded?.answer({ status: statusCode, headers });
  body.on("data", (chunk: Buffer) => recorded?.chunk(chunk));
  response.writeHead(statusCode, statusText, passed(headers, HOP_BY_HOP));
  // The first byte of a stream may come long after its head.
  response.flushHeaders();
  pipeline(body, response, (error) => {
    recorded?.end(error === null || error === undefined ? undefined : connectionFailure(error));
  });
}

/** @returns the sentence that the client was told, or would have been */
function refuse(response: ServerResponse, upstream: ServerAddress, error: unknown): string {
  const why = upstream.hide(connectionFailure(error));
  const message = `Expected an answer from ${upstream.shown}, got ${why}.`;
  if (response.headersSent) {
    response.destroy();
    return message;
  }
  response.writeHead(502, { "content-type": "application/json" });
  response.end(JSON.stringify({ error: { message, type: "upstream_error", code: UPSTREAM } }));
  return message;
}
