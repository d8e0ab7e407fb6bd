/**
 * Where a server is and what it wants to be told: one reading of base URLs for everything that
 * talks to one. Pure.
 *
 * A base URL is taken with and without `/v1` and a slash at its end. What is secret in it (user
 * info, the query) goes into requests and nowhere else; `shown` and `hide` are for sentences.
 */

import * as v from "valibot";
import { checkOption, checkOptions, type OptionRules } from "../base/check-options.ts";
import { OptionError } from "../base/errors.ts";
import { object } from "../base/schema.ts";
import { shown } from "../base/shown.ts";
import { checkApiKey, checkHeaders } from "./access-check.ts";

export interface ServerAddressOptions {
  /** Sent as a bearer token, in place of user info. */
  readonly apiKey?: string | undefined;
  /** More headers of every request; one named `authorization` beats the key. */
  readonly headers?: Readonly<Record<string, string>> | undefined;
}

const RULES: OptionRules<ServerAddressOptions> = {
  apiKey: v.string("a key in one word"),
  headers: object,
};

/** Shorter ones would be found in innocent words. */
const SECRET_CHARS_MIN = 4;
const HIDDEN = "…";
/** What a value of a header is called by, where it may be shown. */
const SECRET_HEADER = /auth|cookie|key|token|secret|password/i;

export class ServerAddress {
  /** Scheme, host and port. */
  readonly origin: string;
  /** Path before that of every request; empty or with a slash in front. */
  readonly prefix: string;
  /** Of every request, in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  /** Without anything secret. */
  readonly shown: string;
  readonly #query: string;
  readonly #secrets: readonly string[];

  /**
   * @param where `http:` or `https:`, as a text or a URL
   * @throws OptionError for what is none, and for a key or a header that no request can carry
   */
  constructor(where: URL | string, options: ServerAddressOptions = {}) {
    const url = requireUrl(where);
    checkOptions(options, RULES);
    const apiKey = checkApiKey("apiKey", options.apiKey);
    const headers = checkHeaders("headers", options.headers) ?? {};
    this.origin = url.origin;
    this.prefix = url.pathname.replace(/\/+$/, "").replace(/\/v1$/, "").replace(/\/+$/, "");
    this.shown = `${this.origin}${this.prefix}`;
    this.#query = url.search.slice(1);
    const own = Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]);
    this.headers = { ...authorizationOf(url, apiKey), ...Object.fromEntries(own) };
    this.#secrets = secretsOf(url, apiKey, this.headers);
  }

  /** Path and query of a request. @param path such as `/v1/models`; may have a query of its own */
  path(path: string): string {
    const query = this.#query === "" ? "" : `${path.includes("?") ? "&" : "?"}${this.#query}`;
    return `${this.prefix}${path}${query}`;
  }

  /** A text that may quote a request, such as a server's answer, without what is secret. */
  hide(text: string): string {
    return this.#secrets.reduce((hidden, secret) => hidden.replaceAll(secret, HIDDEN), text);
  }
}

/** @returns undefined unless it is `http://` or `https://` */
export function serverUrl(text: string): URL | undefined {
  if (typeof text !== "string") return undefined;
  const url = URL.canParse(text) ? new URL(text) : undefined;
  return url?.protocol === "http:" || url?.protocol === "https:" ? url : undefined;
}

/** A URL, or what was meant to be one, for sentences and files: without user info and query. */
export function shownUrl(text: string): string {
  checkOption("text", text, v.string("a text"));
  const url = serverUrl(text);
  if (url !== undefined) return new ServerAddress(url).shown;
  // Whatever stands before an @ may be a password, also one with a slash that made it no URL.
  return text
    .replace(/\?.*$/s, `?${HIDDEN}`)
    .replace(/^([a-z][a-z\d+.-]*:\/\/)?.*@/is, `$1${HIDDEN}@`);
}

function requireUrl(where: unknown): URL {
  const text = where instanceof URL ? where.href : where;
  const url = serverUrl(text as string);
  if (url !== undefined) return url;
  const got = typeof text === "string" ? JSON.stringify(shownUrl(text)) : shown(text);
  throw new OptionError("url", `Expected url to be such as http://127.0.0.1:8000, got ${got}.`);
}

function authorizationOf(url: URL, apiKey: string | undefined): Record<string, string> {
  if (apiKey !== undefined) return { authorization: `Bearer ${apiKey}` };
  if (url.username === "" && url.password === "") return {};
  const userInfo = `${decoded(url.username)}:${decoded(url.password)}`;
  return { authorization: `Basic ${Buffer.from(userInfo).toString("base64")}` };
}

function secretsOf(
  url: URL,
  apiKey: string | undefined,
  headers: Readonly<Record<string, string>>,
): string[] {
  const kept = Object.entries(headers).flatMap(([name, value]) =>
    SECRET_HEADER.test(name) ? [value, value.replace(/^\w+ /, "")] : [],
  );
  const secrets = [
    ...kept,
    apiKey ?? "",
    ...userSecrets(url),
    url.search.slice(1),
    ...url.searchParams.values(),
  ];
  return [...new Set(secrets)]
    .filter((secret) => secret.length >= SECRET_CHARS_MIN)
    .sort((a, b) => b.length - a.length);
}

/** A password, or a key that stands alone in place of user and password. */
function userSecrets({ username, password }: URL): string[] {
  const secret = password === "" ? username : password;
  return [secret, decoded(secret)];
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
