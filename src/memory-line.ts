/** The one line that says whether the rest of the graphs will fit. */

import type { Forecast } from "./schedule/forecast.ts";

const MIB = 1024 * 1024;

export interface MemoryFigures {
  readonly engine: string;
  readonly graphsCaptured: number;
  readonly takenBytes: number;
  /** On the rank that has the least; undefined when no rank reported. */
  readonly freeBytes: number | undefined;
  readonly forecast: Forecast;
}

export function memoryLine(figures: MemoryFigures): string {
  const { engine, graphsCaptured, takenBytes, freeBytes, forecast } = figures;
  const took = `${engine}: ${graphsCaptured} graphs took ${mib(takenBytes)}`;
  const free = freeBytes === undefined ? "free memory is unknown" : `${mib(freeBytes)} are free`;
  if (forecast.graphs === 0) return `${took}; none is left; ${free}`;
  const rest =
    `the other ${forecast.graphs} will take about ${mib(forecast.bytes)} ` +
    `± ${mib(forecast.errorBytes)}${forecast.provisional ? " (provisional)" : ""}`;
  return `${took}; ${rest}; ${free}${verdict(forecast, freeBytes)}`;
}

function verdict(forecast: Forecast, freeBytes: number | undefined): string {
  if (freeBytes === undefined) return "";
  if (forecast.bytes + forecast.errorBytes <= freeBytes) return ": they fit";
  if (forecast.bytes - forecast.errorBytes <= freeBytes) return ": they may not fit";
  return ": they will not fit";
}

function mib(bytes: number): string {
  return `${(bytes / MIB).toFixed(1)} MiB`;
}
