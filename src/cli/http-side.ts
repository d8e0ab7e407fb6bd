/** The controller's HTTP side for the commands that have one: where it listens and who may ask. */

import type { Server } from "node:http";
import { counted } from "../base/counted.ts";
import { OptionError } from "../base/errors.ts";
import { readPublicFile, readSecretFile } from "../base/secret-file.ts";
import type { Controller } from "../controller/controller.ts";
import { tokenFault } from "../http/access.ts";
import { createHttpServer, type HttpOptions } from "../http/server.ts";
import { isLoopback } from "../wire/endpoint.ts";
import { quote } from "./errors.ts";
import { type ListenAddress, listenAddress } from "./listen.ts";
import { metricsOf } from "./metrics.ts";
import type { OptionSpec, ParsedOptions } from "./options.ts";

/** The token, where no file has it. */
export const TOKEN_VARIABLE = "LAZYGRAPH_HTTP_TOKEN";

export const HTTP_OPTIONS: OptionSpec = {
  http: "string",
  "http-unsafe": "boolean",
  "http-token-file": "string",
  "http-token-reads": "boolean",
  "http-cert": "string",
  "http-key": "string",
};

export const HTTP_HELP = `  --http-token-file FILE  what changes something over HTTP needs the token in FILE, which other
                        users can't read (default: the token in LAZYGRAPH_HTTP_TOKEN, else none)
  --http-token-reads    reading needs the token, too; probes never do
  --http-cert FILE, --http-key FILE   certificate chain and key as PEM: HTTPS
  --http-unsafe         let --http be reached from other machines and by any host name without a
                        token, but for what needs one anyway`;

export interface HttpSide {
  readonly address: ListenAddress;
  readonly unsafe: boolean;
  readonly tokenForReads: boolean;
  readonly tokenFile: string | undefined;
  readonly certFile: string | undefined;
  readonly keyFile: string | undefined;
}

/**
 * What `--http` and its companions say, with the files not read yet; undefined without an address.
 *
 * @param environment of which LAZYGRAPH_HTTP_TOKEN is the token where no file is named
 * @throws OptionError for an address that others may reach without a token or --http-unsafe
 */
export function httpSide(
  options: ParsedOptions,
  environment: NodeJS.ProcessEnv,
  fallback: ListenAddress,
): HttpSide;
export function httpSide(
  options: ParsedOptions,
  environment: NodeJS.ProcessEnv,
): HttpSide | undefined;
export function httpSide(
  { strings, flags }: ParsedOptions,
  environment: NodeJS.ProcessEnv,
  fallback?: ListenAddress,
): HttpSide | undefined {
  const value = strings.get("http");
  const address = value === undefined ? fallback : listenAddress("--http", value);
  const orphan = Object.keys(HTTP_OPTIONS).find((name) => strings.has(name) || flags.has(name));
  if (address === undefined) {
    if (orphan === undefined) return undefined;
    throw new OptionError(
      `--${orphan}`,
      `Expected --http beside --${orphan}, got none: say where the HTTP side listens.`,
    );
  }
  const unsafe = flags.has("http-unsafe");
  const tokenFile = strings.get("http-token-file");
  const certFile = strings.get("http-cert");
  const keyFile = strings.get("http-key");
  const hasToken = tokenFile !== undefined || (environment[TOKEN_VARIABLE] ?? "") !== "";
  if (flags.has("http-token-reads") && !hasToken) {
    throw new OptionError(
      "--http-token-reads",
      `Expected a token beside --http-token-reads, got none: name its file with ` +
        `--http-token-file, or set ${TOKEN_VARIABLE}.`,
    );
  }
  if ((certFile === undefined) !== (keyFile === undefined)) {
    const [given, lacking] = certFile === undefined ? ["key", "cert"] : ["cert", "key"];
    throw new OptionError(
      `--http-${given}`,
      `Expected --http-cert and --http-key together, got no --http-${lacking}.`,
    );
  }
  const isLocal = "path" in address || isLoopback(`tcp://${bracketed(address.host)}:0`);
  if (!isLocal && !hasToken && !unsafe) {
    throw new OptionError(
      "--http",
      `Expected --http to be on loopback, such as 127.0.0.1:7480, or a token for it, got ` +
        `${quote(value ?? "")} without one, where anybody could change modes: name a token's ` +
        "file with --http-token-file, put a proxy in front, or say --http-unsafe.",
    );
  }
  // Beyond loopback `Host` proves nothing: whoever connects writes into it what he likes.
  const tokenForReads = flags.has("http-token-reads") || (!isLocal && !unsafe);
  return { address, unsafe, tokenForReads, tokenFile, certFile, keyFile };
}

/**
 * The server, not yet listening.
 *
 * @throws OptionError for a token, certificate or key that can't be used
 */
export async function openHttpServer(
  controller: Controller,
  side: HttpSide,
  environment: NodeJS.ProcessEnv,
  told: Pick<HttpOptions, "onChange" | "onDenied" | "start"> = {},
): Promise<Server> {
  const token = await readToken(side.tokenFile, environment);
  const tls = await readTls(side);
  return createHttpServer(controller, {
    // No page can reach a socket file, so that what a request names as its host tells nothing.
    anyHost: side.unsafe || "path" in side.address,
    tokenForReads: side.tokenForReads,
    metrics: metricsOf(controller),
    ...(token === undefined ? {} : { token }),
    ...(tls === undefined ? {} : { tls }),
    ...told,
  });
}

/** The token of a file, else that of the environment, else none. @throws OptionError */
export async function readToken(
  file: string | undefined,
  environment: NodeJS.ProcessEnv,
  option = "--http-token-file",
): Promise<string | undefined> {
  const token =
    file === undefined ? environment[TOKEN_VARIABLE]?.trim() : await readSecretFile(option, file);
  if (token === undefined || (token === "" && file === undefined)) return undefined;
  const fault = tokenFault(token);
  if (fault === undefined) return token;
  const name = file === undefined ? TOKEN_VARIABLE : `the token in ${quote(file)}`;
  throw new OptionError(
    file === undefined ? TOKEN_VARIABLE : option,
    `Expected ${name} to be ${fault}, got ${counted(token.length, "character")}: \`openssl rand -hex 32\` ` +
      "makes one.",
  );
}

async function readTls({ certFile, keyFile }: HttpSide): Promise<HttpOptions["tls"]> {
  if (certFile === undefined || keyFile === undefined) return undefined;
  const cert = await readPublicFile("--http-cert", certFile);
  return { cert, key: await readSecretFile("--http-key", keyFile) };
}

function bracketed(host: string): string {
  return host.includes(":") ? `[${host}]` : host;
}
