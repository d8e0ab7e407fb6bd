/** Where the server of a command answers, and that nobody else does. */

import { createConnection } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { LazygraphError, OptionError } from "../base/errors.ts";
import { quote } from "./errors.ts";
import { commandWords, vllmOption } from "./vllm-options.ts";

const PORT_PLACEHOLDER = "{port}";
const DEFAULT_PORT = 8000;
const PORT_MAX = 65_535;
const LOOPBACK = "127.0.0.1";
/** Those of which loopback is one. */
const ANY_HOST: ReadonlySet<string> = new Set(["", "0.0.0.0", "::", "localhost"]);
/** An earlier server may take that long to be gone. */
const FREE_WITHIN_SECONDS = 5;
const CONNECT_MS_MAX = 1000;
const POLL_MS = 50;

/** Where a command answers, by its `--host` and `--port` or vLLM's own. */
export function serverUrlOf(command: readonly string[], free: number): URL {
  const host = vllmOption(command, "host") ?? "";
  const known = ANY_HOST.has(host) || !/^[\w.:-]+$/.test(host) ? LOOPBACK : host;
  return new URL(`http://${known.includes(":") ? `[${known}]` : known}:${portOf(command, free)}/`);
}

/** The port that a command names, or vLLM's own. */
export function portOf(command: readonly string[], free: number): number {
  if (asksForPort(command)) return free;
  return portNumber(simulatedPort(command) ?? vllmOption(command, "port")) ?? DEFAULT_PORT;
}

/** Whether a command says at which port it answers. */
export function namesPort(command: readonly string[]): boolean {
  return (
    asksForPort(command) || (simulatedPort(command) ?? vllmOption(command, "port")) !== undefined
  );
}

/** What our simulated engine has in `--http`; before it that is of a `lazygraph run` around it. */
function simulatedPort(command: readonly string[]): string | undefined {
  const words = commandWords(command);
  const at = words.indexOf("simulated-engine");
  if (at === -1) return undefined;
  return /:(\d+)$/.exec(vllmOption(words.slice(at), "http") ?? "")?.[1];
}

/** The words to start, with a free port in the place of `{port}`. */
export function withPort(command: readonly string[], free: number): string[] {
  return command.map((word) => word.replaceAll(PORT_PLACEHOLDER, String(free)));
}

/**
 * A server that nobody could ask would be waited for in vain.
 *
 * @throws OptionError for a command whose port can't be told, or that answers at no port by HTTP
 */
export function requireAnswerable(name: string, command: readonly string[]): void {
  if (
    vllmOption(command, "uds") !== undefined ||
    vllmOption(command, "ssl-certfile") !== undefined
  ) {
    throw new OptionError(
      "--port",
      `Expected ${name} to answer by plain HTTP at a port, got --uds or --ssl-certfile: leave it ` +
        "out here.",
    );
  }
  const port = vllmOption(command, "port");
  if (port === undefined || asksForPort(command) || portNumber(port) !== undefined) return;
  throw new OptionError(
    "--port",
    `Expected the --port of ${name} to be a number from 1 to ${PORT_MAX} or {port}, got ` +
      `${quote(port)}: the server would be waited for elsewhere.`,
  );
}

/** The key that a server wants of who asks for a token; undefined where it wants none. */
export function serverKeyOf(
  command: readonly string[],
  environment: NodeJS.ProcessEnv,
): string | undefined {
  const words = commandWords(command);
  const variable = words.flatMap((word) => /^VLLM_API_KEY=(.*)$/s.exec(word)?.[1] ?? []).at(-1);
  const key = vllmOption(command, "api-key") ?? variable ?? environment["VLLM_API_KEY"];
  // Another one fits into no header, and would be named by the error that says so.
  return key !== undefined && /^[\x21-\x7e]+$/.test(key) ? key : undefined;
}

/**
 * Waits until nobody listens where the command will. Another server's answers would be taken for its
 * own, and be measured.
 *
 * @throws LazygraphError `ERR_LAZYGRAPH_ADDRESS_IN_USE`
 */
export async function untilFree(
  url: URL,
  signal: AbortSignal,
  secondsMax: number = FREE_WITHIN_SECONDS,
): Promise<void> {
  const deadline = performance.now() + secondsMax * 1000;
  while (await isTaken(url)) {
    signal.throwIfAborted();
    if (performance.now() >= deadline) {
      throw new LazygraphError(
        "ERR_LAZYGRAPH_ADDRESS_IN_USE",
        `Expected nobody to listen at ${url.host} before the command is started, got a server: end ` +
          "it, or write {port} in the command's --port.",
      );
    }
    await sleep(POLL_MS);
  }
}

function isTaken({ hostname, port }: URL): Promise<boolean> {
  const host = hostname.replace(/^\[|\]$/g, "");
  return new Promise((resolve) => {
    // 80 is left out of a URL.
    const socket = createConnection({ host, port: Number(port || 80) });
    const end = (taken: boolean): void => {
      socket.destroy();
      resolve(taken);
    };
    socket.setTimeout(CONNECT_MS_MAX, () => end(false));
    socket.once("connect", () => end(true));
    socket.once("error", () => end(false));
  });
}

function asksForPort(command: readonly string[]): boolean {
  return command.some((word) => word.includes(PORT_PLACEHOLDER));
}

function portNumber(text: string | undefined): number | undefined {
  if (text === undefined || !/^\d{1,5}$/.test(text)) return undefined;
  const port = Number(text);
  return port >= 1 && port <= PORT_MAX ? port : undefined;
}
