/**
 * Who may ask what over HTTP: decided from a request's head alone, before a byte of its body. Pure.
 *
 * | request | without a token set | with one |
 * |---|---|---|
 * | a probe (`/livez`, `/readyz`, `/healthz`, `/startupz`) | anybody, whatever host it names | the same |
 * | reading | who names loopback, or anybody with `anyHost` | the same, or whoever has the token; with `tokenForReads` only they |
 * | changing | the same | whoever has the token |
 *
 * What a web page sends is refused in any case: it carries `Origin`, or, where a page has pointed
 * its own name at this host, that name as `Host`.
 */

import { createHash, timingSafeEqual } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";
import * as v from "valibot";
import type { Schema } from "../base/schema.ts";
import { isLoopback } from "../wire/endpoint.ts";

/** Tell nothing that a page could use, so that any name of this host will do. */
const PROBE_PATH = /^\/(healthz|livez|readyz|startupz)$/;

const TOKEN_CHARS_MIN = 16;
const TOKEN_CHARS_MAX = 512;
const TOKEN = `${TOKEN_CHARS_MIN} to ${TOKEN_CHARS_MAX} printable ASCII characters without blanks`;

export const tokenRule: Schema<string> = v.pipe(
  v.string(TOKEN),
  v.minLength(TOKEN_CHARS_MIN, TOKEN),
  v.maxLength(TOKEN_CHARS_MAX, TOKEN),
  v.regex(/^[!-~]+$/, TOKEN),
);

export interface AccessOptions {
  /** Takes requests whatever host they name; else only loopback's names. @default false */
  readonly anyHost?: boolean;
  /** Bearer token of requests that change something. @default none: whoever reaches it may */
  readonly token?: string;
  /** Reading needs the token, too; probes never do. @default false */
  readonly tokenForReads?: boolean;
}

export interface RequestHead {
  readonly path: string;
  readonly method: string;
  readonly headers: IncomingHttpHeaders;
}

export type Refusal = "origin" | "host" | "token-missing" | "token-wrong";

/** Undefined: the request may go on. */
export function refusalOf(
  { path, method, headers }: RequestHead,
  { anyHost = false, token, tokenForReads = false }: AccessOptions,
): Refusal | undefined {
  if (headers.origin !== undefined) return "origin";
  if (PROBE_PATH.test(path)) return undefined;
  const given = bearerOf(headers.authorization);
  if (token !== undefined && given !== undefined) {
    // A page can't know it: who has the token needs no name of this host.
    return isEqual(given, token) ? undefined : "token-wrong";
  }
  const { host } = headers;
  if (!anyHost && host !== undefined && !isLoopbackHost(host)) return "host";
  const isReading = method === "GET" || method === "HEAD";
  if (token === undefined || (isReading && !tokenForReads)) return undefined;
  return "token-missing";
}

/** Why this can't be a token; undefined for one that can. Says nothing of what is in it. */
export function tokenFault(token: unknown): string | undefined {
  return v.is(tokenRule, token) ? undefined : TOKEN;
}

function bearerOf(authorization: string | undefined): string | undefined {
  return /^Bearer +(\S+) *$/i.exec(authorization ?? "")?.[1];
}

/** In a time that tells neither where two tokens differ nor how long the right one is. */
function isEqual(given: string, expected: string): boolean {
  return timingSafeEqual(digest(given), digest(expected));
}

function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

/**
 * The port is not looked at: through a tunnel it is another one, and a page that pointed its name
 * here still sends its name.
 */
function isLoopbackHost(host: string): boolean {
  return isLoopback(`tcp://${host.replace(/:\d*$/, "").toLowerCase()}:0`);
}
