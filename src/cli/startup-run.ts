/** One start that is measured: spawned, ready, one token, ended. */

import { spawn } from "node:child_process";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { within } from "../base/deadline.ts";
import { LazygraphError, messageOf } from "../base/errors.ts";
import { askHttp, type HttpAnswer } from "../base/http-ask.ts";
import { removeLeftover, temporaryFolder } from "../base/leftovers.ts";
import { makeFolder } from "../base/make-folder.ts";
import { EngineCommand, freePort } from "../bench/engine-command.ts";
import { segments } from "../startup/attribute.ts";
import { FOLDER_VARIABLE, monotonicSeconds, readSpans, type Span } from "../startup/spans.ts";
import { type StartResult, startResult } from "../startup/start.ts";
import { serverKeyOf, serverUrlOf, untilFree, withPort } from "./startup-server.ts";

export interface Variant {
  readonly name: string;
  readonly command: readonly string[];
  /** Run by the shell before each of its starts, and outside of their time. */
  readonly prepare?: string;
}

export interface StartOptions {
  readonly variant: Variant;
  readonly run: number;
  /** Where its log goes. */
  readonly folder: string;
  readonly readyWithinSeconds: number;
  readonly signal: AbortSignal;
  /** Told once it is spawned: where it is asked, and where its output goes. */
  readonly onSpawned?: (url: URL, log: string) => void;
}

export interface MeasuredStart {
  readonly result: StartResult;
  readonly spans: readonly Span[];
  readonly spawned: number;
}

const FIRST_TOKEN_SECONDS_MAX = 120;
const PREPARE_SECONDS_MAX = 600;
const LAST_LINE_BYTES_MAX = 1024;

/** @throws LazygraphError `ERR_LAZYGRAPH_COMMAND_DIED`, `…_ADDRESS_IN_USE` or `…_BENCH` */
export async function measureStart(options: StartOptions): Promise<MeasuredStart> {
  const { variant, run, folder, readyWithinSeconds, signal, onSpawned } = options;
  const logFile = join(folder, `${variant.name}-${run}.log`);
  await makeFolder(folder);
  if (variant.prepare !== undefined) {
    const log = join(folder, `${variant.name}-${run}-prepare.log`);
    await prepare(variant.name, variant.prepare, log, signal);
  }
  const port = await freePort();
  const words = withPort(variant.command, port);
  const url = serverUrlOf(variant.command, port);
  await untilFree(url, signal);
  const timeline = await temporaryFolder("lazygraph-startup-").catch((error: unknown) => {
    throw new LazygraphError(
      "ERR_LAZYGRAPH_BENCH",
      `Expected to make a folder in ${tmpdir()}, got ${messageOf(error)}: set TMPDIR.`,
      { cause: error },
    );
  });
  const command = EngineCommand.start({
    command: words,
    environment: { ...process.env, [FOLDER_VARIABLE]: timeline },
    logFile,
  });
  // Both clocks are the kernel's monotonic one; only their origins differ.
  const spawned = monotonicSeconds() - (performance.now() - command.spawnedAtMs) / 1000;
  try {
    onSpawned?.(url, logFile);
    await command.untilReady(url, readyWithinSeconds, signal);
    signal.throwIfAborted();
    const ready = monotonicSeconds();
    await oneToken(url, serverKeyOf(variant.command, process.env), logFile, signal);
    const first = monotonicSeconds();
    const spans = await readSpans(timeline);
    const times = { readySeconds: ready - spawned, firstTokenSeconds: first - spawned };
    const pieces = segments(spans, spawned, ready);
    return { result: startResult(variant.name, run, times, pieces, spans), spans, spawned };
  } finally {
    await command.stop();
    await removeLeftover(timeline).catch(() => undefined);
  }
}

/** Its output goes into a file: what it leaves running, such as a server, keeps that and no pipe. */
async function prepare(
  name: string,
  command: string,
  log: string,
  signal: AbortSignal,
): Promise<void> {
  await using file = await open(log, "w+");
  const limits = { signal, timeout: PREPARE_SECONDS_MAX * 1000, killSignal: "SIGKILL" } as const;
  const child = spawn("/bin/sh", ["-c", command], {
    ...limits,
    stdio: ["ignore", file.fd, file.fd],
  });
  const end = await new Promise<string>((resolve) => {
    child.once("error", (error) => resolve(messageOf(error)));
    child.once("exit", (code, by) => resolve(by ?? `exit code ${code}`));
  });
  signal.throwIfAborted();
  if (end === "exit code 0") return;
  const { size } = await file.stat();
  const tail = Buffer.alloc(LAST_LINE_BYTES_MAX);
  const { bytesRead } = await file.read({
    buffer: tail,
    position: Math.max(0, size - tail.length),
  });
  const last = tail.toString("utf8", 0, bytesRead).trim().split("\n").at(-1) ?? "";
  throw new LazygraphError(
    "ERR_LAZYGRAPH_BENCH",
    `Expected what prepares ${name} to succeed within ${PREPARE_SECONDS_MAX} s, got ` +
      `${last === "" ? "" : `${last.slice(0, 200)}, `}${end}: see ${log}.`,
  );
}

async function oneToken(
  url: URL,
  key: string | undefined,
  logFile: string,
  signal: AbortSignal,
): Promise<void> {
  const headers = key === undefined ? {} : { authorization: `Bearer ${key}` };
  try {
    await within(FIRST_TOKEN_SECONDS_MAX * 1000, signal, async (limit) => {
      const ask = async (path: string, body?: object): Promise<unknown> => {
        const method = body === undefined ? "GET" : "POST";
        return json(await askHttp(new URL(path, url), { method, headers, body, signal: limit }));
      };
      const models = (await ask("v1/models")) as { data?: { id?: string }[] };
      const model = models.data?.[0]?.id;
      await ask("v1/completions", { model, prompt: "Hello", max_tokens: 1, temperature: 0 });
    });
  } catch (error) {
    signal.throwIfAborted();
    throw new LazygraphError(
      "ERR_LAZYGRAPH_BENCH",
      `Expected one token of ${url.href}v1/completions, got ${messageOf(error)}: see ${logFile}.`,
      { cause: error },
    );
  }
}

function json({ status, text }: HttpAnswer): unknown {
  if (status !== 200) throw new Error(`status ${status}: ${text.slice(0, 200)}`);
  return JSON.parse(text);
}
