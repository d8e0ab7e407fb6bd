import { once } from "node:events";
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import { LazygraphError } from "../errors.ts";
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
  server.listen({ host, port });
  try {
    await once(server, "listening");
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === "EADDRINUSE") {
      throw new LazygraphError(
        "ERR_LAZYGRAPH_ADDRESS_IN_USE",
        `Expected a free address for ${option}, got ${host}:${port}, which another program uses: ` +
          "stop it or choose another port (0: any free one).",
        { cause },
      );
    }
    throw new LazygraphError(
      "ERR_LAZYGRAPH_BIND",
      `Expected an address of this host for ${option}, got ${host}:${port}: ${message}.`,
      { cause },
    );
  }
  // An error after this is one connection's, such as too many open files.
  server.on("error", ({ message }) => {
    note(`The HTTP side could not take a connection: ${message}.`);
  });
  const bound = server.address() as AddressInfo;
  const shownHost = bound.family === "IPv6" ? `[${bound.address}]` : bound.address;
  return `http://${shownHost}:${bound.port}`;
}
