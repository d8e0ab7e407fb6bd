/** SIGHUP while `lazygraph serve` runs: its file is read again, and what may change does. */

import { dropOldest } from "../base/drop-oldest.ts";
import { codeOf } from "../base/errors.ts";
import type { Controller } from "../controller/controller.ts";
import { ENGINES_MAX } from "../controller/options.ts";
import { onEvent } from "../engine/events.ts";
import type { Mode } from "../wire/protocol.ts";
import { errorSentence } from "./errors.ts";
import type { Log } from "./log.ts";

export interface Reloading {
  reload(): void;
  stop(): void;
}

/** What is compared between two readings: the rest of a service can't change while it runs. */
export interface Reloadable {
  readonly mode: Mode;
  /** All that command line and file say, by the names that both know. */
  readonly given: Readonly<Record<string, unknown>>;
}

/**
 * The mode goes to all connected engines, and once to those that come later; anything else that
 * changed is told to need a restart. A file that can't be used changes nothing.
 *
 * @param read reads command line, environment and file anew; throws what is wrong with them
 */
export function createReloading<T extends Reloadable>(
  controller: Controller,
  log: Log,
  first: T,
  read: () => T,
): Reloading {
  let current = first;
  /** Engines that know the mode of the last change: from then on theirs is what HTTP makes it. */
  let told: Set<string> | undefined;
  const stop = onEvent("lazygraph:engine:join", ({ engine, mode }) => {
    if (told === undefined || told.has(engine)) return;
    told.add(engine);
    dropOldest(told, ENGINES_MAX);
    if (mode !== current.mode) controller.setMode(engine, current.mode);
  });
  return {
    stop,
    reload() {
      let next: T;
      try {
        next = read();
      } catch (error) {
        const sentence = `SIGHUP: nothing changed. ${errorSentence(error)}`;
        log.line("error", sentence, {}, { code: codeOf(error) });
        return;
      }
      // From what runs, as first read: who took a change back is done.
      const others = changedNames(first.given, next.given).filter((name) => name !== "mode");
      const isNewMode = next.mode !== current.mode;
      current = next;
      if (isNewMode) {
        const there = controller.engines().filter(({ connected }) => connected);
        told = new Set(there.map(({ engine }) => engine));
        for (const engine of told) controller.setMode(engine, next.mode);
      }
      const sentence = isNewMode
        ? `SIGHUP: mode ${next.mode}`
        : `SIGHUP: mode ${next.mode}, as before`;
      log.line("info", sentence, {}, { mode: next.mode });
      if (others.length === 0) return;
      const names = others.join(", ");
      log.line("warn", `SIGHUP: ${names} changed in the file; restart to use it.`);
    },
  };
}

function changedNames(before: Reloadable["given"], after: Reloadable["given"]): string[] {
  const names = [...new Set([...Object.keys(before), ...Object.keys(after)])];
  return names.filter((name) => JSON.stringify(before[name]) !== JSON.stringify(after[name]));
}
