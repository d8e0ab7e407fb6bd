/**
 * Claims about what nothing is lost by: faults in a simulation, faults to real processes, frames that
 * are none. Judged from what each run counted, seed by seed or fault by fault, not from its summary.
 * Pure.
 */

import { mean } from "../../src/measure/statistics.ts";
import { type Finding, type Origin, withLimits } from "./claims.ts";

const SEEDS_MIN = 10_000;
const HOURS_MIN = 24;
const FRAMES_MIN = 1e6;
const FAULTS_MIN = 200;
/** Of both sides and the wire between them being there. */
const WHOLE_HEARTBEATS_MAX = 2;
const RSS_GROWTH_MAX = 0.1;

/** One run of `npm run faults`. */
export interface FaultRow {
  readonly courses: number;
  /** Courses in which something didn't hold. */
  readonly failed: number;
  readonly simulatedHours: number;
  /** How often each was hit. */
  readonly killPoints: Readonly<Record<string, number>>;
}

export interface Faults {
  readonly seeds: FaultRow;
  readonly hours: FaultRow;
  /** With a defect put in, to see that it is found. */
  readonly planted: Readonly<Record<string, Pick<FaultRow, "courses" | "failed">>>;
}

export function faultFindings({ seeds, hours, planted }: Faults, origin: Origin): Finding[] {
  const { atLeast, atMost } = withLimits("trust.faults", origin);
  const points = Object.values(seeds.killPoints);
  return [
    atLeast("seeds", seeds.courses, "seeds", SEEDS_MIN),
    atMost("seeds.violated", seeds.failed, "seeds", 0),
    atLeast(
      "kill-points",
      share(points, (hits) => hits > 0),
      "of the kill points",
      1,
    ),
    atLeast("hours", hours.simulatedHours, "simulated hours", HOURS_MIN),
    atMost("hours.violated", hours.failed, "courses", 0),
    ...Object.entries(planted).map(([name, { failed }]) =>
      atLeast(`planted.${name}`, failed, "seeds", 1),
    ),
  ];
}

export interface Fuzz {
  readonly rows: readonly {
    readonly decoder: string;
    readonly frames: number;
    readonly faults: readonly unknown[];
  }[];
}

export function fuzzFindings({ rows }: Fuzz, origin: Origin): Finding[] {
  return rows.flatMap(({ decoder, frames, faults }) => {
    const name = decoder.toLowerCase().replace(/[^a-z]+/g, "-");
    const { atLeast, atMost } = withLimits(`trust.fuzz.${name}`, origin);
    return [
      atLeast("frames", frames, "frames", FRAMES_MIN),
      atMost("faults", faults.length, "frames", 0),
    ];
  });
}

export interface Chaos {
  readonly heartbeatSeconds: number;
  /** Graphs that were captured twice, or that two ranks held differently. */
  readonly wrongCaptures: number;
  readonly rows: readonly {
    /** Null: not within the run's own limit. */
    readonly wholeSeconds: number | null;
    readonly ordersBroken: readonly string[];
    readonly controllerRssMib: number;
    /** Of the engine whose process lives through all faults. */
    readonly steadyRssMib: number;
  }[];
}

export function chaosFindings(chaos: Chaos, origin: Origin): Finding[] {
  const { heartbeatSeconds, wrongCaptures, rows } = chaos;
  const { atLeast, atMost } = withLimits("trust.chaos", origin);
  const wholeSecondsMax = WHOLE_HEARTBEATS_MAX * heartbeatSeconds;
  const late = rows.filter(({ wholeSeconds }) => (wholeSeconds ?? Infinity) > wholeSecondsMax);
  const broken = rows.filter(({ ordersBroken }) => ordersBroken.length > 0);
  const grown = (key: "controllerRssMib" | "steadyRssMib"): number =>
    growth(rows.map((row) => row[key]));
  return [
    atLeast("faults", rows.length, "faults", FAULTS_MIN),
    atMost("orders-broken", broken.length, "faults", 0),
    atMost("wrong-captures", wrongCaptures, "captures", 0),
    atMost("not-whole-within-two-heartbeats", late.length, "faults", 0),
    atMost("engine-memory", grown("steadyRssMib"), "of the first quarter's", RSS_GROWTH_MAX),
    atMost(
      "controller-memory",
      grown("controllerRssMib"),
      "of the first quarter's",
      RSS_GROWTH_MAX,
    ),
  ];
}

/** By how much the mean of the last quarter is above the first's. */
function growth(values: readonly number[]): number {
  const quarter = Math.max(1, values.length >> 2);
  return mean(values.slice(-quarter)) / mean(values.slice(0, quarter)) - 1;
}

function share<T>(entries: readonly T[], holds: (entry: T) => boolean): number {
  return entries.length === 0 ? 0 : entries.filter(holds).length / entries.length;
}
