/** The one line that says whether the rest of the graphs will fit, and what to change if not. */

import { counted } from "../base/counted.ts";
import { mib } from "../base/units.ts";
import type { Forecast } from "../memory/forecast.ts";
import type { Headroom } from "../memory/guard.ts";
import type { Reserve } from "../wire/protocol.ts";

/** vLLM takes its share of the GPU in thousandths where it is written so. */
const SHARE_STEP = 0.001;

/**
 * - `none-left`: everything is captured.
 * - `fits`: the rest fits beside what serving still needs.
 * - `short-serving`: it fits now, but not once the first full load takes what it needs.
 * - `short-capturing`: it doesn't fit even now.
 * - `unknown`: no rank has reported.
 */
export type MemoryVerdict = "none-left" | "fits" | "short-serving" | "short-capturing" | "unknown";

export interface MemoryFigures {
  readonly engine: string;
  readonly graphsCaptured: number;
  readonly takenBytes: number;
  /** Undefined when no rank reported. */
  readonly headroom: Headroom | undefined;
  readonly forecast: Forecast;
  /** What was reserved for graphs. */
  readonly reserve: Reserve | undefined;
  /** The engine's `--gpu-memory-utilization`, where it is known. */
  readonly utilization: number | undefined;
}

export function verdictOf(forecast: Forecast, headroom: Headroom | undefined): MemoryVerdict {
  if (forecast.graphs === 0) return "none-left";
  if (headroom === undefined) return "unknown";
  const most = forecast.bytes + forecast.errorBytes;
  if (most <= headroom.bytes) return "fits";
  return most <= headroom.freeBytes ? "short-serving" : "short-capturing";
}

export function memoryLine(figures: MemoryFigures): string {
  const { engine, graphsCaptured, takenBytes, headroom, forecast } = figures;
  const took = `${engine}: ${counted(graphsCaptured, "graph")} took ${mib(takenBytes)}`;
  const free =
    headroom === undefined
      ? "free memory is unknown"
      : `${mib(headroom.freeBytes)} are free, ${mib(headroom.spokenForBytes)} of it for serving`;
  if (forecast.graphs === 0) return `${took}; none is left; ${free}`;
  const rest =
    `the other ${forecast.graphs} will take about ${mib(forecast.bytes)} ` +
    `± ${mib(forecast.errorBytes)}${forecast.provisional ? " (provisional)" : ""}`;
  return `${took}; ${rest}; ${free}${verdictText(figures)}`;
}

function verdictText(figures: MemoryFigures): string {
  const { forecast, headroom } = figures;
  const verdict = verdictOf(forecast, headroom);
  if (verdict === "fits") return ": they fit";
  const advice = memoryAdvice(figures);
  if (headroom === undefined || advice === undefined) return "";
  const least = forecast.bytes - forecast.errorBytes;
  const limit = verdict === "short-serving" ? headroom.bytes : headroom.freeBytes;
  const may = least <= limit ? "may" : "will";
  const when =
    verdict === "short-serving"
      ? `they fit now and ${may} run out of memory later, at the first full load`
      : `memory ${may} run out while they are captured`;
  return `: ${when}; captures stop before that. To have them all, ${advice}`;
}

/** What to change so that everything fits; undefined where nothing is short. */
export function memoryAdvice(
  figures: Pick<MemoryFigures, "forecast" | "headroom" | "reserve" | "utilization">,
): string | undefined {
  const { forecast, headroom, reserve, utilization } = figures;
  if (headroom === undefined) return undefined;
  const shortBytes = forecast.bytes + forecast.errorBytes - headroom.bytes;
  if (shortBytes <= 0) return undefined;
  const share = Math.ceil(shortBytes / headroom.totalBytes / SHARE_STEP) * SHARE_STEP;
  const lower =
    utilization === undefined
      ? `lower --gpu-memory-utilization by ${share.toFixed(3)}`
      : `start vLLM with --gpu-memory-utilization ${Math.max(0, utilization - share).toFixed(3)}`;
  return reserve === "plan" ? lower : `start with --reserve plan, or ${lower}`;
}
