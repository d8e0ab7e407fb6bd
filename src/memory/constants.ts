/**
 * What a forecast knows before anything was measured on the engine in front of it.
 *
 * Driver memory of a graph is proportional to the kernels it launches, so to the model's layers:
 * the rates below are fitted by `npm run bench:forecast` on the raw results it lists, and that
 * bench also says how far off they are on a model that they were not fitted on.
 */

import type { Graph } from "../base/graph.ts";
import { MIB } from "../base/units.ts";

export interface ForecastConstants {
  /** Driver memory of a PIECEWISE graph, for each piece; a model has one more than layers. */
  readonly pieceBytes: number;
  /** Driver memory of a FULL graph, for each layer. */
  readonly layerBytes: number;
}

export const CONSTANTS: ForecastConstants = {
  pieceBytes: Math.floor(0.138 * MIB),
  layerBytes: Math.floor(0.044 * MIB),
};

/**
 * Multi-head latent attention launches more kernels a layer: DeepSeek-V2-Lite on an H200, vLLM
 * 0.33, whole plans (`v033-again-families.json.br`).
 */
export const LATENT_CONSTANTS: ForecastConstants = {
  pieceBytes: Math.floor(0.235 * MIB),
  layerBytes: Math.floor(0.139 * MIB),
};

/**
 * What a graph for steps with LoRA adapters takes besides, for each layer. An 8B with 16 adapters on
 * an H200, vLLM 0.33: 0.026 MiB in PIECEWISE graphs and 0.029 in FULL ones, means of 50
 * (`v033-feature-families.json.br`).
 */
const ADAPTER_LAYER_BYTES = Math.floor(0.03 * MIB);

/**
 * Driver memory of one graph, by the model's shape alone: the rule of the plugin's
 * `typical_graph_bytes`, and both are held to test/golden/rules.json.gz. A drafter's layers count as
 * so many of the target's, with what its runs have besides (logits, sampling) as one more.
 */
export function graphBytes(
  { kind, loras = 0, draftLayers = 0 }: Pick<Graph, "kind" | "loras" | "draftLayers">,
  layers: number,
  { pieceBytes, layerBytes }: ForecastConstants = CONSTANTS,
): number {
  const all = layers + (draftLayers > 0 ? draftLayers + 1 : 0);
  const own = kind === "FULL" ? all * layerBytes : (all + 1) * pieceBytes;
  return own + (loras > 0 ? layers * ADAPTER_LAYER_BYTES : 0);
}

/**
 * Below its top a pool still grows a little, where a smaller size runs other kernels than the
 * larger ones. torch takes segments of 20 MiB for such buffers: none is needed, or a part of one.
 */
export const LATE_BYTES: number = 5 * MIB;
export const LATE_SPREAD_BYTES: number = 8 * MIB;
/** Pools of small sizes have no such buffers: both are at most this share of the pool. */
export const LATE_SHARE_MAX = 0.05;

/** How sure the rates are on an unknown model: one standard deviation, as a share. */
export const RATE_SPREAD = 0.12;
/** Graphs over several GPUs hold all-reduces as well: a 70B over two came within 6%, no other did. */
export const RATE_SPREAD_PARALLEL = 0.18;
/** With an earlier start of the same engine on the same kind of GPU. */
export const RATE_SPREAD_RECORDED = 0.04;
/**
 * What PIECEWISE graphs take beyond their prior, as a share of what FULL ones were seen to: on 0.33
 * 1.1 of 2.4 MiB with Qwen3-Next, 0.7 of 3.4 with DeepSeek-V2-Lite, whose attention runs many
 * kernels, and 0.6 of 0.8 with Marlin's.
 */
export const BEYOND_SHARE = 0.8;
export const BEYOND_SHARE_SPREAD = 0.3;
/** Readings of each kind from which on a forecast rests on this engine and not on constants. */
export const READINGS_MIN = 2;
/** The driver takes memory 2 MiB at a time, so one graph's reading is off by about this. */
export const READING_SPREAD_BYTES: number = 1.7 * MIB;
/** Neighbours share those 2 MiB, so the errors of many cancel but for about so many. */
export const READINGS_APART_MAX = 9;
/**
 * Before the first graph of a pool is measured its size is a guess: this share of the activation
 * peak at 512 tokens (Llama-3.1-8B: 672 of 896 MiB), and less than its share of that up to 256:
 * pools of their own took 60 MiB at 64 tokens, 120 at 128 and 200 at 256 (H200, vLLM 0.26.0).
 */
export const POOL_SHARE_OF_PEAK = 0.75;
export const POOL_TOKENS = 512;
/** Above, a layer's large activations are cut out of attention's buffer, and a second one is made. */
export const POOL_SMALL_TOKENS = 256;
export const POOL_SMALL_SHARE = 0.7;
/** Of a pool, one standard deviation as a share: guessed, scaled from another size, recorded. */
export const POOL_SPREAD_GUESSED = 0.6;
export const POOL_SPREAD_SCALED = 0.3;
/**
 * A recorded pool may be that many activation peaks and this more. What is larger was not the
 * pool: growth is measured on the whole device, and a neighbour's start would pass for it.
 */
export const POOL_PEAKS_MAX = 4;
export const POOL_BEYOND_PEAKS_BYTES: number = 512 * MIB;
/** The engine knows the model's shape, and adds to what it reserves what that may be off by. */
export const POOL_SPREAD_RESERVED = 0.1;
export const POOL_SPREAD_RECORDED = 0.04;
/** Standard deviations on both sides of a forecast that hold nine in ten outcomes. */
export const NINE_IN_TEN = 1.645;
