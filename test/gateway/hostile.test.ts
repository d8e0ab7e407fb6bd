/** What a client may try: other readings of a path, bodies without end, half a connection. */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { text } from "node:stream/consumers";
import { describe, expect, onTestFinished, test } from "vitest";
import { forwardedPath } from "../../examples/gateway/src/path.ts";
import { connection, readyz, startGateway, startStub } from "./helpers.ts";

const ROOT = new URL("../../", import.meta.url);

describe("paths", () => {
  test.for([
    ["/v1/models", "/v1/models"],
    ["/v1/x?y=/../z", "/v1/x?y=/../z"],
    ["/v1/a%20b/%C3%BC", "/v1/a%20b/%C3%BC"],
    ["http://anywhere:1/v1/models?x", "/v1/models?x"],
    ["/v1/..x/x..", "/v1/..x/x.."],
    ["/v1", undefined],
    ["/metrics/../v1/models", undefined],
    ["/v1/../metrics", undefined],
    ["/v1/x/%2e%2E/metrics", undefined],
    ["/v1/..%2f..%2fadmin", undefined],
    ["/v1/a%5c..%5cadmin", undefined],
    ["/%76%31/models", undefined],
    ["//v1/models", undefined],
    ["http://anywhere/v1/../admin", undefined],
    ["ftp://anywhere/v1/models", undefined],
    ["/v1/%", undefined],
    ["/v1/models#x", undefined],
    ["*", undefined],
  ] as const)("%j goes on as %j", ([target, path]) => {
    expect(forwardedPath(target)).toBe(path);
  });

  test("the engine sees the path that was matched, and nothing else below its own", async () => {
    const seen: (string | undefined)[] = [];
    const upstream = await startStub((request, response) => {
      seen.push(request.url);
      response.end("{}");
    });
    const { url } = await startGateway({ stub: `${upstream.url}/prefix` });
    await expect.poll(async () => (await readyz(url)).ready).toBe(true);
    const status = async (target: string): Promise<string | undefined> => {
      const socket = await connection(url);
      socket.write(`GET ${target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n`);
      return /^HTTP\/1\.1 (\d+)/.exec(await text(socket))?.[1];
    };
    expect(await status("http://evil.example/v1/models")).toBe("200");
    expect(seen).toEqual(["/prefix/v1/models"]);
    for (const target of ["/x/../v1/models", "/%76%31/models", "/v1/..%2f..%2fadmin"]) {
      expect(await status(target), target).toBe("404");
    }
    expect(seen).toHaveLength(1);
  });
});

test("of a refused body no more than 128 MiB are read", async () => {
  const upstream = await startStub((_request, response) => void response.end("{}"));
  const { url } = await startGateway({ stub: upstream.url }, { holdBytes: 1 << 20 });
  await expect.poll(async () => (await readyz(url)).ready).toBe(true);
  const socket = await connection(url);
  let answer = "";
  socket.on("data", (bytes) => {
    answer += bytes;
  });
  // Not by `once`, which a reset would reject.
  const closed = new Promise((resolve) => socket.once("close", resolve));
  socket.on("error", () => undefined);
  socket.write("POST /v1/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
  const piece = Buffer.alloc(1 << 20, "x");
  const chunk = Buffer.concat([Buffer.from("100000\r\n"), piece, Buffer.from("\r\n")]);
  let sent = 0;
  const isOver = closed.then(() => true);
  // An endless body: only the gateway can end this loop.
  while (!socket.destroyed && !socket.errored) {
    sent += 1;
    if (socket.write(chunk)) continue;
    if (
      await Promise.race([
        isOver,
        once(socket, "drain").then(
          () => false,
          () => true,
        ),
      ])
    )
      break;
  }
  await isOver;
  expect(answer).toMatch(/^HTTP\/1\.1 503 /);
  // Beyond that only what the kernels of both sides hold.
  expect(sent).toBeGreaterThan(1);
  expect((await readyz(url)).ready).toBe(true);
});

describe("a client that closes its own side", () => {
  test("gets its answer, however late", async () => {
    let asked = 0;
    const upstream = await startStub(async (request, response) => {
      asked += 1;
      expect(await text(request)).toBe("{}");
      setTimeout(() => response.end("late"), 300);
    });
    const { url } = await startGateway({ stub: upstream.url });
    await expect.poll(async () => (await readyz(url)).ready).toBe(true);
    const socket = await connection(url);
    socket.end("POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}");
    const answer = await text(socket);
    expect(asked).toBe(1);
    expect(answer).toMatch(/^(HTTP\/1\.1 100 Continue\r\n\r\n)+HTTP\/1\.1 200 OK\r\n/);
    expect(answer).toMatch(/\r\n\r\nlate$/);
  });

  test("gets it without more by HTTP/1.0", async () => {
    const upstream = await startStub((_request, response) => {
      setTimeout(() => response.end("late"), 300);
    });
    const { url } = await startGateway({ stub: upstream.url });
    await expect.poll(async () => (await readyz(url)).ready).toBe(true);
    const socket = await connection(url);
    socket.end("GET /v1/models HTTP/1.0\r\nhost: x\r\n\r\n");
    expect(await text(socket)).toMatch(/^HTTP\/1\.1 200 OK\r\n.*late$/s);
  });

  test("and names no host, as some probes by HTTP/1.0 do, gets it too", async () => {
    const upstream = await startStub((_request, response) => void response.end("models"));
    const { url } = await startGateway({ stub: upstream.url });
    await expect.poll(async () => (await readyz(url)).ready).toBe(true);
    for (const path of ["/readyz", "/v1/models"]) {
      const socket = await connection(url);
      socket.end(`GET ${path} HTTP/1.0\r\n\r\n`);
      expect(await text(socket)).toMatch(/^HTTP\/1\.1 200 OK\r\n/);
    }
  });

  test("and has left altogether ends its request in the engine", async () => {
    let tell: () => void = () => undefined;
    const ended = new Promise<void>((resolve) => {
      tell = resolve;
    });
    const upstream = await startStub((_request, response) => void response.once("close", tell));
    const { url } = await startGateway({ stub: upstream.url });
    await expect.poll(async () => (await readyz(url)).ready).toBe(true);
    const socket = await connection(url);
    socket.write("GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n");
    await expect.poll(async () => (await readyz(url)).engines["stub"]?.inFlight).toBe(1);
    socket.destroy();
    await ended;
  });
});

test("IPv6: clients, engines and the controller's endpoint", async () => {
  const upstream = await startStub((_request, response) => void response.end("{}"));
  await new Promise((resolve) => upstream.server.close(resolve));
  upstream.server.listen(0, "::1");
  await once(upstream.server, "listening");
  const { port } = upstream.server.address() as { port: number };
  const main = new URL("examples/gateway/src/main.ts", ROOT).pathname;
  const gateway = spawn(process.execPath, ["--import", "tsx", main], {
    cwd: ROOT,
    stdio: ["ignore", "pipe", "inherit"],
    env: {
      ...process.env,
      ENGINES: `a=http://[::1]:${port}`,
      LISTEN: "[::1]:0",
      LAZYGRAPH_ENDPOINT: "tcp://[::1]:0",
    },
  });
  onTestFinished(() => void gateway.kill("SIGKILL"));
  let said = "";
  for await (const bytes of gateway.stdout) {
    said += bytes;
    if (said.includes("\n")) break;
  }
  const addresses = /^gateway at (http:\/\/\[::1\]:\d+); engines connect to (\S+)\n/.exec(said);
  expect(addresses?.[2]).toMatch(/^tcp:\/\/\[::1\]:[1-9]\d*$/);
  const url = addresses?.[1] ?? "";
  await expect.poll(async () => (await readyz(url)).ready).toBe(true);
  expect((await fetch(`${url}/v1/models`)).status).toBe(200);
});
