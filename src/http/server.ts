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
 * sentence. Who may ask what is `access`'s to say, and who gets a connection `connections`'.
 */

import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { Socket } from "node:net";
import { callListener } from "../base/call-listener.ts";
import {
  callback,
  checkOption,
  checkOptions,
  type OptionRules,
  withMethods,
} from "../base/check-options.ts";
import { messageOf, OptionError } from "../base/errors.ts";
import { flag, object } from "../base/schema.ts";
import type { Controller } from "../controller/controller.ts";
import { type AccessOptions, refusalOf, tokenRule } from "./access.ts";
import { sendAnswer, sendError } from "./answer.ts";
import { readJson } from "./body.ts";
import { guardConnections } from "./connections.ts";
import { checkQuery, decodeName, routeOf } from "./find.ts";
import { forgetList } from "./listing.ts";
import { refused } from "./refused.ts";
import type { HttpChange, MetricsSource, Request, StartSource } from "./route.ts";

/** From a request's first byte to its last. */
const REQUEST_TIMEOUT_MS = 10_000;
/** From a connection to the head of its first request. */
const HEAD_TIMEOUT_MS = 5_000;
/** Node looks that often for requests that are late; its own half a minute would be the limit. */
const LATE_CHECK_MS = 1_000;
const HEAD_BYTES_MAX = 16_384;
const CONNECTIONS_MAX = 256;
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

/** @throws OptionError for options that are unknown or of the wrong type */
export function checkHttpOptions(options: HttpOptions): void {
  checkOptions(options, RULES);
}

/**
 * A server around a controller; the caller listens and closes.
 *
 * @throws OptionError for options that are unknown or wrong, such as a token, or a certificate and
 *   its key, that can't be used
 */
export function createHttpServer(controller: Controller, options: HttpOptions = {}): Server {
  checkOption("controller", controller, withMethods("a controller", ["engines"]));
  checkHttpOptions(options);
  const { tls } = options;
  const onRequest = (request: IncomingMessage, response: ServerResponse): void => {
    // What can't be sent, such as metrics that are no text, is an error as well.
    answer(controller, request, options)
      .then((body) => sendAnswer(response, body))
      .catch((error: unknown) => sendError(response, error));
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
  if (!cert || !key) {
    // Node takes that for none, and serves nobody.
    throw new OptionError("tls", "Expected a certificate and its key as PEM, got one empty.");
  }
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
    callListener("onDenied", onDenied, { reason: refusal, remote });
  }
  if (refusal !== undefined) throw refused(refusal, headers);
  const { route, name } = routeOf(request.method ?? "", path);
  const parameters = new URLSearchParams(query);
  checkQuery(path, route, parameters);
  const body = route.method === "GET" ? undefined : await readJson(request);
  const engine = decodeName(name);
  const changed: Request["changed"] = (action, value) => {
    forgetList(controller);
    callListener("onChange", onChange, { action, engine, value, remote });
  };
  const asked = { query: parameters, engine, body, changed };
  const answering = (): unknown => route.answer({ controller, metrics, start, ...asked });
  return route.waits === true ? unhurried(request.socket, answering) : answering();
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
