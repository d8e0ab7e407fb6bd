import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import { listenServer } from "../base/listen-error.ts";
import { note } from "./errors.ts";
import type { HostPort } from "./options.ts";

/**
 * Listens at the address that an option gave and returns its URL, with the port that port 0 became.
 */
export async function listen(
  server: Server,
  { host, port }: HostPort,
  option = "--http",
): Promise<string> {
  await listenServer(server, option, host, port);
  // An error after this is one connection's, such as too many open files.
  server.on("error", ({ message }) => {
    note(`The HTTP side could not take a connection: ${message}.`);
  });
  const bound = server.address() as AddressInfo;
  const shownHost = bound.family === "IPv6" ? `[${bound.address}]` : bound.address;
  return `http://${shownHost}:${bound.port}`;
}
