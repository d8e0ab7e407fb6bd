/** What the user may say about GPU memory: types and rules. */

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

function bytesRule(value: unknown): string | undefined {
  const sound = Number.isInteger(value) && (value as number) >= 0;
  return sound && (value as number) <= MEMORY_BYTES_MAX
    ? undefined
    : `an integer from 0 to ${MEMORY_BYTES_MAX}`;
}

const RULES: { readonly [K in keyof MemoryOptions]-?: (value: unknown) => string | undefined } = {
  reserve: (value) =>
    RESERVES.some((mode) => mode === value) ? undefined : `one of ${RESERVES.join(", ")}`,
  reserveBytes: bytesRule,
  marginBytes: bytesRule,
  gpu: (value) => (typeof value === "boolean" ? undefined : "true or false"),
  utilization: (value) =>
    typeof value === "number" && value > 0 && value <= 1
      ? undefined
      : "a number above 0 and up to 1",
};

export const MEMORY_OPTION_NAMES: readonly string[] = Object.keys(RULES);

/** The first rule that a value breaks: the option's name, and what was expected. */
export function brokenMemoryRule(
  options: Readonly<Record<string, unknown>>,
): { readonly name: string; readonly expected: string | undefined } | undefined {
  for (const [name, value] of Object.entries(options)) {
    if (!Object.hasOwn(RULES, name)) return { name, expected: undefined };
    if (value === undefined) continue;
    const expected = RULES[name as keyof MemoryOptions](value);
    if (expected !== undefined) return { name, expected };
  }
  const { reserve, reserveBytes } = options as MemoryOptions;
  return reserveBytes === undefined || isSized(reserve)
    ? undefined
    : { name: "reserveBytes", expected: 'given beside reserve "top" or "plan"' };
}

/** Whether what is kept back for graphs goes by a size that somebody may know better. */
export function isSized(reserve: Reserve | undefined): boolean {
  return reserve === "top" || reserve === "plan";
}
