/** Claims about peers that mean no good, and about many of them. Pure. */

import { median } from "../../src/base/median.ts";
import { MIB } from "../../src/base/units.ts";
import { type Finding, type Origin, withLimits } from "./claims.ts";
import type { ControllerFigures, CoreFigures, EngineFigures } from "./fleet-messages.ts";

const P99_MS_MAX = 200;
const SIGTERM_MS_MAX = 2000;
const DECISION_P99_MS_MAX = 50;
const MIB_MAX = 1;
const SHARE_MAX = 0.15;
/** The numbers of engines that something is claimed of. */
const FLEET = 1000;
const SMALL_FLEET = 256;

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
export function trustHttpFindings({ rows }: TrustHttp, origin: Origin): Finding[] {
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

/** One run of `npm run bench:trust-socket`. */
export interface SocketRow {
  readonly build: "before" | "this";
  readonly seconds: number;
  /** Times that the honest engine was given up. */
  readonly lost: number;
  readonly missedHeartbeats: number;
  readonly longestSilenceMs: number;
  readonly probes: number;
  readonly answered: number;
  readonly healthzP50Ms: number | null;
  readonly healthzP99Ms: number | null;
  readonly sigtermMs: number;
}

export interface TrustSocket {
  readonly rows: readonly SocketRow[];
}

export function trustSocketFindings({ rows }: TrustSocket, origin: Origin): Finding[] {
  const row = rows.find(({ build }) => build === "this");
  if (row === undefined) return [];
  const { atMost } = withLimits("trust.socket", origin);
  return [
    atMost("honest-engine-lost", row.lost, "times", 0),
    atMost("missed-heartbeats", row.missedHeartbeats, "heartbeats", 0),
    atMost("unanswered", row.probes - row.answered, "probes", 0),
    atMost("healthz-p99", row.healthzP99Ms ?? Number.NaN, "ms", P99_MS_MAX),
    atMost("sigterm", row.sigtermMs, "ms", SIGTERM_MS_MAX),
  ];
}

interface Phase {
  readonly controller: ControllerFigures;
  readonly engines: EngineFigures;
}

/** One run of `npm run bench:fleet`. */
export interface FleetRow {
  readonly build: string;
  readonly engines: number;
  /** Whether plans were learned, and later engines started with them. */
  readonly plans: boolean;
  readonly arrivalSeconds: number;
  readonly serveSeconds: number;
  /** Resident memory without an engine, and what each took beyond it in the end. */
  readonly emptyBytes: number;
  readonly bytesPerEngine: number;
  readonly fill: Phase;
  readonly serve: Phase;
  /** Of the controller alone, with nobody who watches its socket. */
  readonly core: CoreFigures;
}

export interface Fleet {
  readonly rows: readonly FleetRow[];
}

export function fleetFindings({ rows }: Fleet, origin: Origin): Finding[] {
  const ours = rows.filter(({ build }) => build === "this");
  const { atMost } = withLimits("trust.fleet", origin);
  const small = ours.filter(({ engines }) => engines === SMALL_FLEET);
  const share = median(small.map(({ core: { busySeconds, seconds } }) => busySeconds / seconds));
  const core =
    share === undefined ? [] : [atMost(`${SMALL_FLEET}.serve.core`, share, "of a core", SHARE_MAX)];
  const large = ours.flatMap(({ engines, bytesPerEngine, fill, serve }): Finding[] => {
    if (engines !== FLEET) return [];
    const phase = (name: string, { controller, engines: told }: Phase): Finding[] => [
      atMost(
        `${engines}.${name}.decision-p99`,
        controller.decisions.p99Ms,
        "ms",
        DECISION_P99_MS_MAX,
      ),
      atMost(`${engines}.${name}.missed-heartbeats`, told.missedHeartbeats, "heartbeats", 0),
    ];
    return [
      ...phase("fill", fill),
      ...phase("serve", serve),
      atMost(`${engines}.unfilled`, engines - fill.engines.settled, "engines", 0),
      atMost(`${engines}.memory`, bytesPerEngine / MIB, "MiB an engine", MIB_MAX),
    ];
  });
  return [...core, ...large];
}
