/** Claims of how the source hangs together, and of what it costs. Pure. */

import type { Finding, Origin } from "./claims.ts";

/** Of what was there before. */
const SHARE_MAX = 0.5;
/** Files to open from src/index.ts, in the order of bench/house.ts. */
const OPENED_MAX = [2, 2, 3, 4] as const;
const IDS = ["message-validated", "memory-forecast", "next-graph", "who-acts"] as const;
/** Plans whose decisions must not be slower. */
const GRAPHS = [102, 10_000] as const;

interface Shape {
  readonly rooms: number;
  readonly arrows: number;
  readonly cycles: number;
  readonly opened: Readonly<Record<string, number>>;
}

export interface House {
  readonly before: Shape;
  readonly now: Shape;
  readonly decisions: readonly {
    readonly graphs: number;
    readonly beforeMicros: number;
    readonly nowMicros: number;
  }[];
}

export function houseFindings({ before, now, decisions }: House, told: Origin): Finding[] {
  const atMost = { ...told, sense: "atMost" } as const;
  const share = (id: string, value: number, unit: string): Finding => {
    return { ...atMost, id: `house.${id}`, value, unit, limit: SHARE_MAX };
  };
  return [
    share("graph.rooms", now.rooms / before.rooms, "of the rooms in src before"),
    share("graph.arrows", now.arrows / before.arrows, "of the arrows between them before"),
    { ...atMost, id: "house.graph.cycles", value: now.cycles, unit: "import cycles", limit: 0 },
    ...Object.values(now.opened).map((value, index): Finding => {
      const id = `house.opened.${IDS[index]}`;
      return { ...atMost, id, value, unit: "files", limit: OPENED_MAX[index] ?? Number.NaN };
    }),
    ...GRAPHS.map((graphs): Finding => {
      const row = decisions.find((known) => known.graphs === graphs);
      const value = (row?.nowMicros ?? Number.NaN) / (row?.beforeMicros ?? Number.NaN);
      const unit = "of a decision's microseconds at p99 before";
      return { ...atMost, id: `house.decision.graphs-${graphs}`, value, unit, limit: 1 };
    }),
  ];
}

export interface SimulatedHour {
  readonly rows: readonly {
    readonly policy: string;
    readonly beforeSeconds: number;
    readonly nowSeconds: number;
  }[];
}

export function hourFindings({ rows }: SimulatedHour, told: Origin): Finding[] {
  return rows.map(({ policy, beforeSeconds, nowSeconds }) => ({
    ...{ ...told, id: `house.simulated-hour.${policy}`, value: nowSeconds / beforeSeconds },
    ...{ unit: "of the processor's seconds before, an hour of traffic simulated", limit: 1 },
    sense: "atMost",
  }));
}

export interface TestTime {
  readonly vitest: SuiteTime;
  readonly pytest: SuiteTime;
}

interface SuiteTime {
  readonly beforeSeconds: number;
  readonly nowSeconds: number;
}

export function testTimeFindings({ vitest, pytest }: TestTime, told: Origin): Finding[] {
  const value =
    (vitest.nowSeconds + pytest.nowSeconds) / (vitest.beforeSeconds + pytest.beforeSeconds);
  const unit = "of the same tests' time before";
  return [{ ...told, id: "house.test-time", value, unit, limit: SHARE_MAX, sense: "atMost" }];
}
