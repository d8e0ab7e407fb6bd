/**
 * A process with vLLM imported and no CUDA context, from which servers are forked.
 *
 * The process is Python's (`python -m lazygraph_vllm.launcher`, in the plugin's package); here it
 * is started, watched and ended. Servers are not its children but their keepers': they go on
 * without it.
 */

import { type ChildProcess, execFile, type SpawnOptions, spawn } from "node:child_process";
import { resolve } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";
import * as v from "valibot";
import { callListener } from "../base/call-listener.ts";
import { callback, checkOptions, type OptionRules, rule, textRule } from "../base/check-options.ts";
import { endsAlone } from "../base/ends-alone.ts";
import { codeOf, ERROR_CODES, type ErrorCode, LazygraphError, messageOf } from "../base/errors.ts";
import { object, whole } from "../base/schema.ts";
import { launcherCommand } from "./command.ts";
import { askLauncher, type LauncherStatus, launcherStatus } from "./status.ts";

export interface LauncherOptions {
  /** vLLM's interpreter, which has the plugin (default: `python3`). */
  readonly python?: string;
  /** Path of its socket (default: one for each user and environment). */
  readonly socket?: string;
  /** The only models that it may start (default: any). */
  readonly models?: readonly string[];
  /**
   * Models' folders, in the very words of the commands that will name them, absolute; at most 16.
   * Their tokenizers are loaded once, not by each server, and anew when a folder's files change.
   */
  readonly tokenizers?: readonly string[];
  /** Servers at once, 1 to 256 (default: 16). */
  readonly childrenMax?: number;
  /** Modules to import in the place of vLLM's; for tests. */
  readonly preload?: readonly string[];
  /** `MODULE:FUNCTION` that a server calls in the place of vLLM's `main`; for tests. */
  readonly main?: string;
  /** Its variables, and those that servers must not differ in (default: this process's). */
  readonly environment?: NodeJS.ProcessEnv;
  /** Milliseconds for the imports (default: 300,000). */
  readonly startTimeoutMs?: number;
  /** Called with every status that it tells by itself: when it listens, and after a restart. */
  readonly onStatus?: (status: LauncherStatus) => void;
}

export interface Launcher {
  /** @throws LazygraphError when it can't be a launcher, with the reason */
  start(): Promise<LauncherStatus>;
  /** Asked anew. */
  status(): Promise<LauncherStatus>;
  /**
   * A command as `node:child_process` spawns it, forked: its environment, folder, files, signals
   * and exit code. Where it can't be forked it is spawned, and a line on its stderr says why.
   */
  spawn(command: readonly string[], options?: SpawnOptions): Promise<ChildProcess>;
  /** Settles when the launcher has ended, with its exit code; 0 where it was closed unstarted. */
  readonly ended: Promise<number>;
  /** Ends the launcher, which can't be started again; its servers go on. */
  close(): Promise<void>;
}

const START_TIMEOUT_MS = 300_000;
const CLOSE_TIMEOUT_MS = 5000;
const SOCKET_TIMEOUT_MS = 30_000;
const STDERR_CHARS_MAX = 4000;
const CHILDREN_MAX = 256;

const texts = rule("a list of texts", (value) => v.is(v.array(textRule("a text")), value));
const RULES: OptionRules<LauncherOptions> = {
  python: textRule("the name or the path of a Python"),
  socket: textRule("the path of a socket"),
  models: texts,
  tokenizers: texts,
  childrenMax: whole(1, CHILDREN_MAX),
  preload: texts,
  main: textRule("MODULE:FUNCTION"),
  environment: object,
  startTimeoutMs: whole(1, 3_600_000),
  onStatus: callback,
};

/** @throws OptionError that names the first option that is unknown or breaks its rule */
export function createLauncher(options: LauncherOptions = {}): Launcher {
  return openLauncher(options);
}

/** A launcher that also tells why it has ended, once it has; undefined: as it was asked to. */
export function openLauncher(
  options: LauncherOptions,
): Launcher & { readonly fault: () => LazygraphError | undefined } {
  checkOptions(options, RULES);
  const { python = "python3", environment = process.env, onStatus } = options;
  let child: ChildProcess | undefined;
  let socket: string | undefined;
  let stderr = "";
  let fault: LazygraphError | undefined;
  let end: (code: number) => void = () => undefined;
  const ended = new Promise<number>((settle) => {
    end = settle;
  });

  function begin(): Promise<LauncherStatus> {
    return new Promise((listening, fail) => {
      let started: ChildProcess;
      try {
        const stdio: SpawnOptions["stdio"] = ["ignore", "pipe", "pipe"];
        started = endsAlone(spawn(python, words(options), { env: environment, stdio }));
      } catch (error) {
        // Some reasons are thrown, others told by an event.
        end(1);
        fail(notStarted(python, error));
        return;
      }
      child = started;
      const { startTimeoutMs = START_TIMEOUT_MS } = options;
      const timer = setTimeout(() => {
        fail(failed(python, `none within ${startTimeoutMs / 1000} s`));
        started.kill("SIGKILL");
      }, startTimeoutMs);
      started.stderr?.setEncoding("utf8").on("data", (text: string) => {
        stderr = (stderr + text).slice(-STDERR_CHARS_MAX);
      });
      createInterface({ input: started.stdout as NodeJS.ReadableStream }).on("line", (line) => {
        const status = launcherStatus(line);
        if (status === undefined) return;
        clearTimeout(timer);
        socket = status.socket;
        callListener("onStatus", onStatus, status);
        listening(status);
      });
      started.once("error", (error) => fail(notStarted(python, error)));
      // After its last words were read.
      started.once("close", (code, signal) => {
        clearTimeout(timer);
        if (code !== 0) fault = reasonOf(python, stderr, socket !== undefined, signal);
        end(code ?? 1);
        fail(fault ?? reasonOf(python, stderr));
      });
    });
  }

  let starting: Promise<LauncherStatus> | undefined;
  let isClosed = false;
  const path = (): string => {
    if (socket !== undefined) return socket;
    throw new LazygraphError(
      "ERR_LAZYGRAPH_LAUNCHER_UNREACHABLE",
      "Expected a launcher that listens, got one not started: await start() first.",
    );
  };
  return {
    ended,
    fault: () => fault,
    async start() {
      if (isClosed) {
        const closed = "Expected an open launcher, got a closed one: create another one.";
        throw new LazygraphError("ERR_LAZYGRAPH_CLOSED", closed);
      }
      starting ??= begin();
      return await starting;
    },
    async status() {
      return askLauncher(path());
    },
    async spawn(command, spawnOptions = {}) {
      const env = spawnOptions.env ?? process.env;
      const [file = "", ...args] = await launcherCommand(path(), command, env, spawnOptions.cwd);
      return spawn(file, args, spawnOptions);
    },
    async close() {
      isClosed = true;
      if (child === undefined) end(0);
      if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
      const late = setTimeout(() => child?.kill("SIGKILL"), CLOSE_TIMEOUT_MS);
      child.kill("SIGTERM");
      await ended;
      clearTimeout(late);
    },
  };
}

/**
 * Where a launcher of this Python listens that was given no path: its environment is part of it.
 *
 * @throws LazygraphError as a launcher that can't start
 */
export async function defaultSocket(
  python = "python3",
  environment: NodeJS.ProcessEnv = process.env,
): Promise<string> {
  const asked = ["-m", "lazygraph_vllm.launcher", "--print-socket"];
  const limits = { timeout: SOCKET_TIMEOUT_MS, killSignal: "SIGKILL" } as const;
  try {
    const answer = promisify(execFile)(python, asked, { env: environment, ...limits });
    endsAlone(answer.child);
    const { stdout } = await answer;
    return stdout.trimEnd();
  } catch (error) {
    const { stderr } = error as { stderr?: string };
    if (stderr) throw reasonOf(python, stderr);
    throw notStarted(python, error, "name its launcher's socket");
  }
}

function words(options: LauncherOptions): string[] {
  const { socket, models = [], tokenizers = [], childrenMax, preload = [], main } = options;
  return [
    "-m",
    "lazygraph_vllm.launcher",
    "--with-parent",
    ...(socket === undefined ? [] : ["--socket", resolve(socket)]),
    ...models.flatMap((model) => ["--allow-model", model]),
    ...tokenizers.flatMap((folder) => ["--tokenizer", folder]),
    ...(childrenMax === undefined ? [] : ["--children", String(childrenMax)]),
    ...preload.flatMap((module) => ["--preload", module]),
    ...(main === undefined ? [] : ["--main", main]),
  ];
}

/** The launcher's own sentence and code, if its last line has them. */
function reasonOf(
  python: string,
  stderr: string,
  listened = false,
  signal: NodeJS.Signals | null = null,
): LazygraphError {
  const last = stderr.trim().split("\n").at(-1) ?? "";
  const [, sentence, code] = /^lazygraph: (.*) \[(ERR_LAZYGRAPH_\w+)\]$/.exec(last) ?? [];
  if (sentence !== undefined && ERROR_CODES.some((known) => known === code)) {
    return new LazygraphError(code as ErrorCode, sentence);
  }
  if (/No module named '?lazygraph_vllm/.test(last)) {
    return new LazygraphError(
      "ERR_LAZYGRAPH_PLUGIN_MISSING",
      `Expected the plugin lazygraph-vllm with its launcher in ${python}, which hasn't got it: ` +
        `run \`${python} -m pip install ./worker\` in a checkout of lazygraph.`,
    );
  }
  // One that has listened may have said much that is not why it was killed.
  if (listened && signal !== null) return failed(python, `its end by ${signal}`, "stay a launcher");
  const got = last === "" ? "an end without a word" : last;
  return failed(python, got, `${listened ? "stay" : "become"} a launcher`);
}

const BECOME = "become a launcher";

function notStarted(python: string, error: unknown, what: string = BECOME): LazygraphError {
  if (codeOf(error) !== "ENOENT") return failed(python, messageOf(error), what);
  return failed(python, "no such program", what, "install it or give its path");
}

function failed(
  python: string,
  got: string,
  what: string = BECOME,
  remedy = "run it by hand to see more",
): LazygraphError {
  return new LazygraphError(
    "ERR_LAZYGRAPH_LAUNCHER_FAILED",
    `Expected ${python} to ${what}, got ${got.slice(0, 400)}: ${remedy}.`,
  );
}
