/**
 * The controller's HTTP side: a small surface for operators, probes and other gateway replicas.
 *
 * | request | answer |
 * |---|---|
 * | `GET /livez` | 200 while the process runs |
 * | `GET /readyz` | 200 while the controller takes engines, else 503 |
 * | `GET /healthz` | 200 while the controller runs, and its incarnation |
 * | `GET /startupz`, optionally `?until=PHASE` | where a start is watched: 200 once it is ready, or past that phase; else 503 with the phase and the seconds left |
 * | `GET /metrics` | Prometheus metrics, where they are collected |
 * | `GET /v1/engines` | `{"engines": […]}`, a snapshot of each |
 * | `GET /v1/engines/{name}` | that engine's snapshot |
 * | `PUT /v1/engines/{name}/mode` with `{"mode": "lazy"}` | its new snapshot |
 * | `POST /v1/engines/{name}/freeze`, optionally `{"reason": "…"}` | its new snapshot |
 * | `POST /v1/engines/{name}/announce` with `{"inSeconds": 2, "requests": 8}` | its new snapshot |
 * | `POST /v1/engines/{name}/sleep`, optionally `{"level": 2, "dropGraphs": true}` | its new snapshot, once it sleeps |
 * | `POST /v1/engines/{name}/wake`, optionally `{"reloadWeights": true}` | its new snapshot, once it serves |
 *
 * `{name}` is percent-encoded. Every error is `{"error": {"code": "…", "message": "…"}}` with one
 * sentence. Who may ask what is `http-access`'s to say, and who gets a connection
 * `http-connections`'s.
 */

import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { Socket } from "node:net";
import * as v from "valibot";
import {
  callback,
  checkOption,
  checkOptions,
  type OptionRules,
  withMethods,
} from "../base/check-options.ts";
import { codeOf, messageOf, OptionError } from "../base/errors.ts";
import { exactFields, flag, object, oneOf, type Schema } from "../base/schema.ts";
import { shownWhole } from "../base/shown.ts";
import type { SleepOptions, WakeOptions } from "../engine/sleep.ts";
import type { EngineSnapshot } from "../engine/snapshot.ts";
import { LIMITS, MODES } from "../wire/protocol.ts";
import type { Announcement } from "./call-options.ts";
import type { Controller } from "./controller.ts";
import { type AccessOptions, type Refusal, refusalOf, tokenRule } from "./http-access.ts";
import { guardConnections } from "./http-connections.ts";
import { toldSession } from "./told-session.ts";

/** Room for the longest reason, each of its characters written as `\uXXXX`. */
const BODY_BYTES_MAX = 16_384;
/** From a request's first byte to its last. */
const REQUEST_TIMEOUT_MS = 10_000;
/** From a connection to the head of its first request. */
const HEAD_TIMEOUT_MS = 5_000;
/** Node looks that often for requests that are late; its own half a minute would be the limit. */
const LATE_CHECK_MS = 1_000;
const HEAD_BYTES_MAX = 16_384;
const CONNECTIONS_MAX = 256;
/** When to ask again for a start of which nothing is known, and at the latest. */
const RETRY_SECONDS = 1;
const RETRY_SECONDS_MAX = 60;
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

/** How far a start is; `passed` where the phase that was asked for is over. */
export type StartReport =
  | {
      readonly ready: true;
      readonly passed: true;
      readonly readySeconds: number;
      readonly pastStarts: number;
    }
  | {
      readonly ready: false;
      readonly passed: boolean;
      readonly phase: string;
      readonly phaseSeconds: number;
      readonly elapsedSeconds: number;
      /** By past starts; undefined without any. */
      readonly leftSeconds: number | undefined;
      readonly pastStarts: number;
    };

/** Who watches a start. */
export interface StartSource {
  /** What `?until=` may name; another phase is refused. @default any */
  readonly phases?: readonly string[];
  /** @param until a phase, such as `weights` */
  report(until: string | undefined): Promise<StartReport>;
}

/** JSON with another status than 200. */
class StatusAnswer {
  readonly status: number;
  readonly body: unknown;
  readonly retryAfterSeconds: number;

  constructor(status: number, body: unknown, retryAfterSeconds: number) {
    this.status = status;
    this.body = body;
    this.retryAfterSeconds = retryAfterSeconds;
  }
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
  readonly start: StartSource | undefined;
  readonly query: URLSearchParams;
  readonly engine: string;
  readonly body: unknown;
}

interface Route {
  readonly method: "GET" | "PUT" | "POST";
  /** One capture group at most: the engine's name, still encoded. */
  readonly path: RegExp;
  /** Parameters of its query; others are refused. @default all are ignored, as probes expect */
  readonly parameters?: readonly string[];
  /** Its answer comes once an engine has done it, which may take minutes. @default false */
  readonly waits?: boolean;
  readonly answer: (request: Request) => unknown | Promise<unknown>;
}

const ROUTES: readonly Route[] = [
  { method: "GET", path: /^\/livez$/, answer: () => ({ ok: true }) },
  { method: "GET", path: /^\/readyz$/, answer: getReady },
  { method: "GET", path: /^\/healthz$/, answer: getHealth },
  { method: "GET", path: /^\/startupz$/, parameters: ["until"], answer: getStart },
  { method: "GET", path: /^\/metrics$/, answer: getMetrics },
  {
    method: "GET",
    path: /^\/v1\/engines$/,
    answer: ({ controller }) => ({ engines: controller.engines().map(told) }),
  },
  { method: "GET", path: /^\/v1\/engines\/([^/]+)$/, answer: getEngine },
  { method: "PUT", path: /^\/v1\/engines\/([^/]+)\/mode$/, answer: putMode },
  { method: "POST", path: /^\/v1\/engines\/([^/]+)\/freeze$/, answer: postFreeze },
  { method: "POST", path: /^\/v1\/engines\/([^/]+)\/announce$/, answer: postAnnounce },
  { method: "POST", path: /^\/v1\/engines\/([^/]+)\/sleep$/, waits: true, answer: postSleep },
  { method: "POST", path: /^\/v1\/engines\/([^/]+)\/wake$/, waits: true, answer: postWake },
];

export interface HttpOptions extends AccessOptions {
  /** Certificate chain and key as PEM: HTTPS, and nothing else. @default none: plain HTTP */
  readonly tls?: { readonly cert: string; readonly key: string };
  /** What `GET /metrics` answers. @default none: 404 */
  readonly metrics?: MetricsSource;
  /** What `GET /startupz` answers. @default none: 404 */
  readonly start?: StartSource;
  /** Told of every change that a request has made, for an audit log. */
  readonly onChange?: (change: HttpChange) => void;
  /** Told of every request that came with a wrong token, or needed one and had none. */
  readonly onDenied?: (denied: HttpDenied) => void;
}

const RULES: OptionRules<HttpOptions> = {
  anyHost: flag,
  token: tokenRule,
  tokenForReads: flag,
  tls: object,
  metrics: withMethods("an object such as a prom-client registry", ["metrics"]),
  start: object,
  onChange: callback,
  onDenied: callback,
};

export interface HttpDenied {
  readonly reason: "token-missing" | "token-wrong";
  /** Address of who asked; a proxy's where one is between. */
  readonly remote: string;
}

/** What a request changed: an engine's mode, or that it is frozen. Announcements change nothing. */
export interface HttpChange {
  readonly action: "mode" | "freeze" | "sleep" | "wake";
  readonly engine: string;
  /** The new mode, the reason, or the options as JSON. */
  readonly value: string;
  /** Address of who asked; a proxy's where one is between. */
  readonly remote: string;
}

/**
 * A server around a controller; the caller listens and closes.
 *
 * @throws OptionError for options that are unknown or wrong, such as a token, or a certificate and
 *   its key, that can't be used
 */
export function createHttpServer(controller: Controller, options: HttpOptions = {}): Server {
  checkOption("controller", controller, withMethods("a controller", ["engines"]));
  checkOptions(options, RULES);
  const { tls } = options;
  const onRequest = (request: IncomingMessage, response: ServerResponse): void => {
    answer(controller, request, options).then(
      (body) => sendAnswer(response, body),
      (error: unknown) => sendError(response, error),
    );
  };
  const limits = {
    connectionsCheckingInterval: LATE_CHECK_MS,
    headersTimeout: HEAD_TIMEOUT_MS,
    requestTimeout: REQUEST_TIMEOUT_MS,
    maxHeaderSize: HEAD_BYTES_MAX,
  };
  const server =
    tls === undefined ? createServer(limits, onRequest) : tlsServer(tls, limits, onRequest);
  // Who says that nothing more will come may still wait for its answer.
  Object.assign(server, { httpAllowHalfOpen: true });
  // Without a byte either way: also who takes nothing of its answer is silent.
  server.timeout = REQUEST_TIMEOUT_MS;
  guardConnections(server, { connectionsMax: CONNECTIONS_MAX, headMs: HEAD_TIMEOUT_MS });
  return server;
}

function tlsServer(
  { cert, key }: NonNullable<HttpOptions["tls"]>,
  limits: object,
  onRequest: (request: IncomingMessage, response: ServerResponse) => void,
): Server {
  try {
    const own = { cert, key, minVersion: "TLSv1.2", handshakeTimeout: HEAD_TIMEOUT_MS } as const;
    return createTlsServer({ ...limits, ...own }, onRequest);
  } catch (cause) {
    throw new OptionError(
      "tls",
      `Expected a certificate and its key as PEM, got what OpenSSL refuses: ${messageOf(cause)}.`,
    );
  }
}

async function answer(
  controller: Controller,
  request: IncomingMessage,
  options: HttpOptions,
): Promise<unknown> {
  const { metrics, start, onChange, onDenied } = options;
  const [path = "/", query = ""] = (request.url ?? "/").split(/\?(.*)/s);
  const { headers } = request;
  const remote = request.socket.remoteAddress ?? "unix";
  const refusal = refusalOf({ path, method: request.method ?? "", headers }, options);
  if (refusal === "token-missing" || refusal === "token-wrong") {
    onDenied?.({ reason: refusal, remote });
  }
  if (refusal !== undefined) throw refused(refusal, headers);
  const matches = ROUTES.flatMap((route) => {
    const match = route.path.exec(path);
    return match === null ? [] : [{ route, name: match[1] ?? "" }];
  });
  if (matches.length === 0) {
    throw new HttpError(
      404,
      "ERR_HTTP_NOT_FOUND",
      `Expected /livez, /readyz, /healthz, /startupz, /metrics or a path under /v1/engines, got ${shownWhole(path)}${encodingHint(path)}.`,
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
      `Expected ${allow} for ${shownWhole(path)}, got ${shownWhole(request.method ?? "")}.`,
      allow,
    );
  }
  const parameters = new URLSearchParams(query);
  checkQuery(path, found.route, parameters);
  const body = method === "GET" ? undefined : await readJson(request);
  const engine = decodeName(found.name);
  const changed: Request["changed"] = (action, value) =>
    onChange?.({ action, engine, value, remote });
  const asked = { query: parameters, engine, body, changed };
  const answering = (): unknown => found.route.answer({ controller, metrics, start, ...asked });
  return found.route.waits === true ? unhurried(request.socket, answering) : answering();
}

/** No byte passes while an engine is waited for, and this side is the one that is silent. */
async function unhurried(socket: Socket, answering: () => unknown): Promise<unknown> {
  const { timeout = 0 } = socket;
  socket.setTimeout(0);
  try {
    return await answering();
  } finally {
    socket.setTimeout(timeout);
  }
}

/** A parameter that nobody reads would be taken for one that works. */
function checkQuery(path: string, { parameters }: Route, query: URLSearchParams): void {
  const allowed = path.startsWith("/v1/") ? [] : parameters;
  if (allowed === undefined) return;
  const other = [...query.keys()].find((name) => !allowed.includes(name));
  if (other === undefined) return;
  const expected =
    allowed.length === 0 ? "no parameters" : `no parameter but ${allowed.join(", ")}`;
  throw new HttpError(
    400,
    "ERR_HTTP_QUERY",
    `Expected ${expected} for ${shownWhole(path)}, got ${shownWhole(other)}.`,
  );
}

const REFUSALS: Readonly<
  Record<
    Refusal,
    { status: number; code: string; sentence: (headers: IncomingHttpHeaders) => string }
  >
> = {
  // Any page in a browser on this host could otherwise freeze an engine.
  origin: {
    status: 403,
    code: "ERR_HTTP_ORIGIN",
    sentence: ({ origin }) =>
      `Expected a request that no web page makes, got one from ${shownWhole(origin)}.`,
  },
  host: {
    status: 421,
    code: "ERR_HTTP_HOST",
    sentence: ({ host }) =>
      `Expected a request for localhost, 127.0.0.1 or [::1], got one for ${shownWhole(host)}: name ` +
      "one of these, send the controller's token, or start the controller with --http-unsafe.",
  },
  "token-missing": {
    status: 401,
    code: "ERR_LAZYGRAPH_TOKEN",
    sentence: () =>
      "Expected the controller's token as `Authorization: Bearer TOKEN`, got none: send the one " +
      "that the controller was started with.",
  },
  "token-wrong": {
    status: 401,
    code: "ERR_LAZYGRAPH_TOKEN",
    sentence: () =>
      "Expected the controller's token as `Authorization: Bearer TOKEN`, got another one: send " +
      "the one that the controller was started with.",
  },
};

function refused(refusal: Refusal, headers: IncomingHttpHeaders): HttpError {
  const { status, code, sentence } = REFUSALS[refusal];
  return new HttpError(status, code, sentence(headers));
}

/** Its endpoint is bound from its start until it is closed. */
function getReady({ controller }: Request): object {
  if (controller.listening) return { ready: true };
  throw new HttpError(
    503,
    "ERR_HTTP_NOT_READY",
    "Expected a controller that takes engines, but it doesn't listen.",
  );
}

/** One that has been closed leads no engines, and a standby that still believed it never would. */
function getHealth({ controller: { listening, incarnation } }: Request): object {
  if (listening !== false) return { ok: true, incarnation };
  throw new HttpError(
    503,
    "ERR_HTTP_NOT_READY",
    "Expected a controller that runs, but it hasn't started, or is closed.",
  );
}

/** Where a phase is asked for, a probe can give each its own time. */
async function getStart({ start, query }: Request): Promise<unknown> {
  if (start === undefined) {
    throw new HttpError(
      404,
      "ERR_HTTP_NOT_FOUND",
      "No start is watched here: `lazygraph run --http` watches that of its command.",
    );
  }
  const until = query.get("until") ?? undefined;
  const { phases } = start;
  if (until !== undefined && phases?.includes(until) === false) {
    throw new HttpError(
      400,
      "ERR_HTTP_QUERY",
      `Expected until to name a phase of a start, got ${shownWhole(until)}: one of ` +
        `${phases.join(", ")}.`,
    );
  }
  const report = await start.report(until);
  const body = Object.fromEntries(
    Object.entries(report).map(([name, value]) => [
      name,
      typeof value === "number" ? Math.round(value * 10) / 10 : value,
    ]),
  );
  if (report.passed) return body;
  const left = report.leftSeconds ?? RETRY_SECONDS;
  return new StatusAnswer(503, body, Math.min(Math.max(1, Math.ceil(left)), RETRY_SECONDS_MAX));
}

async function getMetrics({ metrics }: Request): Promise<TextAnswer> {
  if (metrics !== undefined) return new TextAnswer(metrics.contentType, await metrics.metrics());
  throw new HttpError(404, "ERR_HTTP_NOT_FOUND", "No metrics are collected here.");
}

/** A picture for whoever may read. */
function told(snapshot: EngineSnapshot): EngineSnapshot {
  return { ...snapshot, session: toldSession(snapshot.session) };
}

function getEngine(request: Request): EngineSnapshot {
  return told(findEngine(request));
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
    `Expected the name of an engine that joined, got ${shownWhole(engine)} (${list}).`,
  );
}

const MODE_BODY = exactFields({ mode: oneOf(MODES) });
const FREEZE_BODY = v.optional(
  exactFields({ reason: v.optional(v.pipe(v.string(), v.maxLength(LIMITS.textChars))) }),
  {},
);

/** A field that nobody reads would be taken for one that works. */
function bodyBy<T>(schema: Schema<T>, body: unknown, expected: string): T {
  const result = v.safeParse(schema, body);
  if (result.success) return result.output;
  throw new HttpError(400, "ERR_HTTP_BODY", `Expected ${expected}, got ${shownWhole(body)}.`);
}

async function putMode(request: Request): Promise<EngineSnapshot> {
  findEngine(request);
  const { mode } = bodyBy(MODE_BODY, request.body, 'the body {"mode": "eager" | "lazy" | "idle"}');
  await request.controller.setMode(request.engine, mode);
  request.changed("mode", mode);
  return getEngine(request);
}

async function postFreeze(request: Request): Promise<EngineSnapshot> {
  findEngine(request);
  const { reason = "asked over HTTP" } = bodyBy(
    FREEZE_BODY,
    request.body,
    `no body, or {"reason": "…"} of at most ${LIMITS.textChars} characters`,
  );
  await request.controller.freeze(request.engine, reason);
  request.changed("freeze", reason);
  return getEngine(request);
}

async function postSleep(request: Request): Promise<EngineSnapshot> {
  findEngine(request);
  const { body = {} } = request;
  const options = body as SleepOptions;
  await request.controller.sleep(request.engine, options);
  request.changed("sleep", JSON.stringify(options));
  return getEngine(request);
}

async function postWake(request: Request): Promise<EngineSnapshot> {
  findEngine(request);
  const { body = {} } = request;
  const options = body as WakeOptions;
  await request.controller.wake(request.engine, options);
  request.changed("wake", JSON.stringify(options));
  return getEngine(request);
}

function postAnnounce(request: Request): EngineSnapshot {
  findEngine(request);
  // The controller checks it, and says what was expected.
  request.controller.announce(request.engine, request.body as Announcement);
  return getEngine(request);
}

/** A name with a slash is what most try first. */
function encodingHint(path: string): string {
  const match = /^\/v1\/engines\/([^/]+\/.*?)(\/mode|\/freeze|\/announce|\/sleep|\/wake)?$/.exec(
    path,
  );
  if (match === null) return "";
  const [, name = "", rest = ""] = match;
  const encoded = `/v1/engines/${name.replaceAll("/", "%2F")}${rest}`;
  return `: names are percent-encoded, as in ${shownWhole(encoded, PATH_CHARS_MAX)}`;
}

function decodeName(name: string): string {
  try {
    return decodeURIComponent(name);
  } catch {
    throw new HttpError(
      400,
      "ERR_HTTP_PATH",
      `Expected a percent-encoded engine name in the path, got ${shownWhole(name)}.`,
    );
  }
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
    throw new HttpError(400, "ERR_HTTP_BODY", `Expected a JSON body, got ${shownWhole(text)}.`);
  }
}

function sendAnswer(response: ServerResponse, body: unknown): void {
  const other = body instanceof StatusAnswer ? body : undefined;
  if (other !== undefined) response.setHeader("retry-after", other.retryAfterSeconds);
  send(response, other?.status ?? 200, other === undefined ? body : other.body);
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
  // So does one of a request that was refused before its body was read.
  if (status === 413 || status === 401) response.setHeader("connection", "close");
  if (status === 401) response.setHeader("www-authenticate", "Bearer");
  const code = codeOf(error) ?? "ERR_HTTP_INTERNAL";
  const message = messageOf(error);
  send(response, status, { error: { code, message } });
}

/** Errors of the controller itself: the engine is away, or the controller is closing. */
function statusOf(error: unknown): number {
  const code = codeOf(error);
  if (code === "ERR_LAZYGRAPH_ENGINE_UNKNOWN") return 404;
  if (code === "ERR_LAZYGRAPH_ENGINE_LOST" || code === "ERR_LAZYGRAPH_ENGINE_SLEEP") return 409;
  if (code === "ERR_LAZYGRAPH_CLOSED") return 503;
  if (code === "ERR_LAZYGRAPH_OPTION") return 400;
  return 500;
}
