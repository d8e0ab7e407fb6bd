/**
 * The controller's HTTP side: a small surface for people, probes and other gateway replicas.
 *
 * | request | answer |
 * |---|---|
 * | `GET /healthz` | 200 while the controller runs, whatever host is named: probes name a pod's |
 * | `GET /metrics` | Prometheus metrics, where they are collected |
 * | `GET /v1/engines` | `{"engines": […]}`, a snapshot of each |
 * | `GET /v1/engines/{name}` | that engine's snapshot |
 * | `PUT /v1/engines/{name}/mode` with `{"mode": "lazy"}` | its new snapshot |
 * | `POST /v1/engines/{name}/freeze`, optionally `{"reason": "…"}` | its new snapshot |
 * | `POST /v1/engines/{name}/announce` with `{"inSeconds": 2, "requests": 8}` | its new snapshot |
 *
 * `{name}` is percent-encoded. Every error is `{"error": {"code": "…", "message": "…"}}` with one
 * sentence. There is no authentication: bind it to loopback or put a proxy in front. Requests that
 * a web page makes may read nothing and change nothing: they carry `Origin`, or, where a page has
 * pointed its own name at this host, that name as `Host`.
 */

import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { codeOf, messageOf } from "../base/errors.ts";
import type { EngineSnapshot } from "../engine/snapshot.ts";
import { isLoopback } from "../wire/endpoint.ts";
import { MODES } from "../wire/protocol.ts";
import type { Announcement } from "./call-options.ts";
import type { Controller } from "./controller.ts";

const BODY_BYTES_MAX = 4096;
const REQUEST_TIMEOUT_MS = 10_000;
const CONNECTIONS_MAX = 256;
const REASON_CHARS_MAX = 200;
/** Engines named in a sentence. */
const NAMES_MAX = 5;
/** Enough for a path with the longest name, encoded. */
const PATH_CHARS_MAX = 500;

/** An answer that isn't the expected one; `status` is HTTP's. */
class HttpError extends Error {
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

/** Metrics as text: a prom-client registry is one. */
export interface MetricsSource {
  readonly contentType: string;
  metrics(): Promise<string>;
}

/** An answer that isn't JSON. */
class TextAnswer {
  readonly contentType: string;
  readonly text: string;

  constructor(contentType: string, text: string) {
    this.contentType = contentType;
    this.text = text;
  }
}

interface Request {
  readonly changed: (action: HttpChange["action"], value: string) => void;
  readonly controller: Controller;
  readonly metrics: MetricsSource | undefined;
  readonly engine: string;
  readonly body: unknown;
}

interface Route {
  readonly method: "GET" | "PUT" | "POST";
  /** One capture group at most: the engine's name, still encoded. */
  readonly path: RegExp;
  readonly answer: (request: Request) => unknown | Promise<unknown>;
}

/** Tells nothing that a page could use, so that any name of this host will do. */
const HEALTH_PATH = /^\/healthz$/;

const ROUTES: readonly Route[] = [
  {
    method: "GET",
    path: HEALTH_PATH,
    answer: ({ controller: { incarnation } }) => ({ ok: true, incarnation }),
  },
  { method: "GET", path: /^\/metrics$/, answer: getMetrics },
  {
    method: "GET",
    path: /^\/v1\/engines$/,
    answer: ({ controller }) => ({ engines: controller.engines() }),
  },
  { method: "GET", path: /^\/v1\/engines\/([^/]+)$/, answer: findEngine },
  { method: "PUT", path: /^\/v1\/engines\/([^/]+)\/mode$/, answer: putMode },
  { method: "POST", path: /^\/v1\/engines\/([^/]+)\/freeze$/, answer: postFreeze },
  { method: "POST", path: /^\/v1\/engines\/([^/]+)\/announce$/, answer: postAnnounce },
];

export interface HttpOptions {
  /** Takes requests whatever host they name; else only loopback's names. @default false */
  readonly anyHost?: boolean;
  /** What `GET /metrics` answers. @default none: 404 */
  readonly metrics?: MetricsSource;
  /** Told of every change that a request has made, for an audit log. */
  readonly onChange?: (change: HttpChange) => void;
}

/** What a request changed: an engine's mode, or that it is frozen. Announcements change nothing. */
export interface HttpChange {
  readonly action: "mode" | "freeze";
  readonly engine: string;
  /** The new mode, or the reason. */
  readonly value: string;
  /** Address of who asked; a proxy's where one is between. */
  readonly remote: string;
}

/** A server around a controller; the caller listens and closes. */
export function createHttpServer(controller: Controller, options: HttpOptions = {}): Server {
  const server = createServer((request, response) => {
    answer(controller, request, options).then(
      (body) => send(response, 200, body),
      (error: unknown) => sendError(response, error),
    );
  });
  server.requestTimeout = REQUEST_TIMEOUT_MS;
  server.headersTimeout = REQUEST_TIMEOUT_MS;
  server.maxConnections = CONNECTIONS_MAX;
  return server;
}

async function answer(
  controller: Controller,
  request: IncomingMessage,
  { anyHost = false, metrics, onChange }: HttpOptions,
): Promise<unknown> {
  if (request.headers.origin !== undefined) {
    // Any page in a browser on this host could otherwise freeze an engine.
    throw new HttpError(
      403,
      "ERR_HTTP_ORIGIN",
      `Expected a request that no web page makes, got one from ${shown(request.headers.origin)}.`,
    );
  }
  const [path = "/"] = (request.url ?? "/").split("?", 1);
  const { host } = request.headers;
  const isOpen = anyHost || HEALTH_PATH.test(path);
  if (!isOpen && host !== undefined && !isLoopbackHost(host)) {
    throw new HttpError(
      421,
      "ERR_HTTP_HOST",
      `Expected a request for localhost, 127.0.0.1 or [::1], got one for ${shown(host)}: ` +
        "name one of these, or start the controller with --http-unsafe.",
    );
  }
  const matches = ROUTES.flatMap((route) => {
    const match = route.path.exec(path);
    return match === null ? [] : [{ route, name: match[1] ?? "" }];
  });
  if (matches.length === 0) {
    throw new HttpError(
      404,
      "ERR_HTTP_NOT_FOUND",
      `Expected /healthz, /metrics or a path under /v1/engines, got ${shown(path)}${encodingHint(path)}.`,
    );
  }
  // HEAD is GET without the body, which Node leaves out by itself.
  const method = request.method === "HEAD" ? "GET" : request.method;
  const found = matches.find(({ route }) => route.method === method);
  if (found === undefined) {
    const allow = matches.map(({ route }) => route.method).join(", ");
    throw new HttpError(
      405,
      "ERR_HTTP_METHOD",
      `Expected ${allow} for ${shown(path)}, got ${shown(request.method ?? "")}.`,
      allow,
    );
  }
  const body = method === "GET" ? undefined : await readJson(request);
  const engine = decodeName(found.name);
  const remote = request.socket.remoteAddress ?? "unknown";
  const changed: Request["changed"] = (action, value) =>
    onChange?.({ action, engine, value, remote });
  return found.route.answer({ controller, metrics, engine, body, changed });
}

async function getMetrics({ metrics }: Request): Promise<TextAnswer> {
  if (metrics !== undefined) return new TextAnswer(metrics.contentType, await metrics.metrics());
  throw new HttpError(404, "ERR_HTTP_NOT_FOUND", "No metrics are collected here.");
}

function findEngine({ controller, engine }: Request): EngineSnapshot {
  const found = controller.engines().find((candidate) => candidate.engine === engine);
  if (found !== undefined) return found;
  const known = controller.engines().map((candidate) => candidate.engine);
  const more = known.length > NAMES_MAX ? ", …" : "";
  const list =
    known.length === 0
      ? "no engine has joined yet"
      : `known: ${known.slice(0, NAMES_MAX).join(", ")}${more}`;
  throw new HttpError(
    404,
    "ERR_LAZYGRAPH_ENGINE_UNKNOWN",
    `Expected the name of an engine that joined, got ${shown(engine)} (${list}).`,
  );
}

async function putMode(request: Request): Promise<EngineSnapshot> {
  findEngine(request);
  const value = field(request.body, "mode");
  const mode = MODES.find((candidate) => candidate === value);
  if (mode === undefined) {
    throw new HttpError(
      400,
      "ERR_HTTP_BODY",
      `Expected the body {"mode": "eager" | "lazy" | "idle"}, got ${shown(request.body)}.`,
    );
  }
  await request.controller.setMode(request.engine, mode);
  request.changed("mode", mode);
  return findEngine(request);
}

async function postFreeze(request: Request): Promise<EngineSnapshot> {
  findEngine(request);
  const reason = field(request.body, "reason") ?? "asked over HTTP";
  if (typeof reason !== "string" || reason.length > REASON_CHARS_MAX) {
    throw new HttpError(
      400,
      "ERR_HTTP_BODY",
      `Expected "reason" to be a text of at most ${REASON_CHARS_MAX} characters, ` +
        `got ${shown(reason)}.`,
    );
  }
  await request.controller.freeze(request.engine, reason);
  request.changed("freeze", reason);
  return findEngine(request);
}

function postAnnounce(request: Request): EngineSnapshot {
  findEngine(request);
  // The controller checks it, and says what was expected.
  request.controller.announce(request.engine, request.body as Announcement);
  return findEngine(request);
}

/**
 * The port is not looked at: through a tunnel it is another one, and a page that pointed its name
 * here still sends its name.
 */
function isLoopbackHost(host: string): boolean {
  return isLoopback(`tcp://${host.replace(/:\d*$/, "").toLowerCase()}:0`);
}

/** A name with a slash is what most people try first. */
function encodingHint(path: string): string {
  const match = /^\/v1\/engines\/([^/]+\/.*?)(\/mode|\/freeze|\/announce)?$/.exec(path);
  if (match === null) return "";
  const [, name = "", rest = ""] = match;
  const encoded = `/v1/engines/${name.replaceAll("/", "%2F")}${rest}`;
  return `: names are percent-encoded, as in ${shown(encoded, PATH_CHARS_MAX)}`;
}

function decodeName(name: string): string {
  try {
    return decodeURIComponent(name);
  } catch {
    throw new HttpError(
      400,
      "ERR_HTTP_PATH",
      `Expected a percent-encoded engine name in the path, got ${shown(name)}.`,
    );
  }
}

function field(body: unknown, name: string): unknown {
  if (typeof body !== "object" || body === null || !Object.hasOwn(body, name)) return undefined;
  return (body as Record<string, unknown>)[name];
}

/** The body as JSON; undefined when there is none. Bounded before it is held in memory. */
async function readJson(request: IncomingMessage): Promise<unknown> {
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
    throw new HttpError(400, "ERR_HTTP_BODY", `Expected a JSON body, got ${shown(text)}.`);
  }
}

function send(response: ServerResponse, status: number, body: unknown): void {
  const isText = body instanceof TextAnswer;
  const text = isText ? body.text : `${JSON.stringify(body)}\n`;
  response.writeHead(status, {
    "content-type": isText ? body.contentType : "application/json; charset=utf-8",
    "content-length": Buffer.byteLength(text),
    "cache-control": "no-store",
  });
  response.end(text);
}

function sendError(response: ServerResponse, error: unknown): void {
  const http = error instanceof HttpError ? error : undefined;
  const status = http?.status ?? statusOf(error);
  if (http?.allow !== undefined) response.setHeader("allow", http.allow);
  // The rest of a body that was too large is not read: the connection ends with the answer.
  if (status === 413) response.setHeader("connection", "close");
  const code = codeOf(error) ?? "ERR_HTTP_INTERNAL";
  const message = messageOf(error);
  send(response, status, { error: { code, message } });
}

/** Errors of the controller itself: the engine is away, or the controller is closing. */
function statusOf(error: unknown): number {
  const code = codeOf(error);
  if (code === "ERR_LAZYGRAPH_ENGINE_UNKNOWN") return 404;
  if (code === "ERR_LAZYGRAPH_ENGINE_LOST") return 409;
  if (code === "ERR_LAZYGRAPH_CLOSED") return 503;
  if (code === "ERR_LAZYGRAPH_OPTION") return 400;
  return 500;
}

/** A value from outside inside a sentence: as JSON, bounded. */
function shown(value: unknown, charsMax = 80): string {
  const text = JSON.stringify(value) ?? "nothing";
  return text.length > charsMax ? `${text.slice(0, charsMax - 3)}...` : text;
}
