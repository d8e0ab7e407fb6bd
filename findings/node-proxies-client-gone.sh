#!/bin/sh
# A client that leaves a streamed answer ends it at the engine through each of these proxies for Node.
# One that leaves before the answer's head, which for a completion that isn't streamed is the whole
# time, does so through four of seven: through the others the engine isn't told, and computes to the
# end what the proxy then throws away.
# Seen with Node 20.20.2, hono 4.13.19, h3 2.0.8, http-proxy-3 1.23.3, httpxy 0.5.6, @fastify/http-proxy
# 11.6.3 and http-proxy-middleware 3.0.11 (its 4, for Node 22, is httpxy's server): the output below.
# The engine waits three seconds for its client's end.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >npm.log
npm install --no-json --ignore-scripts --no-audit hono@4.13.19 @hono/node-server@2.1.9 h3@2.0.8 \
  http-proxy-3@1.23.3 httpxy@0.5.6 fastify@5.12.8 @fastify/http-proxy@11.6.3 express@5.3.0 \
  http-proxy-middleware@3.0.11 >>npm.log 2>&1

cat >leave.mjs <<'JS'
import { once } from "node:events";
import { createServer, request } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import fastifyProxy from "@fastify/http-proxy";
import { serve } from "@hono/node-server";
import express from "express";
import fastify from "fastify";
import { H3, proxyRequest, toNodeHandler } from "h3";
import { Hono } from "hono";
import { proxy } from "hono/proxy";
import { createProxyServer } from "http-proxy-3";
import { createProxyMiddleware } from "http-proxy-middleware";
import { createProxyServer as createHttpxy, proxyFetch } from "httpxy";

async function listen(server) {
  if (!server.listening) await once(server.listen(0, "127.0.0.1"), "listening");
  return server.address().port;
}
let arrived;
const engine = createServer(async (incoming, outgoing) => {
  for await (const _ of incoming);
  const left = once(outgoing, "close").then(() => "told");
  if (incoming.url === "/streamed") outgoing.write("data: {}\n\n");
  arrived(Promise.race([left, sleep(3000, "not told")]).finally(() => outgoing.end()));
});
const target = `http://127.0.0.1:${await listen(engine)}`;
const byFetch = (fetch) => serve({ fetch, port: 0, hostname: "127.0.0.1" });
const silent = (server) => server.on("error", () => {});
const proxies = {
  hono: () => {
    const app = new Hono().all("*", ({ req }) => proxy(target + req.path, req));
    return byFetch(app.fetch);
  },
  h3: () => {
    const app = new H3().all("/**", (event) => proxyRequest(event, target + event.url.pathname));
    return createServer(toNodeHandler(app));
  },
  "http-proxy-3": () => {
    const web = silent(createProxyServer({ target }));
    return createServer((incoming, outgoing) => web.web(incoming, outgoing));
  },
  "httpxy, a server": () => {
    const web = silent(createHttpxy({ target }));
    return createServer((incoming, outgoing) => web.web(incoming, outgoing));
  },
  "httpxy, proxyFetch": () => byFetch((incoming) => proxyFetch(target, incoming)),
  "@fastify/http-proxy": async () => {
    const app = fastify().register(fastifyProxy, { upstream: target });
    await app.ready();
    return app.server;
  },
  "http-proxy-middleware": () => createServer(express().use(createProxyMiddleware({ target }))),
};
process.on("unhandledRejection", () => {}); // What a proxy throws at the end of a connection.
for (const [name, make] of Object.entries(proxies)) {
  const port = await listen(await make());
  const seen = [];
  for (const path of ["/streamed", "/whole"]) {
    const told = new Promise((resolve) => {
      arrived = (told) => resolve({ told });
    });
    const client = request({ port, host: "127.0.0.1", path, method: "POST" });
    client.on("error", () => {});
    const chunk = once(client, "response").then(async ([answer]) => {
      answer.on("error", () => {});
      await once(answer, "data");
    });
    client.setHeader("content-type", "application/json").end("{}");
    const end = await told;
    if (path === "/streamed") await chunk;
    else chunk.catch(() => {});
    client.destroy();
    seen.push(`${path.slice(1)} ${await end.told}`);
  }
  console.log(`${name}: ${seen.join(", ")}`);
}
process.exit();
JS
timeout 120 node leave.mjs | tee output
cat >expected <<'TXT'
hono: streamed told, whole told
h3: streamed told, whole told
http-proxy-3: streamed told, whole told
httpxy, a server: streamed told, whole told
httpxy, proxyFetch: streamed told, whole not told
@fastify/http-proxy: streamed told, whole not told
http-proxy-middleware: streamed told, whole not told
TXT
cmp expected output
