/** What the readers of all formats make of a trace: requests, and what is none. */

/** How a trace writes things down. Names are those that `lazygraph trace` shows and takes. */
export type TraceFormat =
  | "lazygraph"
  | "azure"
  | "azure-multimodal"
  | "burstgpt"
  | "mooncake"
  | "timed-trace"
  | "otlp";

/**
 * - `blank line`: nothing in it.
 * - `failed request`: it has no answer, or says that it failed; nothing can be replayed.
 * - `other span`: of an OpenTelemetry trace, one that is no request to a model.
 */
export type TraceSkip = "blank line" | "failed request" | "other span";

export interface TraceRow {
  /** Since any start; of OpenTelemetry since the first span of the file. */
  readonly seconds: number;
  readonly promptTokens: number;
  readonly outputTokens: number;
  /** One for each block of the prompt; equal ids are equal blocks after equal blocks. */
  readonly hashIds?: readonly number[];
}

export type TraceEntry =
  | { readonly line: number; readonly row: TraceRow }
  | { readonly line: number; readonly skip: TraceSkip };

/** A trace whose format is known, still to be read. */
export interface TraceEntries {
  readonly format: TraceFormat;
  /** Tokens of one block of `hashIds`. */
  readonly blockTokens?: number;
  /** Whether the format promises rows in order of arrival. */
  readonly ordered: boolean;
  readonly entries: AsyncIterable<TraceEntry>;
}

/** What a number without a unit means, where a format leaves it open. */
export const TIME_UNITS = ["ms", "s"] as const;
export type TimeUnit = (typeof TIME_UNITS)[number];
