import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { chmod, stat, symlink, writeFile } from "node:fs/promises";
import { request as httpRequest, type IncomingMessage } from "node:http";
import { request as httpsRequest } from "node:https";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { describe, expect, onTestFinished, test } from "vitest";
import type { Controller } from "../../src/controller/controller.ts";
import { refusalOf, tokenFault } from "../../src/http/access.ts";
import { createHttpServer } from "../../src/http/server.ts";
import { temporaryFolder } from "../helpers/folder.ts";
import { listening } from "../helpers/listening.ts";
import { finish, lazygraph } from "./helpers/command.ts";

const TOKEN = "a-token-of-some-length";
const ENDPOINT = ["--endpoint", "tcp://127.0.0.1:0", "--no-plan", "--json"];

/** Of `serve`: where its HTTP side is. */
async function serve(options: readonly string[], env: NodeJS.ProcessEnv = {}) {
  const running = lazygraph(["serve", ...ENDPOINT, ...options], env);
  const { http } = JSON.parse(await running.line("stdout", /^\{/)) as { http: string };
  return { ...running, http };
}

async function secret(value: string, mode = 0o600): Promise<string> {
  const file = join(await temporaryFolder(), "token");
  await writeFile(file, `${value}\n`);
  await chmod(file, mode);
  return file;
}

const bearer = (token: string) => ({ authorization: `Bearer ${token}` });

describe("who may ask what", () => {
  const head = (method: string, path: string, headers = {}) => ({ method, path, headers });
  const pod = { host: "10.0.3.17:7480" };

  test.for([
    // No token set: loopback's names alone, but for probes.
    [head("GET", "/livez", pod), {}, undefined],
    [head("GET", "/readyz", pod), {}, undefined],
    [head("GET", "/metrics", pod), {}, "host"],
    [head("PUT", "/v1/engines/a/mode", { host: "localhost" }), {}, undefined],
    // One set: what changes needs it, and reading by option.
    [head("PUT", "/v1/engines/a/mode"), { token: TOKEN }, "token-missing"],
    [head("PUT", "/v1/engines/a/mode", bearer(TOKEN)), { token: TOKEN }, undefined],
    [head("PUT", "/v1/engines/a/mode", bearer(`${TOKEN}x`)), { token: TOKEN }, "token-wrong"],
    [head("GET", "/v1/engines"), { token: TOKEN }, undefined],
    [head("GET", "/v1/engines"), { token: TOKEN, tokenForReads: true }, "token-missing"],
    [head("HEAD", "/metrics"), { token: TOKEN, tokenForReads: true }, "token-missing"],
    [head("GET", "/healthz", pod), { token: TOKEN, tokenForReads: true }, undefined],
    // The token stands for the host's name, a wrong one for nothing.
    [head("GET", "/metrics", { ...pod, ...bearer(TOKEN) }), { token: TOKEN }, undefined],
    [head("GET", "/metrics", { ...pod, ...bearer("guess") }), { token: TOKEN }, "token-wrong"],
    [head("GET", "/metrics", { ...pod, ...bearer("guess") }), {}, "host"],
    [head("POST", "/x/freeze", pod), { anyHost: true, token: TOKEN }, "token-missing"],
    // Another scheme is no token; a web page no guest.
    [
      head("PUT", "/v1/engines/a/mode", { authorization: "Basic eA==" }),
      { token: TOKEN },
      "token-missing",
    ],
    [head("GET", "/healthz", { origin: "https://example.org" }), {}, "origin"],
  ] as const)("%j under %j: %s", ([request, options, refusal]) => {
    expect(refusalOf(request, options)).toBe(refusal);
  });

  test.for([
    "",
    "short",
    "with a blank in the middle",
    "x".repeat(513),
    "schlüssel-nummer-eins",
    7,
  ])("%j is no token", (token) => {
    expect(tokenFault(token)).toMatch(/^16 to 512 printable/);
  });
});

describe("serve with a token", () => {
  test("in a file: changing needs it, reading and probes don't, and denials are logged", async () => {
    const running = await serve([
      "--http",
      "127.0.0.1:0",
      "--http-token-file",
      await secret(TOKEN),
    ]);
    const freeze = `${running.http}/v1/engines/nobody/freeze`;
    const without = await fetch(freeze, { method: "POST" });
    expect(without.status).toBe(401);
    expect(without.headers.get("www-authenticate")).toBe("Bearer");
    const { error } = (await without.json()) as { error: { code: string; message: string } };
    expect(error.code).toBe("ERR_LAZYGRAPH_TOKEN");
    expect(error.message).toMatch(/^Expected the controller's token [^\n]*\.$/);
    await running.line(
      "stderr",
      /refused over HTTP: no token \[ERR_LAZYGRAPH_TOKEN\] remote=127\.0\.0\.1 requests=1$/m,
    );
    const withToken = await fetch(freeze, { method: "POST", headers: bearer(TOKEN) });
    expect(withToken.status).toBe(404);
    expect((await fetch(`${running.http}/v1/engines`)).status).toBe(200);
    expect((await fetch(`${running.http}/readyz`)).status).toBe(200);
  });

  test("for reading, too: status says what it lacks, and has it from file or environment", async () => {
    const env = { LAZYGRAPH_HTTP_TOKEN: TOKEN };
    const { http } = await serve(["--http", "127.0.0.1:0", "--http-token-reads"], env);
    const refused = await finish(["status", "--url", http]);
    expect(refused).toMatchObject({ code: 1, stdout: "" });
    expect(refused.stderr).toMatch(
      /^lazygraph: Expected the controller's token .*got none: .*--token-file .*_TOKEN\]\n$/,
    );
    const wrong = await finish(["status", "--url", http], { LAZYGRAPH_HTTP_TOKEN: `${TOKEN}x` });
    expect(wrong.stderr).toContain("got another one");
    expect(await finish(["status", "--url", http], env)).toMatchObject({ code: 0 });
    const file = await secret(TOKEN);
    expect(await finish(["status", "--url", http, "--token-file", file])).toMatchObject({
      code: 0,
    });
    expect((await fetch(`${http}/livez`)).status).toBe(200);
  });

  test.for([
    ["others may read", 0o644, TOKEN, "with mode 0644: `chmod 600` it"],
    ["its group may write", 0o660, TOKEN, "with mode 0660"],
    ["too short", 0o600, "short", "got 5 characters: `openssl rand -hex 32` makes one."],
    ["empty", 0o600, "", "got 0 characters"],
  ] as const)(
    "a file that can't be used (%s) ends the start",
    async ([, mode, value, sentence]) => {
      const file = await secret(value, mode);
      const http = ["--http", "127.0.0.1:0", "--http-token-file", file];
      const { code, stdout, stderr } = await finish(["serve", ...ENDPOINT, ...http]);
      expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
      expect(stderr).toMatch(/^lazygraph: Expected [^\n]*\[ERR_LAZYGRAPH_OPTION\]\n$/);
      expect(stderr).toContain(sentence);
      if (value !== "") expect(stderr).not.toContain(`${value}"`);
    },
  );

  test("a Secret as Kubernetes mounts it is one: a link to a file its group may read", async () => {
    const file = await secret(TOKEN, 0o440);
    const link = `${file}-link`;
    await symlink(file, link);
    const { http } = await serve(["--http", "127.0.0.1:0", "--http-token-file", link]);
    expect((await fetch(`${http}/v1/engines/x/freeze`, { method: "POST" })).status).toBe(401);
  });
});

test("HTTPS, and a certificate that can't be used", async () => {
  const folder = await temporaryFolder();
  const [cert, key] = [join(folder, "cert.pem"), join(folder, "key.pem")];
  const subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"];
  const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  execFileSync("openssl", ["req", "-x509", ...curve, "-keyout", key, "-out", cert, ...subject], {
    stdio: "ignore",
  });
  await chmod(key, 0o600);
  const files = ["--http-cert", cert, "--http-key", key];
  const running = await serve(["--http", "127.0.0.1:0", ...files]);
  expect(running.http).toMatch(/^https:\/\/127\.0\.0\.1:\d+$/);
  const ca = execFileSync("cat", [cert]);
  const sent = httpsRequest(`${running.http}/readyz`, { ca, agent: false }).end();
  const [response] = await once(sent, "response");
  expect(await text(response)).toBe('{"ready":true}\n');
  const status = await finish(["status", "--url", running.http], { NODE_EXTRA_CA_CERTS: cert });
  expect(status).toMatchObject({ code: 0, stdout: "No engine has joined yet.\n" });
  const unknown = await finish(["status", "--url", running.http]);
  expect(unknown.stderr).toMatch(/CERT: name the certificate .* NODE_EXTRA_CA_CERTS\. \[/);
  const plain = await finish(["status", "--url", running.http.replace("https", "http")]);
  expect(plain.stderr).toMatch(/: it may want https:\/\/ in its URL\. \[/);
  // One that never begins its hand-shake keeps nobody from stopping.
  const silent = connect(Number(new URL(running.http).port), "127.0.0.1");
  onTestFinished(() => void silent.destroy());
  await once(silent, "connect");
  running.process.kill("SIGTERM");
  expect(await running.finished).toMatchObject({ code: 0 });

  const swapped = ["--http", "127.0.0.1:0", "--http-cert", key, "--http-key", key];
  const refused = await finish(["serve", ...ENDPOINT, ...swapped]);
  expect(refused).toMatchObject({ code: 2, stdout: "" });
  expect(refused.stderr).toMatch(/^lazygraph: Expected a certificate and its key as PEM/);
});

describe("a socket file", () => {
  test("of this user alone, which status finds, and a name of any host may be sent to", async () => {
    const path = join(await temporaryFolder(), "http.sock");
    const running = await serve(["--http", `unix:${path}`]);
    expect(running.http).toBe(`unix:${path}`);
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    const headers = { host: "controller" };
    const sent = httpRequest({ socketPath: path, path: "/v1/engines", headers }).end();
    const [response] = await once(sent, "response");
    expect(await text(response)).toBe('{"engines":[]}\n');
    const status = await finish(["status", "--url", running.http]);
    expect(status).toMatchObject({ code: 0, stdout: "No engine has joined yet.\n" });
    const second = await finish(["serve", ...ENDPOINT, "--http", `unix:${path}`]);
    expect(second.stderr).toMatch(/another program listens.*ADDRESS_IN_USE\]\n$/);
    // A kill's leftovers don't matter.
    running.process.kill("SIGKILL");
    await running.finished;
    expect((await stat(path)).isSocket()).toBe(true);
    await serve(["--http", `unix:${path}`]);
  });

  test("a file that is no socket is left alone", async () => {
    const path = await secret("precious");
    const { code, stderr } = await finish(["serve", ...ENDPOINT, "--http", `unix:${path}`]);
    expect(code).toBe(1);
    expect(stderr).toMatch(/where something else is, which is left alone.*_BIND\]\n$/);
    expect((await stat(path)).isFile()).toBe(true);
  });
});

/** Connections that are there, of which each ends with the test. */
async function connections(url: string, count: number): Promise<Socket[]> {
  const { hostname, port } = new URL(url);
  const host = hostname.replace(/^\[|\]$/g, "");
  const sockets = Array.from({ length: count }, () => connect(Number(port), host));
  for (const socket of sockets) socket.on("error", () => undefined);
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
  });
  await Promise.all(sockets.map((socket) => once(socket, "connect")));
  return sockets;
}

describe("connections that others hold", () => {
  test("256 that send nothing: a probe is answered while they last", async () => {
    const { http } = await serve(["--http", "127.0.0.1:0"]);
    const silent = await connections(http, 256);
    expect((await fetch(`${http}/readyz`)).status).toBe(200);
    // It took a place, and the rest were there all the time. Its answer may overtake that end.
    const open = () => silent.filter(({ readyState }) => readyState === "open");
    await expect.poll(open).toHaveLength(255);
  });

  test("256 that have sent half a head, and 256 more: each probe is answered", async () => {
    const { http } = await serve(["--http", "127.0.0.1:0"]);
    for (let wave = 0; wave < 2; wave += 1) {
      for (const socket of await connections(http, 256))
        socket.write("GET /v1/engines HTTP/1.1\r\n");
      // By a connection of its own: one that fetch kept may be what gives way to the second wave.
      const probe = httpRequest(`${http}/healthz`, { agent: false }).end();
      const [answer] = (await once(probe, "response")) as [IncomingMessage];
      answer.resume();
      expect(answer.statusCode).toBe(200);
    }
  });

  test("256 that never end their bodies: the one that is oldest gives way", async () => {
    const { http } = await serve(["--http", "127.0.0.1:0"]);
    const head = "PUT /v1/engines/x/mode HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{";
    for (const socket of await connections(http, 256)) socket.write(head);
    expect((await fetch(`${http}/livez`)).status).toBe(200);
  });

  test("one that sends nothing is closed in time", async () => {
    const { http } = await serve(["--http", "127.0.0.1:0"]);
    const [silent] = await connections(http, 1);
    if (silent === undefined) throw new Error("no connection");
    // Either of two timers ends it, and Node's says 408 first: unread, it hides the end.
    silent.resume();
    await once(silent, "close");
  });

  test("one that takes nothing of its answers is closed in time", async () => {
    const controller = { engines: () => [{ engine: "x".repeat(64 << 20) }] };
    const server = createHttpServer(controller as unknown as Controller);
    const accepted = once(server, "connection");
    const [deaf] = await connections(await listening(server), 1);
    const [theirs] = (await accepted) as [Socket];
    // The second answer meets other timers of Node's than the first.
    deaf?.write("GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n");
    deaf?.write("GET /v1/engines HTTP/1.1\r\nhost: localhost\r\n\r\n");
    await once(theirs, "close");
  });

  test("who closes its own side still gets its answer", async () => {
    const { http } = await serve(["--http", "127.0.0.1:0"]);
    const [socket] = await connections(http, 1);
    if (socket === undefined) throw new Error("no connection");
    socket.end("GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n");
    expect(await text(socket)).toMatch(/^HTTP\/1\.1 200 OK\r\n/);
  });
});

test("IPv6: the HTTP side listens at [::1], as an URL that can be used", async () => {
  const server = createServer().listen(0, "::1");
  await Promise.race([once(server, "listening"), once(server, "error")]);
  expect((server.address() as AddressInfo | null)?.address).toBe("::1");
  server.close();
  const { http } = await serve(["--http", "[::1]:0"]);
  expect(http).toMatch(/^http:\/\/\[::1\]:\d+$/);
  expect((await fetch(`${http}/v1/engines`)).status).toBe(200);
  expect(await finish(["status", "--url", http])).toMatchObject({ code: 0 });
});
