/**
 * What a command says of one of vLLM's options, in each of the ways in which vLLM takes it: after a
 * blank or `=`, with underscores, cut short, in a shell's script, in the file of `--config`.
 */

import { basename } from "node:path";
import { readRegularFile } from "../base/read-file.ts";

const SHELL = /^(ba|da|k|z)?sh$/;
/** `-c`, alone or among others, as in `-lc`. */
const SCRIPT_OPTION = /^-[a-z]*c$/;
/** Of a script, with its quotes; blanks and what ends a command are between words. */
const SCRIPT_WORD = /(?:"(?:\\.|[^"\\])*"|'[^']*'|\\.|[^\s;&|()"'\\])+/gs;
/** vLLM takes files of other names for a mistake. */
const CONFIG_FILE = /\.ya?ml$/;
const CONFIG_LINE = /^["']?([A-Za-z][\w-]*)["']?\s*:(?:\s+(.*))?$/s;
const CONFIG_BYTES_MAX = 1 << 20;
/** Python takes the beginning of an option for the option; shorter ones are more than one's. */
const CUT_CHARS_MIN = 3;

/**
 * Whether vLLM gets what is put behind the command: a shell's script, which it would be given to,
 * must pass it on, and has the first word behind it for its own name.
 */
export function takesWordsBehind(command: readonly string[]): boolean {
  const at = scriptAt(command);
  return at === -1 || (/\$[@*]/.test(command[at] ?? "") && command.length > at + 1);
}

/**
 * The value, the last where there are several; empty where there is none, undefined where the option
 * isn't given. A variable of a shell stays as it is written.
 */
export function vllmOption(command: readonly string[], option: string): string | undefined {
  const words = commandWords(command);
  return inWords(words, option) ?? inConfigFile(inWords(words, "config"), option);
}

/** Where the script of a shell is among the words, wherever the shell is; -1 where there is none. */
function scriptAt(command: readonly string[]): number {
  const shell = command.findIndex(
    (word, at) => SHELL.test(basename(word)) && SCRIPT_OPTION.test(command[at + 1] ?? ""),
  );
  return shell === -1 || command[shell + 2] === undefined ? -1 : shell + 2;
}

/** The words of a command, those of a shell's script one by one. */
export function commandWords(command: readonly string[]): readonly string[] {
  const at = scriptAt(command);
  if (at === -1) return command;
  const script = (command[at] ?? "").match(SCRIPT_WORD) ?? [];
  return [...command.slice(0, at), ...script.map(unquoted), ...command.slice(at + 1)];
}

function unquoted(word: string): string {
  return word.replace(/\\(.)|["']/gs, "$1");
}

function inWords(words: readonly string[], option: string): string | undefined {
  const at = words.findLastIndex((word) => isOption(word, option));
  if (at === -1) return undefined;
  const [, inline] = (words[at] ?? "").split(/=(.*)/s);
  const next = words[at + 1] ?? "";
  return inline ?? (next.startsWith("-") ? "" : next);
}

function isOption(word: string, option: string): boolean {
  if (!word.startsWith("--")) return false;
  const name = (word.slice(2).split("=")[0] ?? "").replaceAll("_", "-");
  return name === option || (name.length >= CUT_CHARS_MIN && option.startsWith(name));
}

/** Of its top level, one line an option; what can't be read is for vLLM to refuse. */
function inConfigFile(path: string | undefined, option: string): string | undefined {
  if (path === undefined || !CONFIG_FILE.test(path)) return undefined;
  let text: string;
  try {
    text = readRegularFile(path, CONFIG_BYTES_MAX).toString();
  } catch {
    return undefined;
  }
  const given = text.split("\n").flatMap((line) => {
    const [, key = "", rest = ""] = CONFIG_LINE.exec(line) ?? [];
    return key.replaceAll("_", "-") === option ? [scalar(rest)] : [];
  });
  return given.at(-1);
}

function scalar(text: string): string {
  const [, , quoted] = /^(["'])(.*?)\1/.exec(text) ?? [];
  return quoted ?? text.replace(/(^|\s)#.*$/s, "").trim();
}
