/** The nvidia-smi reader's watch: what native/src/watch.cc does, on the event loop. */

import { codeOf, LazygraphError } from "../base/errors.ts";
import type { GpuReading } from "./device.ts";
import { Trend } from "./trend.ts";
import type { GpuWatchEvent, WatchPlan } from "./watch.ts";

/** A lost device is asked at most this rarely, unless the interval is longer. */
const RETRY_MS_MAX = 5000;
const DOUBLINGS_MAX = 6;

export function pollDevice(
  plan: WatchPlan,
  uuid: string,
  read: (uuid: string) => Promise<GpuReading>,
  deliver: (event: GpuWatchEvent) => void,
): { close(): void; closed: Promise<void> } {
  const trend = new Trend(plan);
  let failures = 0;
  let failingWith: string | undefined;
  let timer: NodeJS.Timeout | undefined;
  let reading = false;
  let open = true;
  let settle: () => void = () => {};
  const closed = new Promise<void>((resolve) => {
    settle = resolve;
  });

  const fault = (error: unknown): void => {
    failures += 1;
    const code = codeOf(error) ?? "unknown";
    if (failingWith === code) return;
    failingWith = code;
    const known =
      error instanceof LazygraphError
        ? error
        : new LazygraphError("ERR_LAZYGRAPH_GPU_CALL", String(error), { cause: error });
    deliver({ kind: "fault", uuid, error: known, replaced: 0 });
  };

  const took = (found: GpuReading): void => {
    const restored = failingWith !== undefined;
    if (restored) trend.restart();
    failingWith = undefined;
    failures = 0;
    const { news, ...slope } = trend.observe(performance.now() / 1000, found.freeBytes);
    const kind = news ?? (restored ? "restored" : undefined);
    if (kind !== undefined) deliver({ kind, uuid, reading: found, ...slope, replaced: 0 });
  };

  const tick = async (): Promise<void> => {
    reading = true;
    try {
      const found = await read(plan.uuid);
      if (open) took(found);
    } catch (error) {
      if (open) fault(error);
    }
    reading = false;
    if (!open) return settle();
    const doubled = plan.intervalMs * 2 ** Math.min(failures, DOUBLINGS_MAX);
    const pauseMs =
      failures > 0 ? Math.max(plan.intervalMs, Math.min(doubled, RETRY_MS_MAX)) : plan.intervalMs;
    timer = setTimeout(() => void tick(), pauseMs);
    timer.unref();
  };

  void tick();
  return {
    closed,
    close: () => {
      open = false;
      clearTimeout(timer);
      if (!reading) settle();
    },
  };
}
