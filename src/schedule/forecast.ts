/**
 * What the graphs that are not captured yet will take: provisional, from graphs captured one by
 * one on an 8B, where a PIECEWISE graph of 33 pieces took 4 MiB and a FULL one of 32 layers 1.6.
 */

import type { Graph } from "../graph.ts";

const MIB = 1024 * 1024;
const PIECE_BYTES = 0.124 * MIB;
const LAYER_BYTES = 0.05 * MIB;

/** How far off, either way, as a share of the forecast. */
export const FORECAST_ERROR = 0.5;

export interface Forecast {
  readonly bytes: number;
  readonly errorBytes: number;
  readonly graphs: number;
  /** True until measurements of this engine replace the constants above. */
  readonly provisional: boolean;
}

/** @param layers transformer layers of the model; PIECEWISE has one piece more than layers */
export function forecastBytes(missing: readonly Graph[], layers: number): Forecast {
  let bytes = 0;
  for (const graph of missing) {
    bytes += graph.kind === "PIECEWISE" ? (layers + 1) * PIECE_BYTES : layers * LAYER_BYTES;
  }
  return {
    bytes: Math.round(bytes),
    errorBytes: Math.round(bytes * FORECAST_ERROR),
    graphs: missing.length,
    provisional: true,
  };
}
