/**
 * The longest time without a token while there was work: what a capture, or anything else that
 * holds an engine up, looks like from outside. A step of long prompts yields no token of running
 * requests until it ends, so this bounds the gap between two steps from above.
 */

import type { RequestRecord } from "./samples.ts";

export interface Gap {
  readonly seconds: number;
  readonly atSeconds: number;
}

export interface Span {
  readonly from: number;
  readonly to: number;
}

const SENT = 0;
const TOKEN = 1;
const END = 2;

/**
 * Of the gaps that end from `from` to `to`; undefined when no token came then.
 */
export function longestTokenGap(
  requests: readonly RequestRecord[],
  { from = Number.NEGATIVE_INFINITY, to = Number.POSITIVE_INFINITY }: Partial<Span> = {},
): Gap | undefined {
  const answered = requests.filter(({ firstSeconds }) => firstSeconds !== undefined);
  const count = answered.reduce((sum, { itlMicros }) => sum + itlMicros.length + 3, 0);
  const times = new Float64Array(count);
  const kinds = new Uint8Array(count);
  let used = 0;
  const add = (seconds: number, kind: number): void => {
    times[used] = seconds;
    kinds[used] = kind;
    used++;
  };
  for (const { sentSeconds, firstSeconds = 0, itlMicros } of answered) {
    add(sentSeconds, SENT);
    let at = firstSeconds;
    add(at, TOKEN);
    for (const micros of itlMicros) {
      at += micros / 1e6;
      add(at, TOKEN);
    }
    add(at, END);
  }
  const order = Uint32Array.from({ length: count }, (_, index) => index).sort((a, b) => {
    return (
      (times[a] as number) - (times[b] as number) || (kinds[a] as number) - (kinds[b] as number)
    );
  });
  let underWay = 0;
  let since = 0;
  let longest: Gap | undefined;
  for (const index of order) {
    const at = times[index] as number;
    const kind = kinds[index];
    if (kind === SENT) {
      if (underWay === 0) since = at;
      underWay++;
    } else if (kind === END) {
      underWay--;
    } else {
      const seconds = at - since;
      const longer = longest === undefined || seconds > longest.seconds;
      if (longer && at >= from && at <= to) longest = { seconds, atSeconds: at };
      since = at;
    }
  }
  return longest;
}
