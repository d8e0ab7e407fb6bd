/**
 * What a streamed token costs a client, out of processor seconds of its runs, and what one client's
 * costs are of another's. Pure.
 */

import { createRandom } from "../../src/base/random.ts";
import { quantile } from "../../src/measure/statistics.ts";

/** Processor seconds of one client, round by round, with short answers and with long ones. */
export interface ClientRounds {
  readonly shortSeconds: readonly number[];
  readonly longSeconds: readonly number[];
}

export interface Measured {
  readonly value: number;
  /** Ends of the 95% interval. */
  readonly low: number;
  readonly high: number;
}

type Pick = readonly number[];

const RESAMPLES = 10_000;

/**
 * The medians' difference by the tokens that the long answers have more: what a run costs whatever
 * it reads is in neither.
 */
function costOf({ shortSeconds, longSeconds }: ClientRounds, rounds: Pick, tokens: number): number {
  const median = (seconds: readonly number[]): number => {
    return quantile(
      rounds.map((round) => seconds[round] as number),
      0.5,
    );
  };
  return ((median(longSeconds) - median(shortSeconds)) * 1e6) / tokens;
}

/** Microseconds a token. @param tokens of all long answers of a run beyond those of the short ones */
export function microsOf(client: ClientRounds, tokens: number): Measured {
  return measured(client.longSeconds.length, (rounds) => costOf(client, rounds, tokens));
}

/** One's cost over another's; the rounds of both are taken together, as they were run. */
export function ratioOf(one: ClientRounds, other: ClientRounds): Measured {
  const rounds = Math.min(one.longSeconds.length, other.longSeconds.length);
  return measured(rounds, (picked) => costOf(one, picked, 1) / costOf(other, picked, 1));
}

/** With a percentile bootstrap over rounds. */
function measured(rounds: number, figure: (rounds: Pick) => number): Measured {
  const all = Array.from({ length: rounds }, (_, round) => round);
  const random = createRandom(1);
  const figures = Array.from({ length: RESAMPLES }, () => {
    return figure(all.map(() => Math.floor(random() * rounds)));
  });
  return { value: figure(all), low: quantile(figures, 0.025), high: quantile(figures, 0.975) };
}
