/** docs/guide.md in an empty folder: its files are written, its commands run, in its order. */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { expect, onTestFinished, test } from "vitest";
import { freePort } from "../../src/bench/engine-command.ts";
import { temporaryFolder } from "../helpers/folder.ts";
import { listening } from "../helpers/listening.ts";
import { failedStart, linkPacked, packInto, ROOT } from "../package/packed.ts";

const SHELL_MS_MAX = 200_000;
/** In a regular expression. */
const IN_USE = "\\[ERR_LAZYGRAPH_ADDRESS_IN_USE\\]";

interface Block {
  readonly language: string;
  readonly code: string;
  /** Where the page says it is to be saved. */
  readonly file: string | undefined;
}

function blocksOf(page: string): Block[] {
  const pattern = /(?:<!-- file: (\S+) -->\n)?^```(\w+)\n(.*?)^```$/gms;
  return [...page.matchAll(pattern)].map(([, file, language = "", code = ""]) => ({
    language,
    code,
    file,
  }));
}

test("the guide ends with a gateway and a lazily capturing engine", async () => {
  const blocks = blocksOf(await readFile(join(ROOT, "docs", "guide.md"), "utf8"));
  const folder = await temporaryFolder();
  const tarballs = await temporaryFolder();
  for (const { language, code, file } of blocks) {
    if (language === "js") expect(file, code).toBeDefined();
    if (file !== undefined) await writeFile(join(folder, file), code);
  }
  const commands = blocks.filter(({ language }) => language === "sh").map(({ code }) => code);
  expect(commands).toHaveLength(4);
  // Job control, so that `kill %1` means what it means on a terminal.
  const script = `set -em\ntrap 'kill $(jobs -p) 2> /dev/null || true' EXIT\n${commands.join("")}`;
  const shell = spawn("bash", ["-c", script], {
    cwd: folder,
    detached: true,
    stdio: ["ignore", "pipe", "pipe"],
    env: {
      PATH: process.env["PATH"],
      HOME: process.env["HOME"],
      XDG_STATE_HOME: folder,
      npm_config_audit: "false",
      npm_config_fund: "false",
      // What builds the addon from source: eighty packages, not needed here.
      npm_config_omit: "optional",
      npm_config_prefer_offline: "true",
      LAZYGRAPH: join(tarballs, await packInto(tarballs)),
      LAZYGRAPH_ENDPOINT: `ipc://${join(folder, "lazygraph.sock")}`,
      // The page has fixed ports; a test can't.
      ENGINE_PORT: String(await freePort()),
      GATEWAY_PORT: String(await freePort()),
    },
  });
  onTestFinished(() => {
    if (shell.exitCode === null && shell.pid !== undefined) process.kill(-shell.pid, "SIGKILL");
  });
  // What it said is worth more than a time-out.
  const limit = setTimeout(() => process.kill(-(shell.pid ?? 0), "SIGKILL"), SHELL_MS_MAX);
  onTestFinished(() => clearTimeout(limit));
  const [stdout, stderr, [code]] = await Promise.all([
    text(shell.stdout),
    text(shell.stderr),
    once(shell, "close"),
  ]);
  expect(code, `${stdout}\n${stderr}`).toBe(0);
  expect(stdout).toMatch(/^captured (FULL|PIECEWISE):\d+ in \d+ ms$/m);
  const [, captured] = /^lazy and serving: (\d+) of 102 graphs$/m.exec(stdout) ?? [];
  expect(Number(captured)).toBeGreaterThan(2);
  expect(Number(captured)).toBeLessThan(102);
}, 240_000);

/** The guide's files, for which nothing is installed, with these changes to its gateway. */
async function guideFolder(changes: Readonly<Record<string, string>>): Promise<string> {
  const blocks = blocksOf(await readFile(join(ROOT, "docs", "guide.md"), "utf8"));
  const folder = await temporaryFolder();
  await linkPacked(folder);
  for (const { file, code: written } of blocks) {
    if (file === undefined) continue;
    let code = written;
    for (const [from, to] of file === "gateway.mjs" ? Object.entries(changes) : []) {
      expect(code).toContain(from);
      code = code.replace(from, to);
    }
    await writeFile(join(folder, file), code);
  }
  return folder;
}

function gatewayEnvironment(folder: string, port: string): NodeJS.ProcessEnv {
  return {
    PATH: process.env["PATH"],
    XDG_STATE_HOME: folder,
    LAZYGRAPH_ENDPOINT: `ipc://${join(folder, "lazygraph.sock")}`,
    GATEWAY_PORT: port,
  };
}

test("the guide's gateway refuses as OpenAI does what it has held too long", async () => {
  const folder = await guideFolder({ "60_000": "50" });
  const port = String(await freePort());
  const gateway = spawn(process.execPath, ["gateway.mjs"], {
    cwd: folder,
    env: gatewayEnvironment(folder, port),
    stdio: ["ignore", "inherit", "inherit"],
  });
  const closed = once(gateway, "close");
  onTestFinished(() => void gateway.kill("SIGKILL"));
  const url = `http://127.0.0.1:${port}/v1/models`;
  const answer = () => fetch(url).catch(() => undefined);
  await expect.poll(async () => (await answer())?.status).toBe(503);
  const response = await fetch(url);
  expect(response.headers.get("retry-after")).toBe("5");
  expect(await response.json()).toEqual({
    error: {
      message: "No engine serves yet: see /readyz.",
      type: "service_unavailable",
      param: null,
      code: 503,
    },
  });
  gateway.kill("SIGTERM");
  expect(await closed).toEqual([0, null]);
}, 120_000);

test("the guide's gateway isn't ready once its engine is dead", async () => {
  const folder = await guideFolder({});
  const port = String(await freePort());
  const env = { ...gatewayEnvironment(folder, port), ENGINE_PORT: String(await freePort()) };
  const start = (file: string) => {
    // In its own group: an engine of ours is a process and its child.
    const { pid = 0 } = spawn(process.execPath, [file], {
      ...{ cwd: folder, env, detached: true },
      stdio: ["ignore", "ignore", "inherit"],
    });
    const kill = () => process.kill(-pid, "SIGKILL");
    onTestFinished(() => {
      try {
        kill();
      } catch {
        // Killed before.
      }
    });
    return kill;
  };
  start("gateway.mjs");
  const killEngine = start("engine.mjs");
  const readiness = async () => {
    const response = await fetch(`http://127.0.0.1:${port}/readyz`).catch(() => undefined);
    return [response?.status, await response?.json()];
  };
  const engine = (connected: boolean) => ({
    ready: connected,
    engines: { "engine-0": { connected, phase: "serving" } },
  });
  await expect.poll(readiness).toMatchObject([200, engine(true)]);
  killEngine();
  await expect.poll(readiness).toMatchObject([503, engine(false)]);
}, 240_000);

test("a port that is taken, for the guide's gateway and engine: one sentence, a code", async () => {
  const folder = await guideFolder({});
  const { port } = new URL(await listening(createServer()));
  const own = gatewayEnvironment(folder, port);
  const http = await failedStart(["gateway.mjs"], folder, own);
  expect(http.stderr).toMatch(/^The gateway can't start: [^\n]* \[EADDRINUSE\]\n$/);
  expect(http.code).toBe(1);
  const endpoint = { ...own, LAZYGRAPH_ENDPOINT: `tcp://127.0.0.1:${port}` };
  const controller = await failedStart(["gateway.mjs"], folder, endpoint);
  expect(controller.stderr).toMatch(
    new RegExp(`^The gateway can't start: [^\\n]*${port}[^\\n]* ${IN_USE}\\n$`),
  );
  expect(controller.code).toBe(1);
  const engine = await failedStart(["engine.mjs"], folder, { ...own, ENGINE_PORT: String(port) });
  expect(engine.stderr).toMatch(
    new RegExp(`^The engine can't start: [^\\n]*${port}[^\\n]* ${IN_USE}\\n$`),
  );
  expect(engine.code).toBe(1);
}, 120_000);

test("the guide's gateway says in one sentence which setting it can't use", async () => {
  const folder = await guideFolder({});
  const own = gatewayEnvironment(folder, "80000");
  const port = await failedStart(["gateway.mjs"], folder, own);
  expect(port.stderr).toMatch(/^The gateway can't start: [^\n]* \[ERR_SOCKET_BAD_PORT\]\n$/);
  const wrong = { ...own, LAZYGRAPH_ENDPOINT: "nowhere" };
  const endpoint = await failedStart(["gateway.mjs"], folder, wrong);
  expect(endpoint.stderr).toMatch(/^The gateway can't start: [^\n]* \[ERR_LAZYGRAPH_OPTION\]\n$/);
}, 120_000);
