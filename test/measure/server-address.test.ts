import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { describe, expect, onTestFinished, test } from "vitest";
import { storedMode } from "../../src/bench/stored-mode.ts";
import { streamRequest } from "../../src/bench/stream.ts";
import { proxyVariable } from "../../src/measure/http-client.ts";
import { ServerAddress, serverUrl, shownUrl } from "../../src/measure/server-address.ts";
import { listening } from "../helpers/listening.ts";
import { done, text } from "./shape-parts.ts";

describe("a base URL", () => {
  test.for([
    ["http://h", "http://h", "/v1/models"],
    ["http://h/", "http://h", "/v1/models"],
    ["http://h/v1", "http://h", "/v1/models"],
    ["http://h/v1//", "http://h", "/v1/models"],
    ["https://h:1/sub/v1/", "https://h:1", "/sub/v1/models"],
    ["http://[::1]:8000/v1", "http://[::1]:8000", "/v1/models"],
    ["http://h/v1?key=secret", "http://h", "/v1/models?key=secret"],
  ] as const)("%s", ([url, origin, path]) => {
    const server = new ServerAddress(new URL(url));
    expect(server.origin).toBe(origin);
    expect(server.path("/v1/models")).toBe(path);
    expect(server.shown).not.toMatch(/secret|v1|\?/);
  });

  test("user info is a header, a key beats it, and a header beats both", () => {
    const url = new URL("http://user:p%40ss@h");
    expect(new ServerAddress(url).headers).toEqual({ authorization: "Basic dXNlcjpwQHNz" });
    const keyed = new ServerAddress(url, { apiKey: "sk-1234" });
    expect(keyed.headers).toEqual({ authorization: "Bearer sk-1234" });
    const own = { Authorization: "Token abcd", "X-Team": "blue" };
    const headed = new ServerAddress(url, { apiKey: "sk-1234", headers: own });
    expect(headed.headers).toEqual({ authorization: "Token abcd", "x-team": "blue" });
  });

  test("nothing secret is shown, whoever quotes it", () => {
    const url = new URL("http://user:password1@h/v1?key=hunter2");
    const server = new ServerAddress(url, { apiKey: "sk-1234", headers: { "x-token": "tok-9" } });
    const quoted = "no such key sk-1234, hunter2, password1 or tok-9 of the blue team";
    expect(server.hide(quoted)).toBe("no such key …, …, … or … of the blue team");
    expect(shownUrl("http://user:password1@h/v1?key=hunter2")).toBe("http://h");
    // A key alone in place of user and password, and headers that are secret by any name.
    const keyed = new ServerAddress(new URL("http://sk-5678@h"), { headers: { "X-Auth": "abcd" } });
    expect(keyed.hide("neither sk-5678 nor abcd")).toBe("neither … nor …");
    for (const text of ["http://u:pass/word@h", "u:password1@h:1", "x://u:p@ssw@h?k=v"]) {
      expect(shownUrl(text), text).not.toMatch(/pass|word|ss|k=v/);
    }
    // Nor of what is no URL for us.
    expect(shownUrl("ftp://user:password1@h/x?key=hunter2")).toBe("ftp://…@h/x?…");
    expect(serverUrl("ftp://h")).toBeUndefined();
    const stored = storedMode({
      url: "http://user:password1@h/v1?key=hunter2",
      env: { HF_TOKEN: "hf-1", VLLM_LOGGING_LEVEL: "INFO" },
    });
    expect(stored).toEqual({
      url: "http://h",
      env: { HF_TOKEN: "…", VLLM_LOGGING_LEVEL: "INFO" },
    });
  });
});

test("a key has no blanks around it; what no header can carry is refused without being shown", () => {
  const url = new URL("http://h");
  expect(new ServerAddress(url, { apiKey: " sk-1234\n" }).headers).toEqual({
    authorization: "Bearer sk-1234",
  });
  expect(new ServerAddress(url, { apiKey: " \n" }).headers).toEqual({});
  for (const apiKey of ["sk-\n1234", "sk-\u00011234", "sk-“1234”"]) {
    expect(() => new ServerAddress(url, { apiKey })).toThrow(
      "Expected apiKey to be a key in one word of Latin characters, got one with others in it.",
    );
  }
});

test.for(["Transfer-Encoding", "expect", "Upgrade", "Content-Length", "Connection"])(
  "the header %s is not the caller's to give",
  (name) => {
    const give = (): unknown =>
      new ServerAddress(new URL("http://h"), { headers: { [name]: "5" } });
    expect(give).toThrow("no header of the connection or of the body's length, got");
    expect(give).toThrow(name);
  },
);

test("an IPv6 address and a key are used in requests", async () => {
  const seen: unknown[] = [];
  const upstream = createServer((request, response) => {
    seen.push([request.url, request.headers.authorization]);
    response.writeHead(200, { "content-type": "text/event-stream" }).end(text("a") + done);
  }).listen(0, "::1");
  onTestFinished(() => void upstream.close());
  await once(upstream, "listening");
  const { port } = upstream.address() as AddressInfo;
  const url = new URL(`http://[::1]:${port}/v1/?team=blue`);
  const server = new ServerAddress(url, { apiKey: "sk-1234" });
  expect(await ask(server)).toMatchObject({ failure: undefined });
  expect(seen).toEqual([["/v1/completions?team=blue", "Bearer sk-1234"]]);
});

test("a proxy of the environment is used, but not for this machine", async () => {
  const seen: string[] = [];
  const proxy = createServer((request, response) => {
    seen.push(request.url ?? "");
    response.writeHead(200, { "content-type": "text/event-stream" }).end(text("a") + done);
  });
  onTestFinished(() => void delete process.env["http_proxy"]);
  // As curl takes it: a host and a port are enough.
  process.env["http_proxy"] = new URL(await listening(proxy)).host;
  const far = new ServerAddress(new URL("http://engine.invalid:8000/v1"));
  expect(await ask(far)).toMatchObject({ failure: undefined });
  expect(seen).toEqual(["http://engine.invalid:8000/v1/completions"]);
  // Straight, and so not to be reached: the proxy has seen no more.
  const near = await ask(new ServerAddress(new URL("http://127.0.0.1:1")));
  expect(near.failure?.kind).toBe("unreachable");
  expect(seen).toHaveLength(1);
});

describe("a proxy of the environment", () => {
  const names = ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"] as const;
  const variableOf = (
    origin: string,
    environment: Partial<Record<(typeof names)[number], string>>,
  ) => {
    const before = names.map((name) => [name, process.env[name]] as const);
    for (const name of names) delete process.env[name];
    Object.assign(process.env, environment);
    try {
      return proxyVariable(origin);
    } finally {
      for (const [name, value] of before) {
        if (value === undefined) delete process.env[name];
        else process.env[name] = value;
      }
    }
  };
  const proxy = "http://p:1";
  test.for([
    ["http://h", { HTTP_PROXY: proxy }, "HTTP_PROXY"],
    ["http://h", { HTTP_PROXY: proxy, http_proxy: "p:1" }, "http_proxy"],
    ["http://h", { HTTP_PROXY: proxy, http_proxy: "" }, undefined],
    ["http://h", { HTTPS_PROXY: proxy }, undefined],
    ["https://h", { HTTPS_PROXY: proxy, HTTP_PROXY: "p:2" }, "HTTPS_PROXY"],
    ["https://h", { HTTP_PROXY: proxy }, "HTTP_PROXY"],
    ["http://127.0.0.1:8000", { HTTP_PROXY: proxy }, undefined],
  ] as const)("%s with %j", ([origin, environment, variable]) => {
    expect(variableOf(origin, environment)).toBe(variable);
  });

  test("that is none is one sentence, which doesn't show it", () => {
    const find = (): unknown => variableOf("http://h", { HTTP_PROXY: "http://u:secret@:p" });
    expect(find).toThrow("Expected HTTP_PROXY to be a proxy's URL such as http://proxy:3128");
    expect(find).not.toThrow(/secret/);
  });
});

function ask(server: ServerAddress) {
  const fields = { endpoint: "completions", model: "m", prompt: "p", maxTokens: 1 } as const;
  return streamRequest({ server, ...fields, ignoreEos: true, timeoutMs: 100_000 });
}
