/** What the benchmark, the recorder and those who adopt the package can rely on. Pure. */

import type { Finding, Origin } from "./claims.ts";
import type { Measured } from "./client-cost.ts";

export interface StreamShapes {
  readonly shapes: number;
  readonly right: Readonly<Record<"bench" | "record" | "gateway", number>>;
}

/** "At least 60" of the table, and each of them right with every reader. */
const SHAPES_LEAST = 60;

export function shapeFindings({ shapes, right }: StreamShapes, told: Origin): Finding[] {
  const count: Finding = {
    ...told,
    ...{ id: "uses.stream-shapes.count", value: shapes, unit: "stream shapes" },
    ...{ limit: SHAPES_LEAST, sense: "atLeast" },
  };
  const readers = Object.entries(right).map(([reader, value]): Finding => {
    const unit = "of stream shapes with the right first token, count and verdict";
    return {
      ...{ ...told, id: `uses.stream-shapes.${reader}`, value: value / shapes, unit },
      ...{ limit: 1, sense: "atLeast" },
    };
  });
  return [count, ...readers];
}

export interface TraceFormats {
  readonly formats: readonly { readonly holds: boolean }[];
  readonly mooncake: readonly { readonly holds: boolean }[];
}

export function traceFindings({ formats, mooncake }: TraceFormats, told: Origin): Finding[] {
  const all = { ...told, limit: 1, sense: "atLeast" } as const;
  return [
    {
      ...{ ...all, id: "uses.traces.formats", value: shareOf(formats) },
      unit: "of samples with as many requests in inspect, simulate and bench",
    },
    {
      ...{ ...all, id: "uses.traces.mooncake", value: shareOf(mooncake) },
      unit: "of Mooncake's own traces with the requests and mean lengths of their description",
    },
  ];
}

function shareOf(rows: readonly { readonly holds: boolean }[]): number {
  // Of none there is no share: nothing was tried, which must not pass.
  return rows.filter(({ holds }) => holds).length / rows.length;
}

export interface ClientCosts {
  readonly rows: readonly {
    readonly name: string;
    readonly ratio?: Measured;
    readonly ratioMax?: number;
  }[];
}

/** Ours over each of those that it is held against. */
export function clientFindings({ rows }: ClientCosts, told: Origin): Finding[] {
  return rows.flatMap(({ name, ratio, ratioMax }) => {
    if (ratio === undefined || ratioMax === undefined) return [];
    const id = `uses.client.over-${name.toLowerCase().replaceAll(" ", "-")}`;
    const unit = `of the processor time a streamed token of ${name}`;
    const { value, low, high } = ratio;
    return [
      { ...told, id, value, interval: [low, high], unit, limit: ratioMax, sense: "atMost" },
    ] as const;
  });
}

export interface ClientMemory {
  readonly rssBytesPerStream: number;
}

/** A thousand streams in 64 MiB. */
const STREAM_BYTES_MAX = 65_536;

export function memoryFindings({ rssBytesPerStream }: ClientMemory, told: Origin): Finding[] {
  const id = "uses.client.memory-per-stream";
  const unit = "resident bytes an open stream";
  return [
    { ...told, id, value: rssBytesPerStream, unit, limit: STREAM_BYTES_MAX, sense: "atMost" },
  ];
}

interface Requests {
  readonly whole: number;
  readonly lost: number;
}

export interface Takeover {
  readonly heartbeatSeconds: number;
  readonly startSeconds: number;
  readonly rounds: readonly {
    readonly seconds: number;
    readonly ofKilled: Requests;
    readonly ofOther: Requests;
  }[];
}

const HEARTBEATS = 3;

export function takeoverFindings(takeover: Takeover, told: Origin): Finding[] {
  const { heartbeatSeconds, startSeconds, rounds } = takeover;
  const seconds = rounds.map((round) => round.seconds);
  const lost = rounds.reduce((sum, round) => sum + round.ofKilled.lost + round.ofOther.lost, 0);
  const limit = HEARTBEATS * heartbeatSeconds + startSeconds;
  const id = "uses.takeover";
  return [
    {
      ...{ ...told, id: `${id}.seconds`, value: Math.max(...seconds), limit, sense: "atMost" },
      unit: `s from the kill to the engine at the other replica, longest of ${rounds.length}`,
    },
    { ...told, id: `${id}.lost`, value: lost, unit: "requests lost", limit: 0, sense: "atMost" },
  ];
}

export interface Drain {
  readonly ways: readonly {
    readonly name: string;
    readonly streams: number;
    readonly whole: number;
    readonly code: number | null;
  }[];
}

export function drainFindings({ ways }: Drain, told: Origin): Finding[] {
  return ways.map(({ name, streams, whole, code }): Finding => {
    const id = `uses.drain.${name.replaceAll(" ", "-")}`;
    // Another exit code makes every stream count as cut: the gateway did not end well.
    const cut = code === 0 ? streams - whole : streams;
    const unit = `of ${streams} streams cut off`;
    return { ...told, id, value: cut, unit, limit: 0, sense: "atMost" };
  });
}

export interface ReportPage {
  readonly simulatedSeconds: number;
  readonly seconds: number;
  readonly pages: readonly {
    readonly width: number;
    readonly figures: number;
    readonly unseen: number;
  }[];
}

/** Minutes in real time become seconds. */
const SPEED_LEAST = 100;

export function reportFindings(page: ReportPage, told: Origin): Finding[] {
  const { simulatedSeconds, seconds, pages } = page;
  return [
    {
      ...{ ...told, id: "uses.report.simulated-speed", value: simulatedSeconds / seconds },
      unit: "simulated seconds in one of simulation and report together",
      ...{ limit: SPEED_LEAST, sense: "atLeast" },
    },
    ...pages.map(({ width, unseen }): Finding => {
      const unit = "figures of the first table off the screen";
      const id = `uses.report.unseen-${width}`;
      return { ...told, id, value: unseen, unit, limit: 0, sense: "atMost" };
    }),
  ];
}

export interface Deployment {
  readonly files: readonly {
    readonly file: string;
    readonly passed: number;
    readonly skipped: number;
    readonly failed: number;
  }[];
}

export function deploymentFindings({ files }: Deployment, told: Origin): Finding[] {
  return files.map(({ file, passed, failed, skipped }): Finding => {
    const id = `uses.deploy.${file}`;
    const value = passed / (passed + failed + skipped);
    const unit = `of ${passed + failed + skipped} checks of deploy/ pass`;
    return { ...told, id, value, unit, limit: 1, sense: "atLeast" };
  });
}
