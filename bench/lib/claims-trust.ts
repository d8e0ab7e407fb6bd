/** Claims about peers that mean no good. Pure. */

import type { Finding } from "./claims.ts";

const P99_MS_MAX = 200;

export interface TrustHttp {
  readonly rows: readonly {
    readonly build: string;
    readonly attack: string;
    readonly probes: number;
    readonly answered: number;
    readonly p99Ms: number | null;
  }[];
}

/** Of this build: the times of probes, and the share that was answered at all. */
export function trustHttpFindings(
  { rows }: TrustHttp,
  origin: Pick<Finding, "source" | "command">,
): Finding[] {
  return rows
    .filter(({ build }) => build === "this")
    .flatMap(({ attack, probes, answered, p99Ms }): Finding[] => [
      {
        id: `trust.http.${attack}.healthz-p99`,
        value: p99Ms ?? Number.NaN,
        unit: "ms",
        limit: P99_MS_MAX,
        sense: "atMost",
        ...origin,
      },
      {
        id: `trust.http.${attack}.answered`,
        value: answered / probes,
        unit: "of the probes",
        limit: 1,
        sense: "atLeast",
        ...origin,
      },
    ]);
}
