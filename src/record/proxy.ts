/**
 * A pass-through in front of an OpenAI-compatible server that records its traffic. Bytes pass
 * unchanged both ways as they come; a client that leaves ends its request upstream.
 */

import {
  createServer,
  Agent as HttpAgent,
  type IncomingHttpHeaders,
  type IncomingMessage,
  request as requestHttp,
  type Server,
  type ServerResponse,
} from "node:http";
import { Agent as HttpsAgent, request as requestHttps } from "node:https";
import { pipeline } from "node:stream";
import { codeOf, type ErrorCode } from "../errors.ts";
import { publishProblem } from "../events.ts";
import type { RecordedRequest, TraceRecorder } from "./recorder.ts";

/** Requests that make the engine generate; everything else passes unrecorded. */
const RECORDED = /^\/v1\/(chat\/)?completions$/;
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

/** @param upstream `http:` or `https:`; its path comes before that of each request */
export function createRecordingProxy(upstream: URL, recorder: TraceRecorder): Server {
  const secure = upstream.protocol === "https:";
  const options = { keepAlive: true, maxSockets: CONNECTIONS_MAX };
  const agent = secure ? new HttpsAgent(options) : new HttpAgent(options);
  const send = secure ? requestHttps : requestHttp;
  let told = false;
  /** Once: a server that is away would fill a log, and the counts tell the rest. */
  const tell = (message: string): void => {
    if (told) return;
    told = true;
    publishProblem("", UPSTREAM, message);
  };
  const server = createServer((incoming, response) => {
    const recorded = isRecorded(incoming) ? recorder.arrived() : undefined;
    const outgoing = send(target(upstream, incoming.url ?? "/"), {
      agent,
      method: incoming.method,
      headers: passed(incoming.headers, upstream.host),
    });
    outgoing.on("response", (answer) => passBack(answer, response, recorded));
    outgoing.on("error", (error) => {
      recorded?.drop();
      // Whoever left has ended the request; that is no fault of the server's.
      if (!response.destroyed) tell(refuse(response, upstream, error));
    });
    response.on("close", () => {
      // Whoever left early had what came until then.
      recorded?.end();
      if (!response.writableFinished) outgoing.destroy();
    });
    incoming.on("data", (chunk: Buffer) => recorded?.body(chunk.length));
    // Errors of either side are told by the handlers above.
    pipeline(incoming, outgoing, () => {});
  });
  server.headersTimeout = HEADERS_TIMEOUT_MS;
  server.requestTimeout = 0;
  server.maxConnections = CONNECTIONS_MAX;
  server.on("close", () => agent.destroy());
  return server;
}

function isRecorded({ method, url = "/" }: IncomingMessage): boolean {
  return method === "POST" && RECORDED.test(url.split("?", 1)[0] ?? "");
}

/** `/v1` of a base URL that ends in it is not doubled: clients are given either form. */
function target(upstream: URL, path: string): URL {
  const base = upstream.pathname.replace(/\/$/, "");
  const rest = base.endsWith("/v1") && path.startsWith("/v1/") ? path.slice(3) : path;
  return new URL(`${upstream.origin}${base}${rest}`);
}

function passed(headers: IncomingHttpHeaders, host?: string): IncomingHttpHeaders {
  const named = new Set(headers.connection?.toLowerCase().split(/\s*,\s*/));
  const kept = Object.entries(headers).filter(
    ([name]) => !HOP_BY_HOP.has(name) && !named.has(name),
  );
  // A body of unknown length stays one: Node chunks it again.
  return { ...Object.fromEntries(kept), ...(host === undefined ? {} : { host }) };
}

function passBack(
  answer: IncomingMessage,
  response: ServerResponse,
  recorded: RecordedRequest | undefined,
): void {
  const { statusCode = 502, statusMessage = "" } = answer;
  if (statusCode !== 200) recorded?.drop();
  answer.on("data", (chunk: Buffer) => recorded?.chunk(chunk));
  response.writeHead(statusCode, statusMessage, passed(answer.headers));
  // The first byte of a stream may come long after its head.
  response.flushHeaders();
  pipeline(answer, response, () => {});
}

/** @returns the sentence that the client was told, or would have been */
function refuse(response: ServerResponse, upstream: URL, error: Error): string {
  const why = codeOf(error) ?? error.message;
  const message = `Expected an answer from ${upstream.origin}, got ${why}.`;
  if (response.headersSent) {
    response.destroy();
    return message;
  }
  response.writeHead(502, { "content-type": "application/json" });
  response.end(JSON.stringify({ error: { message, type: "upstream_error", code: UPSTREAM } }));
  return message;
}
