import { createHash } from "node:crypto";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { get } from "node:http";
import { text } from "node:stream/consumers";
import { beforeEach, describe, expect, onTestFinished, test, vi } from "vitest";
import { LazygraphError } from "../../src/base/errors.ts";
import { listen } from "../../src/cli/listen.ts";
import { checkAnnouncement, checkSleep, checkWake } from "../../src/controller/call-options.ts";
import type { Controller } from "../../src/controller/controller.ts";
import type { EngineSnapshot } from "../../src/engine/snapshot.ts";
import { listOf, scrapeOf } from "../../src/http/listing.ts";
import { createHttpServer } from "../../src/http/server.ts";
import { listening } from "../helpers/listening.ts";

const SESSION = "0123456789abcdef";
/** What is told of it: the first 16 digits of its SHA-256, with a text before it. */
const TOLD = createHash("sha256").update(`lazygraph session ${SESSION}`).digest("hex").slice(0, 16);

/** A controller that remembers what it was asked; only what the HTTP side uses. */
function stubController(): { controller: Controller; calls: unknown[][] } {
  const calls: unknown[][] = [];
  const engine = { engine: "gpu-0/llama", session: SESSION, mode: "idle" };
  const controller = {
    engines: () => [engine as EngineSnapshot],
    setMode(name: string, mode: string) {
      calls.push(["setMode", name, mode]);
      engine.mode = mode;
    },
    freeze(name: string, reason: string) {
      calls.push(["freeze", name, reason]);
      if (reason === "gone") throw new LazygraphError("ERR_LAZYGRAPH_ENGINE_LOST", "It is gone.");
      if (reason === "defect") throw new Error("A defect.");
    },
    announce: (_: string, given: unknown) => checkAnnouncement(given),
    sleep: (_: string, given: unknown) => checkSleep(given),
    wake: (_: string, given: unknown) => checkWake(given),
  };
  return { controller: controller as unknown as Controller, calls };
}

let url: string;
let calls: unknown[][];
let controller: Controller;

beforeEach(async () => {
  const stub = stubController();
  calls = stub.calls;
  controller = stub.controller;
  url = await listening(createHttpServer(stub.controller));
});

const ENGINE = "/v1/engines/gpu-0%2Fllama";

async function ask(method: string, path: string, body?: string, headers = {}) {
  const response = await fetch(url + path, { method, headers, ...(body ? { body } : {}) });
  const answer = await response.text();
  return { status: response.status, headers: response.headers, body: JSON.parse(answer || "null") };
}

const SOURCES = new URL("../../src/http/", import.meta.url);

test("docs/operations.md lists exactly the changes that are audited", async () => {
  const source = await readFile(new URL("route.ts", SOURCES), "utf8");
  const docs = await readFile(new URL("../../docs/operations.md", import.meta.url), "utf8");
  const words = (text = "", quote = '"') => text.split(quote).filter((_, index) => index % 2 === 1);
  const actions = words(/readonly action: ([^;]+);/.exec(source)?.[1]);
  expect(actions).toContain("wake");
  expect(words(/`audit` \(([^)]+)\)/.exec(docs)?.[1], "`")).toEqual(actions);
});

describe("a list of many engines", () => {
  function takes(milliseconds: number) {
    let nowMs = 0;
    const made = vi.spyOn(controller, "engines").mockImplementation(() => {
      nowMs += milliseconds;
      return [];
    });
    const at = (ms: number): number => {
      nowMs = ms;
      listOf(controller, () => nowMs);
      return made.mock.calls.length;
    };
    return [0, 101, 999, 1001].map(at);
  }

  test("is given again for nine times as long as it took", () => {
    expect(takes(100)).toEqual([1, 1, 1, 2]);
  });

  test("is made anew where that is quick", () => {
    expect(takes(19)).toEqual([1, 2, 3, 4]);
  });

  test("and so are metrics, which who asks meanwhile shares", async () => {
    let nowMs = 0;
    const metrics = vi.fn(async () => {
      await undefined;
      nowMs += 100;
      return `${nowMs}`;
    });
    const source = { contentType: "text/plain", metrics };
    const at = async (ms: number): Promise<string> => {
      nowMs = ms;
      return (await scrapeOf(source, () => nowMs)).text;
    };
    expect(await Promise.all([at(0), at(0)])).toEqual(["100", "100"]);
    expect([await at(999), await at(1001)]).toEqual(["100", "1101"]);
    expect(metrics).toHaveBeenCalledTimes(2);
    metrics.mockRejectedValueOnce(new Error("once"));
    await expect(at(2002)).rejects.toThrow("once");
    expect(await at(2003)).toBe("2103");
  });

  test("has what was changed over HTTP", async () => {
    const engines = controller.engines.bind(controller);
    vi.spyOn(controller, "engines").mockImplementation(() => {
      for (const began = performance.now(); performance.now() - began < 100; );
      return engines();
    });
    const modes = async () => (await ask("GET", "/v1/engines")).body.engines[0].mode;
    expect(await modes()).toBe("idle");
    await ask("PUT", `${ENGINE}/mode`, '{"mode":"lazy"}');
    expect(await modes()).toBe("lazy");
  });
});

describe("answers", () => {
  test("GET /healthz", async () => {
    expect(await ask("GET", "/healthz")).toMatchObject({ status: 200, body: { ok: true } });
  });

  test("400 for a parameter that a path doesn't have; probes and scrapers are let be", async () => {
    const refused = await ask("GET", "/v1/engines?mode=idle");
    expect(refused).toMatchObject({ status: 400, body: { error: { code: "ERR_HTTP_QUERY" } } });
    expect(refused.body.error.message).toBe(
      'Expected no parameters for "/v1/engines", got "mode".',
    );
    const put = await ask("PUT", `${ENGINE}/mode?force=1`, '{"mode":"lazy"}');
    expect(put.status).toBe(400);
    expect(calls).toEqual([]);
    expect(await ask("GET", "/livez?verbose")).toMatchObject({ status: 200 });
  });

  test("HEAD /healthz without a body", async () => {
    expect(await ask("HEAD", "/healthz")).toMatchObject({ status: 200, body: null });
  });

  test("GET /v1/engines and one engine, with a query that is empty", async () => {
    const engine = { engine: "gpu-0/llama", session: TOLD, mode: "idle" };
    expect((await ask("GET", "/v1/engines?")).body).toEqual({ engines: [engine] });
    expect((await ask("GET", ENGINE)).body).toEqual(engine);
  });

  test("PUT mode", async () => {
    const { status, body } = await ask("PUT", `${ENGINE}/mode`, '{"mode":"lazy"}');
    expect(status).toBe(200);
    expect(body).toEqual({ engine: "gpu-0/llama", session: TOLD, mode: "lazy" });
    expect(calls).toEqual([["setMode", "gpu-0/llama", "lazy"]]);
  });

  test("no answer tells a session, with which anybody could pass for its engine", async () => {
    const answers = [
      await ask("GET", "/v1/engines"),
      await ask("GET", ENGINE),
      await ask("PUT", `${ENGINE}/mode`, '{"mode":"lazy"}'),
      await ask("POST", `${ENGINE}/freeze`),
    ];
    for (const answer of answers) {
      expect(answer.status).toBe(200);
      expect(JSON.stringify(answer.body)).not.toContain(SESSION);
    }
  });

  test("POST freeze, with and without a reason", async () => {
    expect((await ask("POST", `${ENGINE}/freeze`)).status).toBe(200);
    expect((await ask("POST", `${ENGINE}/freeze`, '{"reason":"benchmark"}')).status).toBe(200);
    expect(calls).toEqual([
      ["freeze", "gpu-0/llama", "asked over HTTP"],
      ["freeze", "gpu-0/llama", "benchmark"],
    ]);
  });
});

test("a server that fails to accept a connection goes on", async () => {
  const written = vi.spyOn(process.stderr, "write").mockReturnValue(true);
  onTestFinished(() => written.mockRestore());
  const server = createHttpServer(stubController().controller);
  const url = await listen(server, { host: "127.0.0.1", port: 0 });
  server.emit("error", new Error("accept EMFILE"));
  expect(written.mock.calls.map(([text]) => text)).toEqual([
    "lazygraph: The HTTP side could not take a connection: accept EMFILE.\n",
  ]);
  expect((await fetch(`${url}/healthz`)).status).toBe(200);
  server.close();
  server.closeAllConnections();
});

describe("refuses in one sentence", () => {
  test.for([
    ["GET", "/", undefined, 404, "ERR_HTTP_NOT_FOUND"],
    ["GET", "/v1/engines/other", undefined, 404, "ERR_LAZYGRAPH_ENGINE_UNKNOWN"],
    ["PUT", "/v1/engines/other/mode", '{"mode":"lazy"}', 404, "ERR_LAZYGRAPH_ENGINE_UNKNOWN"],
    ["GET", "/v1/engines/%zz", undefined, 400, "ERR_HTTP_PATH"],
    ["POST", "/healthz", undefined, 405, "ERR_HTTP_METHOD"],
    ["DELETE", `${ENGINE}/mode`, undefined, 405, "ERR_HTTP_METHOD"],
    ["PUT", `${ENGINE}/mode`, undefined, 400, "ERR_HTTP_BODY"],
    ["PUT", `${ENGINE}/mode`, '{"mode":"fast"}', 400, "ERR_HTTP_BODY"],
    ["PUT", `${ENGINE}/mode`, '["lazy"]', 400, "ERR_HTTP_BODY"],
    ["PUT", `${ENGINE}/mode`, '{"mode":', 400, "ERR_HTTP_BODY"],
    ["PUT", `${ENGINE}/mode`, '{"__proto__":{"mode":"lazy"}}', 400, "ERR_HTTP_BODY"],
    ["PUT", `${ENGINE}/mode`, `{"mode":"${"x".repeat(20_000)}"}`, 413, "ERR_HTTP_BODY"],
    ["PUT", `${ENGINE}/mode`, '{"mode":"lazy","force":true}', 400, "ERR_HTTP_BODY"],
    ...['{"reason":7}', '{"reason":null}', '{"raeson":"x"}', "[]", '"x"', "null", "7"].map(
      (body) => ["POST", `${ENGINE}/freeze`, body, 400, "ERR_HTTP_BODY"] as const,
    ),
    ...["sleep", "wake", "announce"].flatMap((path) =>
      ['{"other":1}', "[]", '"x"', "null", "7"].map(
        (body) => ["POST", `${ENGINE}/${path}`, body, 400, "ERR_LAZYGRAPH_OPTION"] as const,
      ),
    ),
    ["POST", `${ENGINE}/freeze`, `{"reason":"${"x".repeat(2049)}"}`, 400, "ERR_HTTP_BODY"],
  ] as const)("%s %s %j: %d", async ([method, path, body, status, code]) => {
    const answer = await ask(method, path, body);
    expect(answer).toMatchObject({ status, body: { error: { code } } });
    expect(answer.body.error.message).toMatch(/^Expected [^\n]*\.$/);
    expect(calls).toEqual([]);
  });

  test("a 405 says what is allowed", async () => {
    expect((await ask("POST", `${ENGINE}/mode`)).headers.get("allow")).toBe("PUT");
  });

  test.for([
    ["/v1/engines/gpu-0/llama/mode", "/v1/engines/gpu-0%2Fllama/mode"],
    ["/v1/engines/gpu-0/llama/sleep", "/v1/engines/gpu-0%2Fllama/sleep"],
    ["/v1/engines/gpu-0/llama/wake", "/v1/engines/gpu-0%2Fllama/wake"],
    ["/v1/engines/a%20b/c/d", "/v1/engines/a%20b%2Fc%2Fd"],
  ] as const)("a name with a slash: %s", async ([path, encoded]) => {
    const { status, body } = await ask("PUT", path, '{"mode":"lazy"}');
    expect(status).toBe(404);
    expect(body.error.message).toContain(`names are percent-encoded, as in "${encoded}".`);
  });

  test.for([
    ["localhost", 200],
    ["LOCALHOST:9", 200],
    ["127.0.0.1:7480", 200],
    ["[::1]:7480", 200],
    ["example.org", 421],
    ["localhost.example.org:7480", 421],
    ["127.0.0.1.example.org", 421],
  ] as const)("Host: %s: %d", async ([host, status]) => {
    const { port } = new URL(url);
    const sent = get({ host: "127.0.0.1", port, path: "/v1/engines", headers: { host } });
    const [response] = await once(sent, "response");
    const body = JSON.parse(await text(response));
    expect(response.statusCode).toBe(status);
    if (status === 421) expect(body.error.code).toBe("ERR_HTTP_HOST");
  });

  test("what a web page sends", async () => {
    const headers = { origin: "https://example.org" };
    const { status, body } = await ask("POST", `${ENGINE}/freeze`, undefined, headers);
    expect({ status, code: body.error.code }).toEqual({ status: 403, code: "ERR_HTTP_ORIGIN" });
    expect(calls).toEqual([]);
  });

  test.for([
    ["gone", 409, "ERR_LAZYGRAPH_ENGINE_LOST"],
    ["defect", 500, "ERR_HTTP_INTERNAL"],
  ] as const)("the controller's own error (%s)", async ([reason, status, code]) => {
    const answer = await ask("POST", `${ENGINE}/freeze`, JSON.stringify({ reason }));
    expect(answer).toMatchObject({ status, body: { error: { code } } });
  });
});

test("a probe that names a pod is answered, and told nothing else", async () => {
  const path = (name: string) =>
    new Promise<number | undefined>((resolve, reject) => {
      const headers = { host: "10.0.3.17:7480" };
      get(`${url}${name}`, { headers }, (response) => {
        response.resume();
        resolve(response.statusCode);
      }).on("error", reject);
    });
  expect(await path("/healthz")).toBe(200);
  expect(await path("/v1/engines")).toBe(421);
  expect(await path("/metrics")).toBe(421);
});

test("what metrics and listeners of a gateway do wrong is told, and changes no other answer", async () => {
  const warn = vi.spyOn(process, "emitWarning").mockReturnValue();
  onTestFinished(() => warn.mockRestore());
  const metrics = { contentType: "text/plain", metrics: async () => undefined as never };
  const onChange = () => {
    throw new Error("a test");
  };
  const own = await listening(createHttpServer(stubController().controller, { metrics, onChange }));
  expect((await fetch(`${own}/metrics`)).status).toBe(500);
  const path = "/v1/engines/gpu-0%2Fllama/freeze";
  expect((await fetch(own + path, { method: "POST" })).status).toBe(200);
  expect(warn).toHaveBeenCalledWith(
    "Expected onChange not to throw, got: a test",
    expect.anything(),
  );
});

test("a certificate without its key is refused, where HTTPS would serve nobody", () => {
  const { controller } = stubController();
  expect(() => createHttpServer(controller, { tls: { cert: "x", key: "" } })).toThrow(
    "Expected a certificate and its key as PEM, got one empty.",
  );
});
