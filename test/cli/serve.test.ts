import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { rm, writeFile } from "node:fs/promises";
import { createServer as createHttp, get } from "node:http";
import { createServer } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, onTestFinished, test } from "vitest";
import { curveKeyPair } from "zeromq";
import { type SimulatedEngine, startSimulatedEngine } from "../../src/testing.ts";
import { temporaryFolder } from "../helpers/folder.ts";
import { listening } from "../helpers/listening.ts";
import { finish, lazygraph, type Running } from "./helpers/command.ts";

const ANYWHERE = ["--endpoint", "tcp://127.0.0.1:0", "--http", "127.0.0.1:0"];

interface Addresses {
  readonly endpoint: string;
  readonly http: string;
}

/** A server on free ports, and where it listens. */
async function serve(...options: string[]): Promise<Running & Addresses> {
  const running = lazygraph(["serve", ...ANYWHERE, "--json", ...options]);
  const line = await running.line("stdout", /^\{/);
  return { ...running, ...(JSON.parse(line) as Addresses) };
}

/** A simulated engine that waits for this controller's answer, however late that is. */
async function engineAt(endpoint: string, engine: string): Promise<SimulatedEngine> {
  const its = await startSimulatedEngine({ endpoint, engine, speed: 100, handshakeMs: 60_000 });
  onTestFinished(() => its.close().then(() => undefined));
  return its;
}

test("serves until told to stop", async () => {
  const running = await serve();
  expect(running.endpoint).toMatch(/^tcp:\/\/127\.0\.0\.1:[1-9]\d*$/);
  const health = await fetch(`${running.http}/healthz`);
  expect(health.status).toBe(200);
  running.process.kill("SIGTERM");
  const { code, stderr } = await running.finished;
  expect(code).toBe(0);
  expect(stderr).toMatch(/^\S+Z info {2}SIGTERM: stopping; engines go on by themselves\.\n$/);
  await expect(fetch(`${running.http}/healthz`)).rejects.toThrow();
});

test("without --json it says where it listens, on stderr only", async () => {
  const running = lazygraph(["serve", ...ANYWHERE, "--mode", "lazy"]);
  await running.line("stderr", /controller at tcp:\S+ \(mode lazy\), HTTP at http:\S+\.$/);
  running.process.kill("SIGINT");
  expect(await running.finished).toMatchObject({ code: 0, stdout: "" });
});

describe("what can't work ends in one sentence", () => {
  test.for([
    [["--http", "7480"], 2, "--http to be HOST:PORT", "ERR_LAZYGRAPH_OPTION"],
    [["--mode", "fast"], 2, "--mode to be eager, lazy or idle", "ERR_LAZYGRAPH_OPTION"],
    [["--http", "0.0.0.0:0"], 2, "or a token for it", "ERR_LAZYGRAPH_OPTION"],
    [
      ["--http", "192.0.2.1:0", "--http-unsafe"],
      1,
      "Expected an address of this host",
      "ERR_LAZYGRAPH_BIND",
    ],
  ] as const)("serve %j", async ([options, exit, sentence, code]) => {
    const result = await finish(["serve", "--endpoint", "tcp://127.0.0.1:0", ...options]);
    expect({ code: result.code, stdout: result.stdout }).toEqual({ code: exit, stdout: "" });
    expect(result.stderr).toContain(sentence);
    expect(result.stderr).toMatch(new RegExp(`^lazygraph: .* \\[${code}\\]\n$`));
  });

  test("an occupied HTTP port", async () => {
    const { host } = new URL(await listening(createServer()));
    const result = await finish(["serve", "--endpoint", "tcp://127.0.0.1:0", "--http", host]);
    expect(result.code).toBe(1);
    expect(result.stderr).toMatch(/^lazygraph: .*\[ERR_LAZYGRAPH_ADDRESS_IN_USE\]\n$/);
  });

  test("an occupied endpoint", async () => {
    const first = await serve();
    const options = ["--endpoint", first.endpoint, "--http", "127.0.0.1:0"];
    const result = await finish(["serve", ...options]);
    expect(result.code).toBe(1);
    expect(result.stderr).toMatch(/^lazygraph: .*\[ERR_LAZYGRAPH_ADDRESS_IN_USE\]\n$/);
  });
});

test("the mode of the environment holds, as under run", async () => {
  const running = lazygraph(["serve", ...ANYWHERE], { LAZYGRAPH_MODE: "lazy" });
  await running.line("stderr", /\(mode lazy\)/);
  const wrong = await finish(["serve", ...ANYWHERE], { LAZYGRAPH_MODE: "fast" });
  expect(wrong.code).toBe(2);
  expect(wrong.stderr).toContain("LAZYGRAPH_MODE to be eager, lazy or idle");
});

test("so does its reservation, and is checked", async () => {
  const wrong = await finish(["serve", ...ANYWHERE], { LAZYGRAPH_RESERVE: "all" });
  expect(wrong.code).toBe(2);
  expect(wrong.stderr).toContain(
    'Expected LAZYGRAPH_RESERVE to be none, least, top or plan, got "all".',
  );
});

test("a folder for plans that is none is told at the start, and ends nothing", async () => {
  const file = fileURLToPath(import.meta.url);
  const running = await serve("--plan-dir", file, "--quiet");
  await running.line(
    "stderr",
    / warn {2}Expected a folder for learned plans .+ got ENOTDIR .+ \[ERR_LAZYGRAPH_PLAN\]$/,
  );
  running.process.kill("SIGTERM");
  expect(await running.finished).toMatchObject({ code: 0 });
});

test("under nohup it outlives its terminal", async () => {
  const running = lazygraph(["serve", ...ANYWHERE, "--json"], { _: "/usr/bin/nohup" });
  const { http } = JSON.parse(await running.line("stdout", /^\{/)) as Addresses;
  running.process.kill("SIGHUP");
  expect((await fetch(`${http}/healthz`)).status).toBe(200);
  running.process.kill("SIGTERM");
  const { code, stderr } = await running.finished;
  expect(code).toBe(0);
  expect(stderr).toMatch(/^\S+Z info {2}SIGTERM: stopping; engines go on by themselves\.\n$/);
});

test("two engines of one name are told, --quiet or not, and marked", async () => {
  const { endpoint, http, ...running } = await serve("--quiet");
  await (await engineAt(endpoint, "host/model")).waitFor("ready");
  await (await engineAt(endpoint, "host/model")).waitFor("ready");
  await running.line("stderr", / warn {2}host\/model: .*LAZYGRAPH_ENGINE.*ENGINE_REPLACED\]$/);
  const { stdout } = await finish(["status", "--url", http]);
  expect(stdout).toContain("took its name from another engine");
});

describe("beyond loopback", () => {
  const options = ["serve", "--endpoint", "tcp://0.0.0.0:0", "--http", "127.0.0.1:0", "--json"];

  test("without keys it doesn't listen", async () => {
    const { code, stdout, stderr } = await finish(options);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toMatch(
      /^lazygraph: Expected CURVE keys for --endpoint tcp:\/\/0\.0\.0\.0:0.*\[ERR_LAZYGRAPH_OPTION\]\n$/,
    );
  });

  test("with keys it does", async () => {
    const { publicKey, secretKey } = curveKeyPair();
    const running = lazygraph(options, {
      LAZYGRAPH_SERVER_KEY: publicKey,
      LAZYGRAPH_SERVER_SECRET_KEY: secretKey,
    });
    await running.line("stdout", /^\{"endpoint":"tcp:\/\/0\.0\.0\.0:\d+"/);
  });

  test("HTTP is there when asked for by name, and takes any host", async () => {
    const args = ["--endpoint", "tcp://127.0.0.1:0", "--http", "0.0.0.0:0", "--http-unsafe"];
    const running = lazygraph(["serve", ...args, "--json"]);
    const { http } = JSON.parse(await running.line("stdout", /^\{/)) as Addresses;
    const port = Number(new URL(http).port);
    const request = get({ host: "127.0.0.1", port, path: "/healthz", headers: { host: "gw-0" } });
    const [response] = await once(request, "response");
    expect(response.statusCode).toBe(200);
    response.resume();
  });

  test("half a pair is refused, and the secret is not shown", async () => {
    const { secretKey } = curveKeyPair();
    const { code, stderr } = await finish(options, { LAZYGRAPH_SERVER_SECRET_KEY: secretKey });
    expect(code).toBe(2);
    expect(stderr).toContain("Expected LAZYGRAPH_SERVER_KEY to be a Z85 key of 40 characters");
    expect(stderr).not.toContain(secretKey);
  });

  test("a folder of keys that isn't there is told by the variable that names it", async () => {
    const { code, stderr } = await finish(options, { LAZYGRAPH_CONTROLLER_KEYS: "/nowhere" });
    expect(code).toBe(2);
    expect(stderr).toContain("Expected LAZYGRAPH_CONTROLLER_KEYS to be a folder with secret.key");
  });

  test.for([
    ["another pair's secret", "LAZYGRAPH_SERVER_SECRET_KEY", curveKeyPair().secretKey],
    ["what is no Z85", "LAZYGRAPH_SERVER_KEY", "~".repeat(40)],
    ["a client's key that is cut off", "LAZYGRAPH_CLIENT_KEYS", curveKeyPair().publicKey.slice(1)],
    ["a key's place left empty", "LAZYGRAPH_CLIENT_KEYS", `${curveKeyPair().publicKey},`],
  ])("%s is refused by its variable, and not shown", async ([, name = "", value = ""]) => {
    const { publicKey, secretKey } = curveKeyPair();
    const pair = { LAZYGRAPH_SERVER_KEY: publicKey, LAZYGRAPH_SERVER_SECRET_KEY: secretKey };
    const { code, stderr } = await finish(options, { ...pair, [name]: value });
    expect(code).toBe(2);
    expect(stderr).toMatch(new RegExp(`^lazygraph: Expected ${name} to be .*_OPTION\\]\n$`));
    expect(stderr).not.toContain(value);
  });
});

describe("lazygraph status", () => {
  test("reads a running controller", async () => {
    const { http } = await serve();
    const json = await finish(["status", "--url", http, "--json"]);
    expect({ code: json.code, stderr: json.stderr }).toEqual({ code: 0, stderr: "" });
    expect(JSON.parse(json.stdout)).toEqual({ engines: [] });
    const text = await finish(["status", "--url", http]);
    expect(text).toMatchObject({ code: 0, stdout: "No engine has joined yet.\n" });
  });

  test("an engine joins, is changed and frozen over HTTP, and shown", async () => {
    const { endpoint, http } = await serve("--mode", "lazy");
    await engineAt(endpoint, "host/model");
    const url = `${http}/v1/engines/host%2Fmodel`;
    await expect.poll(async () => (await fetch(url)).text()).toContain('"phase":"serving"');
    const frozen = await fetch(`${url}/freeze`, { method: "POST" });
    expect(await frozen.json()).toMatchObject({ engine: "host/model", mode: "lazy", frozen: true });
    const changed = await fetch(`${url}/mode`, { method: "PUT", body: '{"mode":"idle"}' });
    expect(await changed.json()).toMatchObject({ mode: "idle", frozen: false });
    const { code, stdout } = await finish(["status", "--url", http, "--engine", "host/model"]);
    expect(code).toBe(0);
    expect(stdout).toMatch(/│ host\/model \(simulated: [^│]+│ idle \(idle-costed\) +│ serving/);
    expect(stdout).toMatch(/│ PIECEWISE:512 +│ captured /);
    expect((await finish(["status", "--url", http])).stdout).toContain("host/model");
  });

  test("an engine that never joined", async () => {
    const { http } = await serve();
    const { code, stdout, stderr } = await finish(["status", "--url", http, "--engine", "a/b"]);
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(stderr).toMatch(/^lazygraph: .*"a\/b" .*\[ERR_LAZYGRAPH_ENGINE_UNKNOWN\]\n$/);
  });

  test("nobody there", async () => {
    const server = createServer();
    const url = await listening(server);
    await new Promise((resolve) => server.close(resolve));
    const { code, stderr } = await finish(["status", "--url", url]);
    expect(code).toBe(1);
    expect(stderr).toMatch(
      /^lazygraph: Expected a controller's HTTP side at .*got ECONNREFUSED: start `lazygraph serve`, give `lazygraph run` --http, or .*_UNREACHABLE\]\n$/,
    );
  });

  test("an address that is no controller's says why", async () => {
    const { code, stderr } = await finish(["status", "--url", "http://nosuch.invalid:1"]);
    expect(code).toBe(1);
    expect(stderr).toMatch(/http:\/\/nosuch\.invalid:1, got (?:ENOTFOUND|EAI_AGAIN):/);
  });

  test("somebody else there", async () => {
    const url = await listening(createHttp((_, response) => response.writeHead(200).end("<html>")));
    const { code, stderr } = await finish(["status", "--url", url]);
    expect(code).toBe(1);
    expect(stderr).toContain("[ERR_LAZYGRAPH_CONTROLLER_UNREACHABLE]");
    const secure = await finish(["status", "--url", url.replace("http:", "https:")]);
    expect(secure.stderr).toContain("got ERR_SSL_WRONG_VERSION_NUMBER: it may want http:// in");
  });

  test("somebody else there who speaks no HTTP, or refuses as a controller does", async () => {
    const server = createServer((socket) => socket.end("220 mail.example.org ESMTP\r\n\r\n"));
    const mail = await finish(["status", "--url", await listening(server)]);
    expect(mail.stderr).toMatch(
      /got an answer that is not HTTP: start `lazygraph serve`, .*_UNREACHABLE\]\n$/,
    );
    const zeromq = createServer((socket) => socket.end(Buffer.from([255, 0])));
    const engines = await finish(["status", "--url", await listening(zeromq)]);
    expect(engines.stderr).toContain("got ZeroMQ, not HTTP: give the port of --http, not");
    const error = { code: "ERR_HTTP_HOST", message: "Expected another host, got this one." };
    const web = createHttp((_, response) => response.writeHead(421).end(JSON.stringify({ error })));
    const { code, stderr } = await finish(["status", "--url", await listening(web)]);
    expect(code).toBe(1);
    expect(stderr).toContain("got HTTP status 421: Expected another host, got this one. [ERR_");
  });

  test("a password in --url is refused, and shown nowhere", async () => {
    const { code, stderr } = await finish(["status", "--url", "http://me:hush@127.0.0.1:1"]);
    expect(code).toBe(2);
    expect(stderr).toMatch(/Expected --url without user and password.*\[ERR_LAZYGRAPH_OPTION\]\n$/);
    expect(stderr).not.toContain("hush");
  });

  test.for(["{}", "[]", '{"engines":5}', '{"engines":[{}]}', '{"graphs":[],"engine":"x"}'])(
    "somebody else there who answers %s",
    async (body) => {
      const url = await listening(createHttp((_, response) => response.writeHead(200).end(body)));
      const { code, stdout, stderr } = await finish(["status", "--url", url]);
      expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
      expect(stderr).toMatch(
        /^lazygraph: Expected a controller's HTTP side .*\[ERR_LAZYGRAPH_CONTROLLER_UNREACHABLE\]\n$/,
      );
    },
  );

  test.for(["7480", "ftp://x", "http://"])("--url %s is a usage error", async (url) => {
    const { code, stderr } = await finish(["status", "--url", url]);
    expect(code).toBe(2);
    expect(stderr).toContain("Expected --url to be a URL such as");
  });
});

describe("its log", () => {
  /** Lines of JSON from stderr, as they are now. */
  async function change(http: string, path: string, method: string, body: object) {
    return fetch(`${http}/v1/engines/${path}`, { method, body: JSON.stringify(body) });
  }

  test("has a line for every change made over HTTP, even when quiet", async () => {
    const running = await serve("--log-format", "json", "--quiet", "--mode", "lazy");
    await (await engineAt(running.endpoint, "e")).waitFor("ready");
    expect((await change(running.http, "e/mode", "PUT", { mode: "idle" })).status).toBe(200);
    expect((await change(running.http, "e/mode", "PUT", { mode: "fast" })).status).toBe(400);
    expect((await change(running.http, "e/freeze", "POST", { reason: "night" })).status).toBe(200);
    running.process.kill("SIGTERM");
    const { stderr } = await running.finished;
    const audit = stderr
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line))
      .filter(({ audit }) => audit !== undefined);
    expect(audit).toMatchObject([
      { level: "info", audit: "mode", engine: "e", value: "idle", remote: "127.0.0.1" },
      { level: "info", audit: "freeze", engine: "e", value: "night", remote: "127.0.0.1" },
    ]);
  });

  test("a typo of its format is named", async () => {
    const { code, stderr } = await finish(["serve", "--log-format", "jsn"]);
    expect(code).toBe(2);
    expect(stderr).toContain('text or json, got "jsn": did you mean json?');
  });
});

describe("SIGHUP", () => {
  test("reads the file again: its mode holds for engines there and to come", async () => {
    const file = join(await temporaryFolder(), "lazygraph.json");
    // A byte order mark, as editors on Windows leave it.
    await writeFile(file, '\uFEFF{"mode": "lazy"}');
    const running = await serve("--config", file);
    const start = async (name: string) => (await engineAt(running.endpoint, name)).waitFor("ready");
    const modes = async () => {
      const { engines } = (await (await fetch(`${running.http}/v1/engines`)).json()) as {
        engines: { engine: string; mode: string }[];
      };
      return engines.map(({ engine, mode }) => `${engine} ${mode}`);
    };
    await start("one");
    expect(await modes()).toEqual(["one lazy"]);
    await writeFile(file, '{"mode": "idle", "settle-within": 60}');
    running.process.kill("SIGHUP");
    await running.line("stderr", /SIGHUP: mode idle$/);
    expect(await running.line("stderr", /restart to use it/)).toMatch(
      /warn +SIGHUP: settle-within /,
    );
    await start("two");
    await expect.poll(modes).toEqual(["one idle", "two idle"]);
    // Taken back, it is what runs: that changes nothing.
    await writeFile(file, '{"mode": "idle"}');
    running.process.kill("SIGHUP");
    await running.line("stderr", /SIGHUP: mode idle, as before$/);
    await writeFile(file, '{"mode": ');
    running.process.kill("SIGHUP");
    const refused = await running.line("stderr", /nothing changed/);
    expect(refused).toMatch(
      /SIGHUP: nothing changed\. Expected .* JSON.*\[ERR_LAZYGRAPH_OPTION\]$/,
    );
    // A pipe that nobody writes to: the controller must not wait for it.
    await rm(file);
    execFileSync("mkfifo", [file]);
    running.process.kill("SIGHUP");
    expect(await running.line("stderr", /read again/)).toContain("got a pipe");
    expect(await modes()).toEqual(["one idle", "two idle"]);
    running.process.kill("SIGTERM");
    const { code, stderr } = await running.finished;
    expect(code).toBe(0);
    expect(stderr.match(/restart to use it/g)).toHaveLength(1);
  });

  test("its mode comes to who was away, once: what HTTP sets later outlives a restart", async () => {
    const file = join(await temporaryFolder(), "lazygraph.json");
    await writeFile(file, '{"mode": "lazy"}');
    const running = await serve("--config", file);
    const away = await engineAt(running.endpoint, "a");
    await away.waitFor("ready");
    const here = await engineAt(running.endpoint, "b");
    await here.waitFor("ready");
    const url = `${running.http}/v1/engines`;
    const poll = () => expect.poll(async () => (await fetch(url)).text(), { timeout: 60_000 });
    process.kill(away.pid, "SIGSTOP");
    await poll().toContain('"connected":false');
    await writeFile(file, '{"mode": "idle"}');
    running.process.kill("SIGHUP");
    await running.line("stderr", /SIGHUP: mode idle$/);
    const body = '{"mode": "eager"}';
    expect((await fetch(`${url}/b/mode`, { method: "PUT", body })).ok).toBe(true);
    process.kill(away.pid, "SIGCONT");
    const both = /"a".*"mode":"idle".*"b".*"mode":"eager"/;
    await poll().toMatch(both);
    await here.close();
    await (await engineAt(running.endpoint, "b")).waitFor("ready");
    expect(await (await fetch(url)).text()).toMatch(both);
  });

  test("ends it where there is no file", async () => {
    const running = await serve();
    running.process.kill("SIGHUP");
    expect(await running.finished).toMatchObject({ code: 0 });
  });
});

test("status --watch prints what changes, and outlasts the controller", async () => {
  const running = await serve();
  const watching = lazygraph(["status", "--url", running.http, "--watch"]);
  await watching.line("stdout", /^No engine has joined yet\.$/);
  await engineAt(running.endpoint, "e");
  await watching.line("stdout", /e \(simulated/);
  running.process.kill("SIGTERM");
  await watching.line("stdout", /ERR_LAZYGRAPH_CONTROLLER_UNREACHABLE/);
  watching.process.kill("SIGINT");
  expect((await watching.finished).code).toBe(0);
});

test("status --watch ends with its reader", async () => {
  const running = await serve();
  const watching = lazygraph(["status", "--url", running.http, "--watch"]);
  await watching.line("stdout", /^No engine has joined yet\.$/);
  watching.process.stdout?.destroy();
  // The next change is what it can't write.
  running.process.kill("SIGTERM");
  expect(await watching.finished).toMatchObject({ code: 0, signal: null });
});

test("Ctrl-C ends status --watch, also while no answer comes", async () => {
  const silent = createServer();
  const watching = lazygraph(["status", "--url", await listening(silent), "--watch"]);
  await once(silent, "connection");
  watching.process.kill("SIGINT");
  expect(await watching.finished).toMatchObject({ code: 0, stdout: "" });
});

test("an IPv6 address is one like any other", async () => {
  const args = ["serve", "--endpoint", "tcp://[::1]:0", "--http", "[::1]:0", "--json"];
  const running = lazygraph(args);
  const { endpoint, http } = JSON.parse(await running.line("stdout", /^\{/)) as Addresses;
  expect(endpoint).toMatch(/^tcp:\/\/\[::1\]:[1-9]\d*$/);
  await engineAt(endpoint, "six");
  await expect
    .poll(async () => JSON.stringify(await (await fetch(`${http}/v1/engines`)).json()))
    .toContain('"six"');
});
