/** What a launcher tells of itself, and how it is asked: one line each way over its socket. */

import { stat } from "node:fs/promises";
import { createConnection } from "node:net";
import { codeOf, LazygraphError, messageOf } from "../base/errors.ts";
import { jsonObject } from "../base/parse-json.ts";

export interface LauncherStatus {
  /** Path of its socket. */
  readonly socket: string;
  readonly pid: number;
  /** Its interpreter: only commands of this Python are forked. */
  readonly python: string;
  /** Path of the script that stands for a command. */
  readonly client: string;
  readonly importSeconds: number;
  /** What it keeps in memory while it waits; servers share most of it with it. */
  readonly residentBytes: number;
  /** Servers that run. */
  readonly children: number;
  readonly childrenMax: number;
  /** The only models it starts; empty: any. */
  readonly models: readonly string[];
  readonly vllm: string | undefined;
  /** The plugin's version, where it is installed and not only found. */
  readonly plugin: string | undefined;
}

const BUSY = "ERR_LAZYGRAPH_LAUNCHER_BUSY";
const TIMEOUT_MS = 5000;
const BYTES_MAX = 65_536;

/** @throws LazygraphError `ERR_LAZYGRAPH_LAUNCHER_UNREACHABLE` or `…_BUSY` */
export async function askLauncher(socket: string): Promise<LauncherStatus> {
  try {
    const { uid } = await stat(socket);
    // What it answers names a script that is executed: nobody else may be asked.
    if (uid !== process.getuid?.()) throw new Error("another user's socket");
    const answer = await oneLine(socket, "status\n");
    const status = launcherStatus(answer);
    if (status !== undefined) return status;
    const { code, error } = (jsonObject(answer) ?? {}) as Record<string, unknown>;
    if (code === BUSY) throw new LazygraphError(code, String(error));
    throw new Error("an answer that is no launcher's");
  } catch (error) {
    if (codeOf(error) === BUSY) throw error;
    throw unreachable(socket, messageOf(error), error);
  }
}

function unreachable(socket: string, got: string, cause?: unknown): LazygraphError {
  return new LazygraphError(
    "ERR_LAZYGRAPH_LAUNCHER_UNREACHABLE",
    `Expected a launcher at ${socket}, got ${got}: start one with \`lazygraph launcher\`.`,
    { cause },
  );
}

/** Undefined for a line that is no status. */
export function launcherStatus(line: string): LauncherStatus | undefined {
  const body = jsonObject(line);
  if (body === undefined) return undefined;
  const { listening, pid, python, client, models, vllm, plugin, ...rest } = body as Record<
    string,
    unknown
  >;
  const { importSeconds, residentBytes, children, childrenMax } = rest;
  if (typeof listening !== "string" || typeof python !== "string" || typeof client !== "string") {
    return undefined;
  }
  const numbers = { pid, importSeconds, residentBytes, children, childrenMax };
  if (!Object.values(numbers).every((value) => Number.isFinite(value))) return undefined;
  if (!Array.isArray(models) || !models.every((each) => typeof each === "string")) return undefined;
  return {
    socket: listening,
    python,
    client,
    models,
    vllm: typeof vllm === "string" ? vllm : undefined,
    plugin: typeof plugin === "string" ? plugin : undefined,
    ...(numbers as Record<keyof typeof numbers, number>),
  };
}

function oneLine(socket: string, question: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const connection = createConnection(socket);
    let text = "";
    connection.setEncoding("utf8");
    connection.setTimeout(TIMEOUT_MS, () => connection.destroy(new Error("no answer in time")));
    connection.once("connect", () => connection.write(question));
    connection.on("data", (chunk: string) => {
      text += chunk;
      if (text.length > BYTES_MAX) connection.destroy(new Error("too long an answer"));
    });
    connection.once("error", reject);
    connection.once("close", () => resolve(text));
  });
}
