import { stat, unlink } from "node:fs/promises";
import type { Server } from "node:http";
import { Server as TlsServer } from "node:https";
import type { AddressInfo } from "node:net";
import { LazygraphError } from "../base/errors.ts";
import { listenError, listenServer } from "../base/listen-error.ts";
import { isIpcServed, missingFolder, SOCKET_PATH_BYTES_MAX } from "../wire/endpoint.ts";
import { note, usageError } from "./errors.ts";
import { type HostPort, hostPortOption } from "./options.ts";

/** A port, or a socket file that only this user may open. */
export type ListenAddress = HostPort | { readonly path: string };

const SOCKET_MODE = 0o600;

/** `HOST:PORT`, `[IPV6]:PORT` or `unix:PATH`. */
export function listenAddress(option: string, value: string): ListenAddress {
  const path = /^unix:(.+)$/s.exec(value)?.[1];
  if (path === undefined) return hostPortOption(option, value);
  // Node would cut off the rest.
  const sound = Buffer.byteLength(path) <= SOCKET_PATH_BYTES_MAX && !path.includes("\0");
  if (sound) return { path };
  throw usageError(
    option,
    `unix:PATH with a path of at most ${SOCKET_PATH_BYTES_MAX} bytes`,
    value,
  );
}

/**
 * Listens at the address that an option gave and returns its URL, with the port that port 0 became;
 * `unix:PATH` for a socket file.
 */
export async function listen(
  server: Server,
  address: ListenAddress,
  { option = "--http", tell = note }: { option?: string; tell?: typeof note } = {},
): Promise<string> {
  if ("path" in address) await listenFile(server, address.path, option);
  else await listenServer(server, option, address.host, address.port);
  // An error after this is one connection's, such as too many open files.
  server.on("error", ({ message }) => {
    tell(`The HTTP side could not take a connection: ${message}.`);
  });
  if ("path" in address) return `unix:${address.path}`;
  const bound = server.address() as AddressInfo;
  const shownHost = bound.family === "IPv6" ? `[${bound.address}]` : bound.address;
  return `${server instanceof TlsServer ? "https" : "http"}://${shownHost}:${bound.port}`;
}

async function listenFile(server: Server, path: string, option: string): Promise<void> {
  // Node would say that it has no permission.
  const advice = missingFolder(path);
  if (advice !== undefined) {
    throw new LazygraphError(
      "ERR_LAZYGRAPH_BIND",
      `Expected ${option} to be a socket file in a folder that is there, got unix:${path}: ` +
        `${advice}.`,
    );
  }
  await removeDeadSocket(path, option);
  // The file is made within `listen`, with the rights that the mask leaves: never open for others.
  const mask = process.umask(0o777 & ~SOCKET_MODE);
  try {
    server.listen({ path });
  } finally {
    process.umask(mask);
  }
  await new Promise<void>((resolve, reject) => {
    const fail = (cause: Error): void => reject(listenError(cause, option, path));
    server.once("listening", () => {
      server.off("error", fail);
      resolve();
    });
    server.once("error", fail);
  });
}

/** What a killed process left behind; a file that is no socket is never touched. */
async function removeDeadSocket(path: string, option: string): Promise<void> {
  const entry = await stat(path).catch(() => undefined);
  if (entry === undefined) return;
  if (!entry.isSocket()) {
    throw new LazygraphError(
      "ERR_LAZYGRAPH_BIND",
      `Expected ${option} to be a socket file or none yet, got unix:${path}, where something else ` +
        "is, which is left alone: choose another path.",
    );
  }
  if (await isIpcServed(`ipc://${path}`)) {
    throw new LazygraphError(
      "ERR_LAZYGRAPH_ADDRESS_IN_USE",
      `Expected a free address for ${option}, got unix:${path}, where another program listens: ` +
        "stop it or choose another path.",
    );
  }
  await unlink(path).catch(() => undefined);
}
