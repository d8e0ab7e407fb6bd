/** Why a command could not be started, in a sentence: the system only says ENOENT or EACCES. */

import { constants } from "node:fs";
import { access, stat } from "node:fs/promises";
import { type ErrorCode, LazygraphError, OptionError } from "../base/errors.ts";
import { fileHead, findOnPath } from "../launcher/python-of.ts";
import { quote } from "./errors.ts";

/** @throws LazygraphError what `startError` makes of it, where starting the command would fail */
export async function requireExecutable(
  file: string,
  environment: NodeJS.ProcessEnv,
): Promise<void> {
  const cause = await whatStops(file, environment);
  if (cause !== undefined) throw await startError(file, environment, cause);
}

/** @throws OptionError where the program that an option names could not be started */
export async function requireProgram(option: string, file: string): Promise<void> {
  const cause = await whatStops(file, process.env);
  if (cause === undefined) return;
  const why = await whyNot(file, process.env, cause);
  throw new OptionError(
    option,
    `Expected ${option} to be a program that can be started, got ${quote(file)}, ${why}.`,
  );
}

async function whatStops(
  file: string,
  environment: NodeJS.ProcessEnv,
): Promise<NodeJS.ErrnoException | undefined> {
  const path = await pathOf(file, environment);
  const code = path === undefined ? "ENOENT" : await obstacle(path);
  return code && Object.assign(new Error(`spawn ${code}`), { code });
}

export async function startError(
  file: string,
  environment: NodeJS.ProcessEnv,
  cause: NodeJS.ErrnoException,
): Promise<LazygraphError> {
  const missing = cause.code === "ENOENT";
  const why = await whyNot(file, environment, cause);
  const code: ErrorCode = missing
    ? "ERR_LAZYGRAPH_COMMAND_NOT_FOUND"
    : "ERR_LAZYGRAPH_COMMAND_NOT_EXECUTABLE";
  const expected = missing ? "exists" : "can be executed";
  return new LazygraphError(
    code,
    `Expected a command that ${expected} after --, got ${quote(file)}, ${why}.`,
    { cause },
  );
}

async function whyNot(
  file: string,
  environment: NodeJS.ProcessEnv,
  cause: NodeJS.ErrnoException,
): Promise<string> {
  const path = await pathOf(file, environment);
  return cause.code === "ENOENT" ? whyMissing(file, path) : whyNotExecutable(path, cause);
}

async function whyMissing(file: string, path: string | undefined): Promise<string> {
  if (path === undefined) {
    // As a shell takes it, in front of a command.
    if (/^[A-Za-z_]\w*=/.test(file)) return "a variable: write `env` before it";
    return "which is not on PATH: install it, activate its environment or give its full path";
  }
  if (!(await exists(path))) {
    return file.startsWith("/")
      ? "and there is no such file: check the path"
      : `and there is no such file in ${quote(process.cwd())}: check the path`;
  }
  const interpreter = await interpreterOf(path);
  if (interpreter !== undefined && !(await exists(interpreter))) {
    return (
      `whose first line names the interpreter ${quote(interpreter)}, and there is no such file: ` +
      "make its environment anew, or install it again"
    );
  }
  return "which is there, but not what it is loaded by: it was built for another system";
}

async function whyNotExecutable(
  path: string | undefined,
  cause: NodeJS.ErrnoException,
): Promise<string> {
  if (path === undefined) return `which PATH has but the system refuses: ${cause.message}`;
  const entry = await stat(path).catch(() => undefined);
  if (entry?.isDirectory() === true) return "which is a folder: name a program in it";
  if (cause.code === "EACCES") {
    return "which is not executable: `chmod +x` it, or name its interpreter before it";
  }
  return `which the system refuses: ${cause.message}`;
}

/** A name without a slash is looked up; anything else is a path already. */
async function pathOf(file: string, environment: NodeJS.ProcessEnv): Promise<string | undefined> {
  return file.includes("/") ? file : findOnPath(file, environment);
}

async function obstacle(path: string): Promise<"ENOENT" | "EACCES" | undefined> {
  const entry = await stat(path).catch(() => undefined);
  if (entry === undefined) return "ENOENT";
  if (entry.isDirectory()) return "EACCES";
  try {
    await access(path, constants.X_OK);
  } catch {
    return "EACCES";
  }
  const interpreter = await interpreterOf(path);
  return interpreter === undefined || (await exists(interpreter)) ? undefined : "ENOENT";
}

async function interpreterOf(path: string): Promise<string | undefined> {
  return /^#![ \t]*(\S+)/.exec(await fileHead(path))?.[1];
}

async function exists(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined)) !== undefined;
}
