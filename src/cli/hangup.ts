/**
 * Whether this process was started to outlive its terminal: by `nohup`, or by a shell that ignores
 * SIGHUP.
 *
 * Node puts inherited dispositions back to their defaults before our first line runs, so that
 * /proc/self/status can't tell. Three things can, each of them enough: a parent that ignores the
 * signal hands that down, bash, zsh and ksh name the program they started in the variable `_`, and
 * nohup replaces a terminal on stdin by a file that can only be written to.
 */

import { readFileSync } from "node:fs";
import { basename } from "node:path";

const SIGHUP_BIT = 1n;
const ACCESS_MODE = 0o3;
const WRITE_ONLY = 0o1;

export interface ProcessFacts {
  /** The variable `_`. */
  readonly startedAs: string | undefined;
  /** The text of /proc/PPID/status; empty where there is none. */
  readonly parentStatus: string;
  /** The text of /proc/self/fdinfo/0. */
  readonly stdinInfo: string;
}

export function isHangupIgnored(facts: ProcessFacts = processFacts()): boolean {
  const ignored = /^SigIgn:\s*([0-9a-f]+)$/m.exec(facts.parentStatus)?.[1];
  if (ignored !== undefined && (BigInt(`0x${ignored}`) & SIGHUP_BIT) !== 0n) return true;
  if (basename(facts.startedAs ?? "") === "nohup") return true;
  const flags = /^flags:\s*([0-7]+)$/m.exec(facts.stdinInfo)?.[1];
  return flags !== undefined && (Number.parseInt(flags, 8) & ACCESS_MODE) === WRITE_ONLY;
}

function processFacts(): ProcessFacts {
  return {
    startedAs: process.env["_"],
    parentStatus: textOf(`/proc/${process.ppid}/status`),
    stdinInfo: textOf("/proc/self/fdinfo/0"),
  };
}

function textOf(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
