/** What the user may say about GPU memory: types and rules. */

import { checkOptions, type OptionRules, rule } from "../base/check-options.ts";
import { OptionError } from "../base/errors.ts";
import { flag, oneOf, whole } from "../base/schema.ts";
import { shown } from "../base/shown.ts";
import { RESERVES, type Reserve } from "../wire/protocol.ts";

export interface MemoryOptions {
  /**
   * What each rank keeps back from vLLM's KV cache: `"none"`; the `"least"` that serving and graphs
   * up to 64 tokens need, as far as vLLM's share of the GPU leaves it not free anyway; the `"top"`
   * graph of each kind; or the whole `"plan"`. It costs tokens of KV cache, which the engine's
   * figures show.
   * @default the engine's own setting (LAZYGRAPH_RESERVE), which is "least" unless it says otherwise
   */
  readonly reserve?: Reserve;
  /**
   * Bytes that each rank keeps back for graphs, in the place of the engine's forecast, which knows
   * FlashAttention's buffers only: what the graphs of an earlier start took. Only with `reserve`
   * `"top"` or `"plan"`.
   * @default the engine's forecast
   */
  readonly reserveBytes?: number;
  /**
   * Bytes of each GPU that captures leave free beside the activation peak that vLLM measured.
   * @default an allowance of 256 to 1,088 MiB by that peak, which serving uses up as it takes memory
   */
  readonly marginBytes?: number;
  /**
   * Whether to read the memory of this host's GPUs from the driver, for engines that are on them.
   * Without it the engines' own figures count.
   * @default true
   */
  readonly gpu?: boolean;
  /**
   * The engines' `--gpu-memory-utilization`, 0 to 1, so that advice can name the new value. It
   * changes nothing else.
   * @default undefined: advice names the difference
   */
  readonly utilization?: number;
}

/** An upper bound that no GPU reaches: more is a slip of unit. */
export const MEMORY_BYTES_MAX: number = 1024 ** 4;

const bytes = whole(0, MEMORY_BYTES_MAX);
const RULES: OptionRules<MemoryOptions> = {
  reserve: oneOf(RESERVES),
  reserveBytes: bytes,
  marginBytes: bytes,
  gpu: flag,
  utilization: rule(
    "a number above 0 and up to 1",
    (value) => typeof value === "number" && value > 0 && value <= 1,
  ),
};

export const MEMORY_OPTION_NAMES: readonly string[] = Object.keys(RULES);

/** @throws OptionError that names the first option that is unknown or breaks its rule */
export function checkMemoryOptions(options: object): void {
  checkOptions(options, RULES, "memory");
  const { reserve, reserveBytes } = options as MemoryOptions;
  if (reserveBytes === undefined || isSized(reserve)) return;
  throw new OptionError(
    "memory.reserveBytes",
    'Expected memory.reserveBytes to be given beside reserve "top" or "plan", got ' +
      `${shown(reserveBytes)}.`,
  );
}

/** Whether what is kept back for graphs goes by a size that somebody may know better. */
export function isSized(reserve: Reserve | undefined): boolean {
  return reserve === "top" || reserve === "plan";
}
