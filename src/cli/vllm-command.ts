/**
 * What a command line says of the vLLM server that it starts. Pure: words in, words out.
 */

import { basename } from "node:path";
import { LazygraphError } from "../base/errors.ts";
import { withoutEnv } from "../launcher/python-of.ts";
import { quote } from "./errors.ts";

/** A server, by any of the ways in which it is started. */
export interface VllmCommand {
  /** `vllm`, or a Python: whose interpreter it is. */
  readonly file: string;
  /** Python's own options before `-m`. */
  readonly pythonOptions: readonly string[];
  /** `serve MODEL …`, or the options of the API server's module. */
  readonly words: readonly string[];
  /** Variables set in front of it, by `env NAME=VALUE …`. */
  readonly variables: Readonly<Record<string, string>>;
}

const SERVER_MODULE = "vllm.entrypoints.openai.api_server";
const CLI_MODULE = "vllm.entrypoints.cli.main";
/** Those that stand alone, and those that take the next word. */
const PYTHON_FLAGS = /^-([bBdEiIOPqsSuvx]+|[XW].+)$/;
/** After other flags, and with the module in the same word or the next one. */
const PYTHON_MODULE = /^-([bBdEiIOPqsSuvx]*)m(.*)$/;
const PYTHON_VALUES = ["-X", "-W"];

/** @throws LazygraphError `ERR_LAZYGRAPH_COMMAND_NOT_VLLM` */
export function vllmCommand(command: readonly string[]): VllmCommand {
  const { variables, rest } = withoutEnv(command);
  const [file = "", ...words] = rest;
  const name = basename(file);
  if (name === "vllm") return { file, pythonOptions: [], words: serve(command, words), variables };
  if (/^python(\d+(\.\d+)?)?$/.test(name)) {
    return { file, ...pythonCommand(command, words), variables };
  }
  throw notVllm(command);
}

function pythonCommand(
  command: readonly string[],
  given: readonly string[],
): Pick<VllmCommand, "pythonOptions" | "words"> {
  let at = 0;
  for (; at < given.length; at++) {
    const word = given[at] ?? "";
    if (PYTHON_VALUES.includes(word)) at++;
    else if (!PYTHON_FLAGS.test(word)) break;
  }
  const pythonOptions = given.slice(0, at);
  const [first = "", ...after] = given.slice(at);
  if (basename(first) === "vllm") return { pythonOptions, words: serve(command, after) };
  const [, flags = "", glued] = PYTHON_MODULE.exec(first) ?? [];
  if (glued === undefined) throw notVllm(command);
  if (flags !== "") pythonOptions.push(`-${flags}`);
  const [module = "", ...words] = glued === "" ? after : [glued, ...after];
  if (module === SERVER_MODULE) return { pythonOptions, words };
  if (module !== CLI_MODULE) throw notVllm(command);
  return { pythonOptions, words: serve(command, words) };
}

/** Other subcommands start no server, or one whose options are others. */
function serve(command: readonly string[], words: readonly string[]): readonly string[] {
  if (words[0] !== "serve") throw notVllm(command);
  return words;
}

function notVllm(command: readonly string[]): LazygraphError {
  return new LazygraphError(
    "ERR_LAZYGRAPH_COMMAND_NOT_VLLM",
    `Expected \`vllm serve MODEL …\` or \`python -m ${SERVER_MODULE} …\` after \`--\`, got ` +
      `${quote(command.slice(0, 3).join(" "))}: give the command as it runs beside vLLM's Python, ` +
      "inside a container or launcher and not around it, variables after `env`.",
  );
}
