/**
 * Holds the event logs of a file's tests to those in test/golden/engine-logs.json.gz: what is sent to
 * engines and what listeners hear, in one order. `WRITE_ENGINE_LOGS=1` writes them anew.
 */

import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gunzipSync, gzipSync } from "node:zlib";
import { afterEach, beforeEach, expect } from "vitest";
import { EVENT_NAMES, onEvent } from "../../src/engine/events.ts";
import type { ToEngine } from "../../src/wire/protocol.ts";

const FILE = fileURLToPath(new URL("../golden/engine-logs.json.gz", import.meta.url));
/** Longer logs are kept as their digest. */
const LINES_MAX = 60;

interface PinnedLog {
  readonly lines: number;
  readonly log: readonly string[] | string;
}

let log: string[] = [];

/** Call with everything that an engine is sent. */
export function noteSent(message: ToEngine): void {
  log.push(`send ${JSON.stringify(message)}`);
}

/** @param unpinned beginnings of the names of tests whose course is random */
export function pinLogs(file: string, unpinned: readonly string[] = []): void {
  const written = process.env["WRITE_ENGINE_LOGS"] === "1";
  let stops: (() => void)[] = [];

  beforeEach(() => {
    log = [];
    stops = EVENT_NAMES.map((name) =>
      onEvent(name, (event) => {
        const {
          atUnixMs: _,
          session: __,
          ...told
        } = event as { atUnixMs?: number; session?: string };
        log.push(`${name} ${JSON.stringify(told)}`);
      }),
    );
  });

  afterEach(({ task }) => {
    for (const stop of stops) stop();
    if (task.result?.state === "fail") return;
    if (unpinned.some((name) => task.name.startsWith(name))) return;
    const pinned = JSON.parse(gunzipSync(readFileSync(FILE)).toString()) as Record<
      string,
      PinnedLog
    >;
    const key = `${file}: ${task.suite === undefined ? "" : `${task.suite.name} > `}${task.name}`;
    const digest = createHash("sha256").update(log.join("\n")).digest("hex");
    const now = { lines: log.length, log: log.length > LINES_MAX ? digest : log };
    if (written) {
      const all = Object.entries({ ...pinned, [key]: now }).sort(([a], [b]) => (a < b ? -1 : 1));
      const text = `${JSON.stringify(Object.fromEntries(all), null, 1)}\n`;
      writeFileSync(FILE, gzipSync(text, { level: 9 }));
    } else expect(now).toEqual(pinned[key]);
  });
}
