/** Whose interpreter runs a command: `vllm` is a script of one, and its head says which. */

import { constants } from "node:fs";
import { access, open } from "node:fs/promises";
import { basename, delimiter, join } from "node:path";

const HEAD_BYTES = 4096;

/** The interpreter behind `vllm` or `python`; undefined for anything else. */
export async function resolvePython(
  file: string,
  environment: NodeJS.ProcessEnv,
): Promise<string | undefined> {
  const path = file.includes("/") ? file : await findOnPath(file, environment);
  if (path === undefined) return undefined;
  const name = basename(path);
  if (/^python(\d+(\.\d+)?)?$/.test(name)) return path;
  if (name !== "vllm") return undefined;
  return pythonOfScript(await fileHead(path), environment);
}

/** Reads the three forms that installers write into the head of a console script. */
async function pythonOfScript(
  text: string,
  environment: NodeJS.ProcessEnv,
): Promise<string | undefined> {
  const [first = "", second = ""] = text.split("\n");
  const shebang = /^#!\s*(\S+)(?:\s+(\S+))?/.exec(first);
  if (shebang === null) return undefined;
  const [, interpreter = "", argument = ""] = shebang;
  // pip writes `#!/bin/sh` and `'''exec' "/a long/path/python" "$0" "$@"` for paths that the
  // kernel would cut or split.
  const trampoline = /^'''exec'\s+(?:"([^"]+)"|(\S+))/.exec(second);
  if (trampoline !== null) return trampoline[1] ?? trampoline[2];
  if (basename(interpreter) === "env") {
    return argument.startsWith("python") ? findOnPath(argument, environment) : undefined;
  }
  return basename(interpreter).startsWith("python") ? interpreter : undefined;
}

export async function findOnPath(
  name: string,
  environment: NodeJS.ProcessEnv,
): Promise<string | undefined> {
  for (const folder of (environment["PATH"] ?? "").split(delimiter)) {
    const path = join(folder, name);
    try {
      await access(path, constants.X_OK);
      return path;
    } catch {
      // Not in this folder.
    }
  }
  return undefined;
}

/** The first bytes of a file as text; empty when it cannot be read. */
export async function fileHead(path: string): Promise<string> {
  try {
    await using file = await open(path);
    const { buffer, bytesRead } = await file.read(Buffer.alloc(HEAD_BYTES), 0, HEAD_BYTES, 0);
    return buffer.toString("utf8", 0, bytesRead);
  } catch {
    return "";
  }
}
