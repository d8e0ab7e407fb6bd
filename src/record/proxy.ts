/**
 * A pass-through in front of an OpenAI-compatible server that records its traffic. Bytes pass
 * unchanged both ways as they come; a client that leaves ends its request upstream. Requests get a
 * `Via`, as RFC 9110, 7.6.3 asks of a gateway, by which one that comes back is known.
 */

import { randomBytes } from "node:crypto";
import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  request as requestPlain,
  type Server,
  type ServerResponse,
} from "node:http";
import { request as requestSecure } from "node:https";
import { pipeline, type Readable } from "node:stream";
import type { Dispatcher } from "undici";
import type { ErrorCode } from "../base/errors.ts";
import { shownWhole } from "../base/shown.ts";
import { publishProblem } from "../engine/events.ts";
import { isGenerating } from "../measure/generating.ts";
import { connectionFailure, httpClient, isClosedConnection } from "../measure/http-client.ts";
import type { ServerAddress } from "../measure/server-address.ts";
import { type RequestBody, takeBody } from "./body.ts";
import type { TraceRecorder } from "./recorder.ts";
import type { RecordedRequest } from "./request.ts";
import { targetOf, WHOLE_SERVER } from "./target.ts";

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

interface Refusal {
  readonly status: number;
  readonly code: string;
  readonly message: string;
}

/** `Dispatcher.ResponseData`, or as much of it as Node's own client tells. */
interface Answer {
  readonly statusCode: number;
  readonly statusText: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: Readable;
}

type FaultKind = "no_answer" | "broken_off" | "loop";

interface Way {
  readonly upstream: ServerAddress;
  /** This proxy and no other one, in `Via`. */
  readonly pseudonym: string;
  readonly recorder: TraceRecorder;
  /** A fault of the server's. */
  tell(kind: FaultKind, message: string): void;
}

/** @param upstream with the key that is sent where a client brings none */
export function createRecordingProxy(upstream: ServerAddress, recorder: TraceRecorder): Server {
  const told = new Set<FaultKind>();
  const way: Way = {
    upstream,
    pseudonym: `lazygraph-${randomBytes(8).toString("hex")}`,
    recorder,
    /** Once each: a server that is away would fill a log, and the counts tell the rest. */
    tell(kind, message) {
      if (told.has(kind)) return;
      told.add(kind);
      publishProblem("", UPSTREAM, message);
    },
  };
  const server = createServer((incoming, response) => void relay(incoming, response, way));
  // Without a listener Node cuts the connection.
  server.on("connect", (_, socket) => {
    socket.on("error", () => socket.destroy());
    const body = bodyOf(noMethod("CONNECT"));
    const head = ["HTTP/1.1 501 Not Implemented", "Content-Type: application/json"];
    const rest = [`Content-Length: ${Buffer.byteLength(body)}`, "Connection: close", "", body];
    socket.end([...head, ...rest].join("\r\n"));
  });
  server.headersTimeout = HEADERS_TIMEOUT_MS;
  server.requestTimeout = 0;
  server.maxConnections = CONNECTIONS_MAX;
  return server;
}

async function relay(incoming: IncomingMessage, response: ServerResponse, way: Way): Promise<void> {
  const { upstream, recorder } = way;
  const { method = "GET", url = "/", headers } = incoming;
  const target = targetOf(method, url);
  const refusal = refusalOf(method, headers) ?? loopOf(headers, way);
  if (target === undefined || refusal !== undefined) {
    recorder.passed();
    tellClient(response, refusal ?? noTarget(method, url));
    return;
  }
  const generating = isGenerating(method, target);
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
    const own = { ...upstream.headers, ...passed(headers, OF_THE_WAY), via: viaOf(incoming, way) };
    const about = { upstream, headers: own, body, signal: gone.signal };
    const answer = await (target === WHOLE_SERVER
      ? askWholeServer(about)
      : ask(about, method, target, (status, hints) => passHint(incoming, response, status, hints)));
    // Before the answer is passed on: a client that leaves breaks it off as well.
    answer.body.once("error", (error) => {
      if (!response.destroyed) tellBrokenOff(error, way);
    });
    passBack(answer, response, recorded);
  } catch (error) {
    recorded?.drop();
    // Whoever left has ended the request; that is no fault of the server's.
    if (!response.destroyed) refuse(response, way, error);
  }
}

function viaOf({ headers, httpVersion }: IncomingMessage, { pseudonym }: Way): string {
  const before = headers.via === undefined ? "" : `${headers.via}, `;
  return `${before}${httpVersion} ${pseudonym}`;
}

/** A request that has been here already, and would come again and again. */
function loopOf(
  { via }: IncomingHttpHeaders,
  { upstream, pseudonym, tell }: Way,
): Refusal | undefined {
  if (via === undefined || !via.includes(pseudonym)) return undefined;
  const message =
    `Expected another server at ${upstream.shown}, got this recorder's own request back: give the ` +
    "address of the server itself as --upstream.";
  tell("loop", message);
  return { status: 508, code: UPSTREAM, message };
}

function tellBrokenOff(error: unknown, { upstream, tell }: Way): void {
  const why = upstream.hide(connectionFailure(error));
  const message =
    `Expected the whole answer of ${upstream.shown}, got ${why} in the middle of it: clients get ` +
    "as much as came. See the server's log.";
  tell("broken_off", message);
}

/** What can't be passed on, and would be something else if it were passed on in part. */
function refusalOf(method: string, { upgrade }: IncomingHttpHeaders): Refusal | undefined {
  // A server may leave any other protocol alone, but this one is all that its client speaks.
  if (upgrade?.toLowerCase() === "websocket") {
    const message = "Expected a request over HTTP, got a WebSocket: connect to the server itself.";
    return { status: 501, code: "ERR_HTTP_UPGRADE", message };
  }
  // Its answer holds the request, and with it the key that was added here.
  return method === "TRACE" ? noMethod(method) : undefined;
}

function noMethod(method: string): Refusal {
  const message = `Expected a request for an OpenAI API, got the method ${method}.`;
  return { status: 501, code: "ERR_HTTP_METHOD", message };
}

function noTarget(method: string, url: string): Refusal {
  const message = `Expected ${method} with a path such as /v1/models, got ${shownWhole(url)}.`;
  return { status: 400, code: "ERR_HTTP_TARGET", message };
}

interface Asked {
  readonly upstream: ServerAddress;
  /** What the client brings beats what the command was given. */
  readonly headers: IncomingHttpHeaders;
  readonly body: RequestBody;
  readonly signal: AbortSignal;
}

async function ask(
  { upstream, headers, body, signal }: Asked,
  method: string,
  target: string,
  onHint: (status: number, headers: { link?: string | string[] }) => void,
): Promise<Answer> {
  const request: Dispatcher.RequestOptions = {
    origin: upstream.origin,
    path: upstream.path(target),
    method,
    headers,
    body: body.whole ?? body.stream ?? null,
    signal,
    onInfo: (info) => onHint(info.statusCode, info.headers),
  };
  try {
    return await httpClient().request(request);
  } catch (error) {
    // A server may close an idle connection just as a request goes out; a stream is gone by then.
    if (body.stream !== undefined || !isClosedConnection(error) || signal.aborted) throw error;
    return httpClient().request(request);
  }
}

/** By Node's client: undici has no such request. */
function askWholeServer({ upstream, headers, body, signal }: Asked): Promise<Answer> {
  const send = upstream.origin.startsWith("https:") ? requestSecure : requestPlain;
  const options = { method: "OPTIONS", path: WHOLE_SERVER, headers, signal, agent: false } as const;
  return new Promise((resolve, reject) => {
    const request = send(upstream.origin, options, (answer) => {
      const { statusCode = 0, statusMessage = "" } = answer;
      resolve({ statusCode, statusText: statusMessage, headers: answer.headers, body: answer });
    });
    request.on("error", reject);
    if (body.stream === undefined) request.end(body.whole);
    else pipeline(body.stream, request, () => {});
  });
}

/** Answers before the answer: 102 and 103. Clients of HTTP/1.0 know none. */
function passHint(
  { httpVersion }: IncomingMessage,
  response: ServerResponse,
  status: number,
  { link }: { link?: string | string[] },
): void {
  if (httpVersion === "1.0" || response.headersSent) return;
  if (status === 102) response.writeProcessing();
  if (status !== 103 || link === undefined) return;
  try {
    response.writeEarlyHints({ link });
  } catch {
    // Node doesn't write every link that a server may: the answer has all of them.
  }
}

function passed(headers: IncomingHttpHeaders, dropped: ReadonlySet<string>): IncomingHttpHeaders {
  const named = new Set(headers.connection?.toLowerCase().split(/\s*,\s*/));
  const kept = Object.entries(headers).filter(([name]) => !dropped.has(name) && !named.has(name));
  return Object.fromEntries(kept);
}

function passBack(
  { statusCode, statusText, headers, body }: Answer,
  response: ServerResponse,
  recorded: RecordedRequest | undefined,
): void {
  recorded?.answer({ status: statusCode, headers });
  body.on("data", (chunk: Buffer) => recorded?.chunk(chunk));
  response.writeHead(statusCode, statusText, passed(headers, HOP_BY_HOP));
  // The first byte of a stream may come long after its head.
  response.flushHeaders();
  if (statusCode === 304) {
    // It may tell a length, and has no body: undici misses one.
    body.on("error", () => {}).resume();
    response.end();
    return;
  }
  pipeline(body, response, (error) => {
    recorded?.end(error === null || error === undefined ? undefined : connectionFailure(error));
  });
}

function refuse(response: ServerResponse, { upstream, tell }: Way, error: unknown): void {
  const why = upstream.hide(connectionFailure(error));
  const message = `Expected an answer from ${upstream.shown}, got ${why}.`;
  tell("no_answer", message);
  if (response.headersSent) response.destroy();
  else tellClient(response, { status: 502, code: UPSTREAM, message });
}

function tellClient(response: ServerResponse, refusal: Refusal): void {
  response.writeHead(refusal.status, { "content-type": "application/json" });
  response.end(bodyOf(refusal));
}

function bodyOf({ code, message }: Omit<Refusal, "status">): string {
  const type = code === UPSTREAM ? "upstream_error" : "invalid_request_error";
  return JSON.stringify({ error: { message, type, code } });
}
