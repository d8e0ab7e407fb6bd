/** The costed policy's sentences, and what speaks against a fill. */

import type { AheadChoice } from "./ahead.ts";
import type { EarnedChoice } from "./earned.ts";
import type { FillChoice, Valued } from "./fill.ts";

/** A graph without any value is captured only where an arrival is this unlikely. */
const REST_ARRIVAL_SHARE = 0.02;

/** Request-seconds: an arrival during a stall waits for half of it on average. */
export function expectedDelay({ stallSeconds }: FillChoice, arrivalShare: number): number {
  return (arrivalShare * stallSeconds) / 2;
}

/** Why an idle engine had better wait. */
export function gapObjection(choice: FillChoice, arrivalShare: number): string | undefined {
  const { value, rule } = choice;
  if (rule === "rest") {
    if (arrivalShare <= REST_ARRIVAL_SHARE) return undefined;
    return `nothing wants it, and an arrival is ${percent(arrivalShare)} likely`;
  }
  const delay = expectedDelay(choice, arrivalShare);
  if (value >= delay) return undefined;
  return `its value of ${figure(value)} is below the expected delay of ${figure(delay)}`;
}

export function fillReason({ graph, value, rule }: FillChoice, arrivalShare: number): string {
  const near = `an arrival is ${percent(arrivalShare)} likely`;
  if (rule === "rest") return `${graph.id}: the largest of the rest; ${near}`;
  const what = rule === "ladder" ? "rung of the sparse ladder" : "most value per second of stall";
  return `${graph.id}: ${what} (${figure(value)} request-seconds); ${near}`;
}

export function likelyReason({ graph, value }: Valued, price: number): string {
  return `${graph.id}: likely to be wanted, value ${figure(value)} ≥ price ${figure(price)} while idle`;
}

export function earnedReason({ graph, regret, price, leader, trusted }: EarnedChoice): string {
  if (leader !== graph) {
    return `${graph.id}: serves what ${leader.id} has earned, and more of the traffic to come`;
  }
  const account = `${graph.id}: account ${figure(regret)}`;
  if (!trusted) return `${account} ≥ price ${figure(price)}`;
  return `${account} ≥ ${figure(price)}, half its price, since earlier starts needed it`;
}

export function aheadReason({ graph, value, price, rise }: AheadChoice): string {
  const spares = `value ${figure(value)} ≥ price ${figure(price)}`;
  return `${graph.id}: ahead of a load ${rise.toFixed(2)} times as high, ${spares}`;
}

export function figure(value: number): string {
  return value.toPrecision(2);
}

function percent(share: number): string {
  return `${(share * 100).toFixed(1)}%`;
}
