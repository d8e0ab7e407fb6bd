/**
 * The HTTP client of everything that asks a server here: one pool, through the proxy that the
 * environment names (`HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY`), and never one for this machine.
 */

import { type Dispatcher, EnvHttpProxyAgent } from "undici";
import { codeOf, messageOf, OptionError } from "../base/errors.ts";
import { type ByteHandler, type ByteRequest, dispatchDirect } from "./direct-dispatch.ts";
import type { ServerAddress } from "./server-address.ts";

/** Servers close a connection that is idle for some seconds: ours is not used for that long. */
const IDLE_MS_MAX = 2_000;
const CONNECT_MS_MAX = 30_000;
const ANSWER_CHARS_MAX = 64 << 20;
/** As Go has it: a proxy can't reach what listens on loopback here. */
const LOOPBACK = ["localhost", "127.0.0.1", "[::1]"];

let shared: Dispatcher | undefined;

interface Proxy {
  /** Of the environment, as it is written there. */
  readonly variable: string;
  readonly url: string;
}

/** Lower case first, and a host without a scheme, as curl has them. @throws OptionError */
function proxyOf(name: "http_proxy" | "https_proxy"): Proxy | undefined {
  const variable = process.env[name] === undefined ? name.toUpperCase() : name;
  const text = process.env[variable]?.trim() ?? "";
  if (text === "") return undefined;
  const url = text.includes("://") ? text : `http://${text}`;
  if (URL.canParse(url)) return { variable, url };
  // Without what it is: it may have a password.
  const expected = "a proxy's URL such as http://proxy:3128, or empty";
  throw new OptionError(variable, `Expected ${variable} to be ${expected}, got something else.`);
}

/**
 * The variable that names the proxy on the way to an origin, unless `NO_PROXY` excepts it;
 * undefined where there is none.
 */
export function proxyVariable(origin: string): string | undefined {
  const { protocol, hostname } = new URL(origin);
  if (LOOPBACK.includes(hostname)) return undefined;
  const secure = protocol === "https:" ? proxyOf("https_proxy") : undefined;
  return (secure ?? proxyOf("http_proxy"))?.variable;
}

/**
 * No limit on connections: a pool that makes late arrivals wait would hide what it measures. Limits
 * of time are the callers'.
 */
export function httpClient(): Dispatcher {
  const inherited = process.env["no_proxy"] ?? process.env["NO_PROXY"] ?? "";
  // A wildcard is one only if it stands alone.
  const noProxy = inherited.trim() === "*" ? "*" : [inherited, ...LOOPBACK].join(",");
  const httpProxy = proxyOf("http_proxy")?.url ?? "";
  shared ??= new EnvHttpProxyAgent({
    noProxy,
    httpProxy,
    httpsProxy: proxyOf("https_proxy")?.url ?? httpProxy,
    keepAliveTimeout: IDLE_MS_MAX,
    keepAliveMaxTimeout: IDLE_MS_MAX,
    headersTimeout: 0,
    bodyTimeout: 0,
    connect: { timeout: CONNECT_MS_MAX },
    // As curl does: a tunnel for TLS only, because many proxies refuse one to other ports.
    proxyTunnel: false,
  });
  return shared;
}

/**
 * Sends a request whose answer's bytes are wanted as they come: straight, or where the environment
 * names a proxy for it, by the pool that goes through it.
 */
export function dispatchBytes(request: ByteRequest, handler: ByteHandler): void {
  // What NO_PROXY says is left to the pool.
  if (proxyVariable(request.origin) === undefined) dispatchDirect(request, handler);
  else httpClient().dispatch(request, handler);
}

/** A connection that the other side closed: where nothing of an answer came, an idle one. */
export function isClosedConnection(error: unknown): boolean {
  return ["UND_ERR_SOCKET", "ECONNRESET", "EPIPE"].includes(codeOf(error) ?? "");
}

/** Why a request failed, in few words: the system's code where there is one. */
export function connectionFailure(error: unknown): string {
  const code = codeOf(error);
  // It stands within a sentence, so that it must not end one.
  const said = messageOf(error).replace(/\.$/, "");
  return code === undefined || code === "UND_ERR_SOCKET" ? said : code;
}

export interface Question {
  readonly server: ServerAddress;
  /** Such as `/v1/models`. */
  readonly path: string;
  /** POSTed as JSON; a GET without. */
  readonly body?: object | undefined;
  readonly signal: AbortSignal;
}

export interface WholeAnswer {
  readonly status: number;
  readonly contentType: string | undefined;
  readonly text: string;
}

/**
 * One request and its whole answer; sent again once if its connection was closed before a byte.
 *
 * @throws what undici throws; RangeError for an answer of more than 64 Mi characters
 */
export async function askServer({ server, path, body, signal }: Question): Promise<WholeAnswer> {
  const request = {
    origin: server.origin,
    path: server.path(path),
    method: body === undefined ? "GET" : "POST",
    headers: {
      ...server.headers,
      ...(body === undefined ? {} : { "content-type": "application/json" }),
    },
    body: body === undefined ? null : JSON.stringify(body),
    signal,
  } as const;
  const send = () => httpClient().request(request);
  const answer = await send().catch((error: unknown) => {
    if (!isClosedConnection(error)) throw error;
    return send();
  });
  const parts: string[] = [];
  const decoder = new TextDecoder();
  let chars = 0;
  for await (const bytes of answer.body as AsyncIterable<Buffer>) {
    const part = decoder.decode(bytes, { stream: true });
    chars += part.length;
    if (chars > ANSWER_CHARS_MAX) {
      answer.body.destroy();
      throw new RangeError(`an answer of over ${ANSWER_CHARS_MAX} characters`);
    }
    parts.push(part);
  }
  const type = answer.headers["content-type"];
  return {
    status: answer.statusCode,
    contentType: Array.isArray(type) ? type[0] : type,
    text: parts.join(""),
  };
}
