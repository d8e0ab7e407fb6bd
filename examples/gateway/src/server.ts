/** The HTTP server around the gateway's routes: how it reads requests, and how it ends. */

import { once } from "node:events";
import type { Server } from "node:http";
import { createAdaptorServer } from "@hono/node-server";
import { letHalfClose } from "./under-way.ts";

export type Fetch = Parameters<typeof createAdaptorServer>[0]["fetch"];

export function createServer(fetch: Fetch): Server {
  // Bodies that nobody reads are `dropRest`'s, which doesn't cut off at once who still sends one.
  // A probe by HTTP/1.0 need not name a host; without one for it, such a request would be a 400.
  const hostname = "localhost";
  const how = { hostname, overrideGlobalObjects: false, autoCleanupIncoming: false };
  const server = createAdaptorServer({ fetch, ...how }) as Server;
  letHalfClose(server);
  // An answer may take as long as it takes; only the request itself has to come in time.
  server.headersTimeout = 30_000;
  server.requestTimeout = 60_000;
  return server;
}

/** Ends it once its connections are idle, or after so many seconds. */
export async function closeServer(server: Server, seconds: number): Promise<void> {
  const closed = once(server, "close");
  server.close();
  const idle = setInterval(() => server.closeIdleConnections(), 20);
  const limit = setTimeout(() => server.closeAllConnections(), seconds * 1000);
  await closed;
  clearInterval(idle);
  clearTimeout(limit);
}
