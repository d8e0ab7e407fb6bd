/**
 * Files and folders that are this process's alone: they are taken away when it ends, also by a
 * signal that nobody else listens to.
 */

import { mkdtempSync, rmSync } from "node:fs";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

const SIGNALS: readonly NodeJS.Signals[] = ["SIGINT", "SIGTERM", "SIGQUIT", "SIGHUP"];
/** A copy that is under way may add a file meanwhile. */
const HOW = { recursive: true, force: true, maxRetries: 3 } as const;

const leftovers = new Set<string>();

/** Something that is about to be made; `removeLeftover` is its end, or `forget`. */
export function leftover(path: string): string {
  if (leftovers.size === 0) {
    // First of all: who else listens is to be seen before one of them has stopped listening.
    for (const name of SIGNALS) process.prependListener(name, onSignal);
    process.on("exit", removeAll);
  }
  leftovers.add(path);
  return path;
}

/** A fresh one. Made at once: between a folder's making and its name a signal could come. */
export async function temporaryFolder(prefix: string, parent: string = tmpdir()): Promise<string> {
  return leftover(mkdtempSync(join(parent, prefix)));
}

/** Rejects where it can't be removed, and nobody tries again. */
export async function removeLeftover(path: string): Promise<void> {
  try {
    await rm(path, HOW);
  } finally {
    forget(path);
  }
}

/** It is none any more: it has another name now, or is gone. */
export function forget(path: string): void {
  if (!leftovers.delete(path) || leftovers.size > 0) return;
  for (const name of SIGNALS) process.off(name, onSignal);
  process.off("exit", removeAll);
}

function onSignal(signal: NodeJS.Signals): void {
  // Whoever else listens decides what it does.
  if (process.listenerCount(signal) > 1) return;
  removeAll();
  // Without listeners it has its default effect.
  process.kill(process.pid, signal);
}

function removeAll(): void {
  for (const path of leftovers) {
    try {
      rmSync(path, HOW);
    } catch {
      // How the process ends is what counts.
    }
    forget(path);
  }
}
