/** What the readers of all formats make of a trace: requests, and what is none. */

/** A trace's format, by the name that `lazygraph trace` shows and takes. */
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
 * - `failed request`: without an answer, or with a failure; nothing can be replayed.
 * - `other span`: OpenTelemetry's, no request to a model.
 */
export type TraceSkip = "blank line" | "failed request" | "other span";

export interface TraceRow {
  /** Since any start; of OpenTelemetry since the file's first span. */
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

/** What a number without unit means, where a format leaves it open. */
export const TIME_UNITS = ["ms", "s"] as const;
export type TimeUnit = (typeof TIME_UNITS)[number];
