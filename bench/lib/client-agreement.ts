/** Whether two clients that sent the same schedule to the same server found the same. Pure. */

/** Figures of one client's round under the names of `vllm bench serve`. */
export type ClientResult = Readonly<Record<string, unknown>>;

export interface ClientPair {
  readonly ours: ClientResult;
  readonly theirs: ClientResult;
}

export interface ComparedFigure {
  readonly name: string;
  /** One for each round; NaN where a client didn't say. */
  readonly ours: readonly number[];
  readonly theirs: readonly number[];
  /** Ours over theirs, geometric mean over rounds. */
  readonly ratio: number;
  /** Furthest that the ratio may be from 1; undefined: told, not judged. */
  readonly limit?: number;
  readonly verdict?: "holds" | "fails";
}

export interface ClientAgreement {
  /** False: the server was not asked for the same work, and no latency can be compared. */
  readonly sameWork: boolean;
  readonly holds: boolean;
  readonly figures: readonly ComparedFigure[];
}

/** The server counts tokens: a prompt that is text may come to others than were meant. */
const WORK = ["completed", "total_input_tokens", "total_output_tokens"];
const WORK_LIMIT = 0.01;
const JUDGED = ["median_ttft_ms", "median_tpot_ms"];
const JUDGED_LIMIT = 0.05;
const TOLD = ["p99_ttft_ms", "p99_tpot_ms", "median_itl_ms", "median_e2el_ms", "output_throughput"];

/** @throws RangeError without a round */
export function clientAgreement(pairs: readonly ClientPair[]): ClientAgreement {
  if (pairs.length === 0) throw new RangeError("Expected at least one round, got none.");
  const work = WORK.map((name) => compared(name, pairs, WORK_LIMIT));
  const judged = JUDGED.map((name) => compared(name, pairs, JUDGED_LIMIT));
  const sameWork = work.every(({ verdict }) => verdict === "holds");
  return {
    sameWork,
    holds: sameWork && judged.every(({ verdict }) => verdict === "holds"),
    figures: [...work, ...judged, ...TOLD.map((name) => compared(name, pairs))],
  };
}

function compared(name: string, pairs: readonly ClientPair[], limit?: number): ComparedFigure {
  const ours = pairs.map((pair) => numberOf(pair.ours[name]));
  const theirs = pairs.map((pair) => numberOf(pair.theirs[name]));
  const logs = ours.map((own, round) => Math.log(own / (theirs[round] as number)));
  const ratio = Math.exp(logs.reduce((total, value) => total + value, 0) / logs.length);
  const figure = { name, ours, theirs, ratio };
  if (limit === undefined) return figure;
  return { ...figure, limit, verdict: Math.abs(ratio - 1) <= limit ? "holds" : "fails" };
}

function numberOf(value: unknown): number {
  return typeof value === "number" ? value : Number.NaN;
}
