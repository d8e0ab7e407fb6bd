/** What an endpoint says about who can reach it, and whether it is taken. */

import { existsSync } from "node:fs";
import { stat, unlink } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { dirname } from "node:path";
import { setTimeout } from "node:timers/promises";
import { rule } from "../base/check-options.ts";
import { OptionError } from "../base/errors.ts";
import type { Schema } from "../base/schema.ts";

/** Whether this machine alone connects. Names aren't resolved: an unknown one is remote. */
export function isLoopback(endpoint: string): boolean {
  if (endpoint.startsWith("ipc://")) return true;
  const host = /^tcp:\/\/(.+):[^:]+$/.exec(endpoint)?.[1];
  return (
    host !== undefined &&
    (host === "localhost" || host === "[::1]" || /^127(\.\d{1,3}){3}$/.test(host))
  );
}

/** What fits into a socket's address on Linux. */
export const SOCKET_PATH_BYTES_MAX = 107;

/** @throws OptionError when the endpoint is neither `tcp://HOST:PORT` nor `ipc://PATH`. */
export function checkEndpoint(option: string, endpoint: string): void {
  const port = /^tcp:\/\/[^\s/]+:(\d{1,5}|\*)$/.exec(endpoint)?.[1];
  if (port !== undefined && (port === "*" || Number(port) <= 65535)) return;
  if (/^ipc:\/\/\S+$/.test(endpoint)) {
    if (Buffer.byteLength(endpoint) <= "ipc://".length + SOCKET_PATH_BYTES_MAX) return;
    throw new OptionError(
      option,
      `Expected ${option} to be ipc://PATH with a path of at most ${SOCKET_PATH_BYTES_MAX} bytes, ` +
        `got ${JSON.stringify(endpoint)}.`,
    );
  }
  throw new OptionError(
    option,
    `Expected ${option} to be an endpoint such as tcp://127.0.0.1:5757, tcp://127.0.0.1:0 or ` +
      `ipc:///run/lazygraph.sock, got ${JSON.stringify(endpoint)}.`,
  );
}

/** What to do where it can't be bound though nobody listens. */
export function bindAdvice(endpoint: string): string {
  const path = /^ipc:\/\/(.+)$/s.exec(endpoint)?.[1];
  if (path === undefined) return "choose one that this machine has, such as tcp://127.0.0.1:5757";
  return missingFolder(path) ?? "choose a path where this user may make a file";
}

/** What to do where a socket file's folder isn't there; undefined: it is. */
export function missingFolder(path: string): string | undefined {
  const folder = dirname(path);
  return existsSync(folder) ? undefined : `make the folder ${folder}, or choose another path`;
}

/** Of a controller and its standbys. */
const ENDPOINTS_MAX = 8;

/**
 * What an engine is told of where controllers are, as the plugin reads it: one endpoint, or up to
 * eight in order with commas between them.
 *
 * @throws OptionError for none, too many, one that comes twice, no host or port, or what is no endpoint
 */
export function endpointsOf(option: string, text: string): readonly string[] {
  const endpoints = text
    .split(",")
    .map((part) => part.trim())
    .filter((part) => part !== "");
  if (endpoints.length === 0) checkEndpoint(option, text);
  for (const endpoint of endpoints) {
    checkEndpoint(option, endpoint);
    if (!/^tcp:(\/\/\*:|.*:(0+|\*)$)/.test(endpoint)) continue;
    const got = JSON.stringify(endpoint);
    throw new OptionError(
      option,
      `Expected ${option} to name a controller's host and port, got ${got}.`,
    );
  }
  if (endpoints.length > ENDPOINTS_MAX) {
    throw new OptionError(
      option,
      `Expected ${option} to have at most ${ENDPOINTS_MAX} endpoints, got ${endpoints.length}.`,
    );
  }
  if (new Set(endpoints).size === endpoints.length) return endpoints;
  throw new OptionError(
    option,
    `Expected ${option} to name each endpoint once, got ${JSON.stringify(text)}.`,
  );
}

/** Of an option of that name. @throws OptionError as `checkEndpoint` */
export const endpointRule: Schema<unknown> = endpointText(checkEndpoint);

/** The same for what an engine is told. @throws OptionError as `endpointsOf` */
export const endpointsRule: Schema<unknown> = endpointText(endpointsOf);

function endpointText(check: (option: string, text: string) => unknown): Schema<unknown> {
  return rule("an endpoint such as tcp://127.0.0.1:5757", (value) => {
    if (typeof value !== "string") return false;
    check("endpoint", value);
    return true;
  });
}

/**
 * Whether something that is no socket has an ipc endpoint's path. ZeroMQ would unlink a file without
 * looking at what it is.
 */
export async function isForeignFile(endpoint: string): Promise<boolean> {
  const path = socketPath(endpoint);
  const entry = path === undefined ? undefined : await stat(path).catch(() => undefined);
  return entry !== undefined && !entry.isSocket();
}

/**
 * Whether somebody listens on an ipc endpoint. ZeroMQ unlinks an existing socket file and binds
 * anew, so that a second controller would silently take the first one's place.
 */
export async function isIpcServed(endpoint: string): Promise<boolean> {
  const path = endpoint.slice("ipc://".length);
  // `@name` is an abstract socket: nothing to unlink, and bind reports a taken name by itself.
  if (!endpoint.startsWith("ipc://") || path.startsWith("@")) return false;
  const entry = await stat(path).catch(() => undefined);
  if (entry === undefined || !entry.isSocket()) return false;
  return new Promise((resolve) => {
    const socket = connect(path);
    const answer = (served: boolean): void => {
      socket.destroy();
      resolve(served);
    };
    socket.once("connect", () => answer(true));
    socket.once("error", () => answer(false));
  });
}

/** Which file an ipc endpoint was bound to: one of the same name may be another's by now. */
export interface SocketFile {
  readonly dev: number;
  readonly ino: number;
}

/** Undefined where there is none: over TCP, and for an abstract socket. */
export async function socketFileOf(endpoint: string): Promise<SocketFile | undefined> {
  const path = socketPath(endpoint);
  return path === undefined ? undefined : stat(path).catch(() => undefined);
}

/** Takes away what libzmq leaves of a closed ipc endpoint, unless it is a successor's. */
export async function removeSocketFile(
  endpoint: string,
  own: SocketFile | undefined,
): Promise<void> {
  const path = socketPath(endpoint);
  if (path === undefined || own === undefined) return;
  const there = await socketFileOf(endpoint);
  if (there?.dev !== own.dev || there.ino !== own.ino || (await isIpcServed(endpoint))) return;
  await unlink(path).catch(() => undefined);
}

function socketPath(endpoint: string): string | undefined {
  const path = endpoint.startsWith("ipc://") ? endpoint.slice("ipc://".length) : "@";
  return path.startsWith("@") ? undefined : path;
}

/** How often a closed endpoint is looked at, and for how many milliseconds between two looks. */
const FREE_LOOKS_MAX = 200;
const FREE_LOOK_MS = 5;

/**
 * Resolves once a closed endpoint can be bound again, or after a second in any case: libzmq lets go
 * of an address in the background.
 */
export async function waitUntilFree(endpoint: string): Promise<void> {
  for (let look = 0; look < FREE_LOOKS_MAX; look += 1) {
    if (await isFree(endpoint)) return;
    await setTimeout(FREE_LOOK_MS);
  }
}

async function isFree(endpoint: string): Promise<boolean> {
  // Its file stays: libzmq leaves it there.
  if (endpoint.startsWith("ipc://")) return !(await isIpcServed(endpoint));
  const [, host, port] = /^tcp:\/\/\[?([^\]]+?)\]?:(\d+)$/.exec(endpoint) ?? [];
  if (host === undefined) return true;
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(false));
    server.listen({ host, port: Number(port) }, () => server.close(() => resolve(true)));
  });
}
