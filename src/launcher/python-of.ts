/** Whose interpreter runs a command: `vllm` is a script of one, and its head says which. */

import { constants } from "node:fs";
import { access, open, realpath } from "node:fs/promises";
import { basename, delimiter, dirname, join } from "node:path";

const HEAD_BYTES = 4096;

/**
 * What a plain `env NAME=VALUE … COMMAND` sets and runs. With options of its own `env` is another
 * program to us.
 */
export function withoutEnv(command: readonly string[]): {
  readonly variables: Readonly<Record<string, string>>;
  readonly rest: readonly string[];
} {
  const variables: Record<string, string> = {};
  if (basename(command[0] ?? "") !== "env") return { variables, rest: command };
  let at = 1;
  for (; at < command.length; at++) {
    const [, name, value] = /^([A-Za-z_]\w*)=(.*)$/s.exec(command[at] ?? "") ?? [];
    if (name === undefined || value === undefined) break;
    variables[name] = value;
  }
  return { variables, rest: command.slice(at) };
}

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
  return pythonOfScript(path, environment);
}

/** What a shell runs in the place of a script whose first line the kernel would cut or split. */
const TRAMPOLINE = /^'''exec'\s+(.+)\s+"\$0"\s+"\$@"/;
/** Of environments that may be moved: beside the script, wherever it is. */
const BESIDE = /^"\$\(dirname -- "\$\(realpath -- "\$0"\)"\)"\/(.+)$/;
const QUOTED = /'([^']*)'|"([^"]*)"|[^'"\s]+/g;

/** Reads the forms that installers (pip, conda, uv) write into the head of a console script. */
async function pythonOfScript(
  path: string,
  environment: NodeJS.ProcessEnv,
): Promise<string | undefined> {
  const [first = "", second = ""] = (await fileHead(path)).split("\n");
  const shebang = /^#!\s*(\S+)(?:\s+(\S+))?/.exec(first);
  if (shebang === null) return undefined;
  const [, interpreter = "", argument = ""] = shebang;
  const word = TRAMPOLINE.exec(second)?.[1];
  if (word !== undefined) return trampolinePython(path, word);
  if (basename(interpreter) === "env") {
    return argument.startsWith("python") ? findOnPath(argument, environment) : undefined;
  }
  return basename(interpreter).startsWith("python") ? interpreter : undefined;
}

async function trampolinePython(path: string, word: string): Promise<string | undefined> {
  const beside = BESIDE.exec(word)?.[1];
  const python = unquoted(beside ?? word);
  // Something else that the shell would have to work out.
  if (python.includes("$")) return undefined;
  if (beside === undefined) return python;
  return join(dirname(await realpath(path).catch(() => path)), python);
}

/** One word of a shell: `'a b'`, `"a b"`, bare, or several of them without a blank between. */
function unquoted(word: string): string {
  return word.replaceAll(QUOTED, (piece, single, double) => single ?? double ?? piece);
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
