/** What our controller tells of one engine during a run, on the clock that requests are timed by. */

import type { Controller } from "../controller/controller.ts";
import { onEvent } from "../engine/events.ts";
import type { EngineSnapshot } from "../engine/snapshot.ts";
import type { SampleLine } from "./samples.ts";

export interface Watched {
  readySeconds?: number;
  settledSeconds?: number;
  graphsAtReady?: readonly string[];
  captureBeforeReadySeconds?: number;
}

export interface EngineWatch {
  readonly seen: Watched;
  /** The engine as the controller knows it now. */
  snapshot(): EngineSnapshot | undefined;
  stop(): void;
}

/**
 * Follows the engine of this name.
 *
 * @param originMs the moment that seconds count from
 */
export function watchEngine(
  controller: Controller,
  name: string,
  originMs: number,
  keep: (line: SampleLine) => void,
): EngineWatch {
  const seen: Watched = {};
  const started = new Map<string, { readonly whenIdle: boolean; readonly reason: string }>();
  const now = (): number => Math.round((performance.now() - originMs) * 1000) / 1e6;
  const snapshot = (): EngineSnapshot | undefined =>
    controller.engines().find(({ engine }) => engine === name);
  const memory = (): void => {
    const engine = snapshot();
    if (engine === undefined) return;
    const { graphsCaptured, takenBytes, freeBytes } = engine;
    const free = freeBytes === undefined ? {} : { freeBytes };
    keep({
      type: "memory",
      value: { atSeconds: now(), graphsCaptured, takenBytes, ...free },
    });
  };
  const subscriptions = [
    onEvent("lazygraph:engine:ready", ({ engine, captureSeconds }) => {
      if (engine !== name || seen.readySeconds !== undefined) return;
      seen.readySeconds = now();
      seen.captureBeforeReadySeconds = captureSeconds;
      const graphs = snapshot()?.graphs ?? [];
      seen.graphsAtReady = graphs.filter(({ status }) => status === "captured").map(({ id }) => id);
      memory();
    }),
    onEvent("lazygraph:engine:settled", ({ engine }) => {
      if (engine === name) seen.settledSeconds ??= now();
    }),
    onEvent("lazygraph:capture:start", ({ engine, graph, whenIdle, reason }) => {
      if (engine === name) started.set(graph, { whenIdle, reason });
    }),
    onEvent("lazygraph:capture:end", ({ engine, graph, ms, stallMs, bytes, graphsCaptured }) => {
      if (engine !== name) return;
      const { whenIdle = false, reason = "" } = started.get(graph) ?? {};
      started.delete(graph);
      const endSeconds = now();
      // The command was under way longer: what counts is the time it held the engine up.
      const startSeconds = endSeconds - Math.max(stallMs, ms) / 1000;
      keep({
        type: "capture",
        value: {
          graph,
          whenIdle,
          reason,
          startSeconds,
          endSeconds,
          ms,
          bytes,
          graphsCaptured,
        },
      });
      memory();
    }),
    onEvent("lazygraph:engine:steps", ({ engine, running, waiting, steps }) => {
      if (engine !== name) return;
      const told = steps.map(({ tokens, requests, served, count, seconds, timed }) => {
        return { tokens, requests, served, count, seconds, timed };
      });
      keep({ type: "steps", value: { atSeconds: now(), running, waiting, steps: told } });
    }),
  ];
  return {
    seen,
    snapshot,
    stop() {
      for (const unsubscribe of subscriptions) unsubscribe();
    },
  };
}
