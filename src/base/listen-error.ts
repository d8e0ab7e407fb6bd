import { once } from "node:events";
import type { Server } from "node:http";
import { codeOf, LazygraphError, messageOf } from "./errors.ts";

/** The error of a server that could not listen, with a stable code; `option` named the address. */
export function listenError(cause: unknown, option: string, address: string): LazygraphError {
  if (codeOf(cause) === "EADDRINUSE") {
    return new LazygraphError(
      "ERR_LAZYGRAPH_ADDRESS_IN_USE",
      `Expected a free address for ${option}, got ${address}, which another program uses: ` +
        "stop it or choose another one (port 0: any free one).",
      { cause },
    );
  }
  const message = messageOf(cause);
  return new LazygraphError(
    "ERR_LAZYGRAPH_BIND",
    `Expected an address of this host for ${option}, got ${address}: ${message}. Choose another one.`,
    { cause },
  );
}

/** Resolves once it listens. @throws LazygraphError as `listenError` makes it */
export async function listenServer(
  server: Server,
  option: string,
  host: string,
  port: number,
): Promise<void> {
  server.listen({ host, port });
  try {
    await once(server, "listening");
  } catch (cause) {
    throw listenError(cause, option, `${host.includes(":") ? `[${host}]` : host}:${port}`);
  }
}
