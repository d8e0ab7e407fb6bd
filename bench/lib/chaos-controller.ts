/**
 * A controller in a process of its own, for bench/chaos.ts: orders as JSON lines on stdin, what it
 * knows of its engines as JSON lines on stdout.
 *
 *     tsx chaos-controller.ts tcp://127.0.0.1:PORT
 */

import { createInterface } from "node:readline";
import { createController } from "../../src/controller/controller.ts";
import type { Mode } from "../../src/wire/protocol.ts";

export interface ChaosOrder {
  readonly id: number;
  readonly engine: string;
  /** Absent: a freeze. */
  readonly mode?: Mode;
}

export interface ChaosEngine {
  readonly engine: string;
  readonly session: string;
  readonly connected: boolean;
  readonly phase: string;
  readonly mode: Mode;
  readonly frozen: boolean;
  readonly captured: number;
}

export type ChaosLine =
  | {
      readonly type: "state";
      /** Unix milliseconds at which it was so: what is told may wait in a pipe. */
      readonly atMs: number;
      readonly rssBytes: number;
      readonly engines: readonly ChaosEngine[];
    }
  | { readonly type: "ordered"; readonly id: number; readonly taken: boolean };

const TELL_MS = 25;

const [endpoint = ""] = process.argv.slice(2);
const controller = createController({
  endpoint,
  mode: "idle",
  plan: false,
  memory: { gpu: false },
});
const say = (line: ChaosLine): void => console.log(JSON.stringify(line));

createInterface({ input: process.stdin }).on("line", (line) => {
  const { id, engine, mode } = JSON.parse(line) as ChaosOrder;
  try {
    if (mode === undefined) controller.freeze(engine, "by the test");
    else controller.setMode(engine, mode);
    say({ type: "ordered", id, taken: true });
  } catch {
    say({ type: "ordered", id, taken: false });
  }
});
process.once("SIGTERM", () => void controller.close().then(() => process.exit(0)));
await controller.start();
setInterval(() => {
  const engines = controller.engines().map((one) => ({
    engine: one.engine,
    session: one.session,
    connected: one.connected,
    phase: one.phase,
    mode: one.mode,
    frozen: one.frozen,
    captured: one.graphsCaptured,
  }));
  say({ type: "state", atMs: Date.now(), rssBytes: process.memoryUsage.rss(), engines });
}, TELL_MS);
