/** Where a measured server answers, and that it is the one that was started. */

import { writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { expect, test } from "vitest";
import { freePort } from "../../src/bench/engine-command.ts";
import {
  portOf,
  requireAnswerable,
  serverKeyOf,
  serverUrlOf,
  untilFree,
} from "../../src/cli/startup-server.ts";
import { temporaryFolder } from "../helpers/folder.ts";
import { listening } from "../helpers/listening.ts";

const SERVE = ["vllm", "serve", "M"];
const GOING = new AbortController().signal;

test.for([
  [[...SERVE, "--port", "{port}"], 4321],
  [["sh", "-c", "vllm serve M --port {port}"], 4321],
  [[...SERVE, "--port", "9000"], 9000],
  [[...SERVE, "--port=9001"], 9001],
  [["/bin/sh", "-c", "exec vllm serve M --port 9002"], 9002],
  [["sh", "-c", "exec lazygraph run --http 127.0.0.1:1 -- vllm serve M --port=9003; true"], 9003],
  [[...SERVE, "--port", "9000", "--port", "9004"], 9004],
  [["lazygraph", "simulated-engine", "--http", "127.0.0.1:9005"], 9005],
  [
    ["sh", "-c", "exec lazygraph run --http=[::1]:1 -- lazygraph simulated-engine --http=:9006"],
    9006,
  ],
  [["lazygraph", "run", "--http", "127.0.0.1:1", "--", ...SERVE], 8000],
  [SERVE, 8000],
] as const)("the port of %j", ([command, port]) => {
  expect(portOf(command, 4321)).toBe(port);
  expect(() => requireAnswerable("base", command)).not.toThrow();
});

test("the port of a file of options", async () => {
  const file = join(await temporaryFolder(), "vllm.yaml");
  await writeFile(file, "port: 9005\n");
  expect(portOf([...SERVE, "--config", file], 4321)).toBe(9005);
});

test.for([
  [
    [...SERVE, "--port", "99999"],
    'the --port of base to be a number from 1 to 65535 or {port}, got "99999"',
  ],
  [["sh", "-c", "vllm serve M --port $PORT"], 'got "$PORT"'],
  [[...SERVE, "--port", "0"], 'got "0"'],
  [[...SERVE, "--uds", "/tmp/s"], "plain HTTP at a port, got --uds or --ssl-certfile"],
  [[...SERVE, "--ssl-certfile=c"], "plain HTTP at a port"],
] as const)("%j could not be asked", ([command, sentence]) => {
  expect(() => requireAnswerable("base", command)).toThrow(sentence);
});

test.for([
  [[], "http://127.0.0.1:8000/"],
  [["--host", "0.0.0.0"], "http://127.0.0.1:8000/"],
  [["--host", "10.1.2.3"], "http://10.1.2.3:8000/"],
  [["--host=::1", "--port", "9000"], "http://[::1]:9000/"],
  [["--host", "$HOST"], "http://127.0.0.1:8000/"],
] as const)("with %j it is asked at %s", ([words, url]) => {
  expect(serverUrlOf([...SERVE, ...words], 4321).href).toBe(url);
});

test("its key is the command's, or that of its environment", () => {
  expect(serverKeyOf(SERVE, {})).toBeUndefined();
  expect(serverKeyOf(SERVE, { VLLM_API_KEY: "c" })).toBe("c");
  expect(serverKeyOf(["env", "VLLM_API_KEY=b", ...SERVE], { VLLM_API_KEY: "c" })).toBe("b");
  expect(serverKeyOf(["env", "VLLM_API_KEY=b", ...SERVE, "--api-key", "a", "z"], {})).toBe("a");
  expect(serverKeyOf([...SERVE, "--api-key", "no\nheader"], {})).toBeUndefined();
});

test("a port where somebody listens is refused; one that gets free is waited for", async () => {
  const port = await freePort();
  const url = new URL(`http://127.0.0.1:${port}/`);
  await untilFree(url, GOING);
  const other = createServer();
  await listening(other, port);
  await expect(untilFree(url, GOING, 0)).rejects.toMatchObject({
    code: "ERR_LAZYGRAPH_ADDRESS_IN_USE",
    message: expect.stringContaining(`nobody to listen at 127.0.0.1:${port}`),
  });
  await expect(untilFree(url, AbortSignal.abort(new Error("stopped")))).rejects.toThrow("stopped");
  const free = untilFree(url, GOING, 3600);
  other.close();
  await free;
});

test("a free port is none that somebody else gets by chance, or has", async () => {
  const port = await freePort();
  expect(port).toBeLessThan(32_768);
  await listening(createServer(), port + 1).catch(() => "taken before");
  expect(await freePort()).toBeGreaterThan(port + 1);
});
