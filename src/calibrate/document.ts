/**
 * A calibration as a cost profile: what was measured, what was put in between, and what nobody
 * measured, told apart in its provenance. Pure.
 */

import type { Graph } from "../base/graph.ts";
import type { Profile } from "../profile/profile.ts";
import { type CellEstimate, SAMPLES_MIN, type StepEstimates } from "./estimate.ts";
import { frontEndSeconds } from "./front-end.ts";
import type { TimedWave } from "./waves.ts";

export interface CaptureMeasured {
  readonly graph: Graph;
  /** Milliseconds and bytes; undefined when not captured. */
  readonly ms: number | undefined;
  readonly bytes: number | undefined;
}

export interface ProfileInput {
  readonly name: string;
  /** Day of measurement, as YYYY-MM-DD. */
  readonly measuredOn: string;
  readonly command: string;
  readonly lazygraphVersion: string;
  readonly pluginVersion: string;
  readonly simulated: string | undefined;
  readonly engine: Profile["engine"];
  /** The engine doesn't tell the size of its KV blocks. */
  readonly limits: Omit<Profile["limits"], "kvBlockTokens">;
  readonly memory: Profile["memory"];
  readonly startupSeconds: number;
  readonly steps: StepEstimates;
  readonly captures: readonly CaptureMeasured[];
  /** Ids of the graphs captured before ready. */
  readonly tops: ReadonlySet<string>;
  readonly waves: readonly TimedWave[];
}

type Origin = { readonly kind: string; readonly how: string };
type Row = readonly [tokens: number, seconds: number];

/** vLLM's default; no message tells it. */
const KV_BLOCK_TOKENS = 16;
/** vLLM's flag against asynchronous scheduling. */
export const SYNCHRONOUS = "--no-async-scheduling";
/** Digits worth writing down: microseconds' tenths. */
const DIGITS = 7;

/** What can't be built, as the end of a sentence. */
export class Unmeasured extends Error {
  override readonly name: string = "Unmeasured";
}

/** @throws Unmeasured when too little was measured for a profile */
export function profileDocument(input: ProfileInput): Record<string, unknown> {
  const { steps, captures } = input;
  const sizes = (kind: Graph["kind"]): number[] =>
    captures.filter(({ graph }) => graph.kind === kind).map(({ graph }) => graph.tokens);
  const all = captures.map(({ graph }) => graph.tokens);
  const ungraphed = rowsOf(steps.ungraphed, "ungraphed steps", [1, Math.max(...all)]);
  const full = rowsOf(steps.full, "FULL graphs", sizes("FULL"));
  const piecewise = rowsOf(steps.piecewise, "PIECEWISE graphs", sizes("PIECEWISE"));
  const taken = captureRows(input, ungraphed.rows);
  const frontEnd = frontEndSeconds(input.waves, steps);
  return {
    schema: 1,
    name: input.name,
    title: titleOf(input),
    provenance: {
      measuredOn: input.measuredOn,
      setup: setupOf(input),
      command: input.command,
      versions: { lazygraph: input.lazygraphVersion, plugin: input.pluginVersion },
      fields: fieldsOf(input, { full, piecewise, ungraphed, taken, frontEnd }),
      // Steps behind each cell, its median and its middle half, in seconds.
      cells: [...steps.full, ...steps.piecewise, ...steps.ungraphed].map((cell) => ({
        cell: cell.cell,
        samples: cell.samples,
        median: rounded(cell.median),
        q1: rounded(cell.q1),
        q3: rounded(cell.q3),
      })),
      interpolatedCaptures: taken.interpolated,
      // As a client saw them, through HTTP; `frontEndSeconds` alone comes from these.
      waves: input.waves.map(({ wave, seconds }) => {
        const { table, requests, promptTokens, outputTokens } = wave;
        return { table, requests, promptTokens, outputTokens, seconds: seconds.map(rounded) };
      }),
    },
    engine: input.engine,
    startupSeconds: Math.round(input.startupSeconds * 1000) / 1000,
    ...(frontEnd === undefined ? {} : { frontEndSeconds: rounded(frontEnd) }),
    limits: { ...input.limits, kvBlockTokens: KV_BLOCK_TOKENS },
    memory: input.memory,
    steps: {
      full: full.rows,
      piecewise: piecewise.rows,
      ungraphed: ungraphed.rows,
      secondsPerRequest: exact(steps.secondsPerRequest),
      secondsPerContextToken: exact(steps.secondsPerContextToken),
      secondsPerTokenBeyond: exact(
        steps.secondsPerTokenBeyond ?? slopeBetween(ungraphed.rows.slice(-2)),
      ),
      secondsPerPromptPair: exact(steps.secondsPerPromptPair),
    },
    captures: {
      withoutWarmUp: taken.withoutWarmUp,
      columns: ["kind", "tokens", "warmMs", "captureMs", "laterMs", "bytes"],
      rows: taken.rows,
    },
  };
}

interface Rows {
  readonly rows: readonly Row[];
  readonly measured: readonly number[];
  /** Sizes at an end that no step was measured at. */
  readonly extended: readonly number[];
}

/** Measured rows, drawn out to the smallest and largest size where those are missing. */
function rowsOf(cells: readonly CellEstimate[], what: string, sizes: readonly number[]): Rows {
  if (sizes.length === 0) return { rows: [[1, 1e-9]], measured: [], extended: [] };
  if (cells.length === 0) {
    throw new Unmeasured(`at least ${SAMPLES_MIN} timed steps of ${what}, got none of any size`);
  }
  const rows: Row[] = cells.map(({ tokens, median }) => [tokens, rounded(median)]);
  const measured = rows.map(([tokens]) => tokens);
  const extended: number[] = [];
  const [smallest, largest] = [Math.min(...sizes), Math.max(...sizes)];
  const [first] = rows;
  if (first !== undefined && first[0] > smallest) {
    const seconds = first[1] - slopeBetween(rows.slice(0, 2)) * (first[0] - smallest);
    rows.unshift([smallest, rounded(Math.max(first[1] / 2, seconds))]);
    extended.push(smallest);
  }
  const last = rows.at(-1);
  if (last !== undefined && last[0] < largest) {
    const seconds = last[1] + slopeBetween(rows.slice(-2)) * (largest - last[0]);
    rows.push([largest, rounded(seconds)]);
    extended.push(largest);
  }
  return { rows, measured, extended };
}

/** Seconds per token between two rows; none below 0. */
function slopeBetween([before, after]: readonly Row[]): number {
  if (before === undefined || after === undefined) return 0;
  return Math.max(0, (after[1] - before[1]) / (after[0] - before[0]));
}

interface CaptureRows {
  readonly rows: readonly (readonly [string, number, number, number, number, number])[];
  readonly withoutWarmUp: number;
  readonly interpolated: readonly string[];
}

function captureRows({ captures, tops }: ProfileInput, ungraphed: readonly Row[]): CaptureRows {
  const interpolated: string[] = [];
  const before = beforeReady(captures, tops);
  const rows = captures.map(({ graph, ms, bytes }) => {
    const known = ms === undefined ? nearest(captures, graph) : { ms, bytes: bytes ?? 0 };
    if (known === undefined) {
      throw new Unmeasured(`at least one captured graph of kind ${graph.kind}, got none`);
    }
    if (ms === undefined) interpolated.push(graph.id);
    const startMs = before(graph, known.ms);
    // A capture launches what its warm-up run launches: it is at least half of both.
    const warmMs = Math.min(between(ungraphed, graph.tokens) * 1000, startMs / 2);
    const held = Math.max(0, Math.round(known.bytes));
    const [warm, capture] = [hundredths(warmMs), hundredths(startMs - warmMs)];
    return [graph.kind, graph.tokens, warm, capture, hundredths(known.ms), held] as const;
  });
  const whole = rows.reduce((sum, [, , warm, capture]) => sum + warm + capture, 0);
  const without = rows.reduce((sum, [, , , capture]) => sum + capture, 0);
  return { rows, withoutWarmUp: whole === 0 ? 1 : rounded(without / whole), interpolated };
}

/** Captures after ready that tell what they take more than a top did before ready. */
const NEIGHBOURS = 3;

/**
 * Milliseconds that a graph takes before ready with its warm-up run. Only the tops were captured
 * there. A later capture has no warm-up run but an overhead of its own, so that its time as it is
 * stands for both; what the top's neighbours took more than the top is overhead and comes off. So
 * no graph starts out dearer than the largest of its kind did: stock is not made to look slow.
 */
function beforeReady(
  captures: readonly CaptureMeasured[],
  tops: ReadonlySet<string>,
): (graph: Graph, ms: number) => number {
  const overhead = new Map<string, { readonly topMs: number; readonly ms: number }>();
  for (const { graph, ms } of captures) {
    if (ms === undefined || !tops.has(graph.id) || overhead.has(graph.kind)) continue;
    const neighbours = captures
      .filter((other) => other.graph.kind === graph.kind && !tops.has(other.graph.id))
      .filter((other) => other.ms !== undefined)
      .sort((a, b) => b.graph.tokens - a.graph.tokens)
      .slice(0, NEIGHBOURS)
      .map((other) => other.ms ?? 0)
      .sort((a, b) => a - b);
    const typical = neighbours[neighbours.length >> 1] ?? ms;
    overhead.set(graph.kind, { topMs: ms, ms: Math.max(0, typical - ms) });
  }
  return (graph, ms) => {
    const known = overhead.get(graph.kind);
    if (known === undefined || tops.has(graph.id)) return ms;
    return Math.min(Math.max(0, ms - known.ms), known.topMs);
  };
}

/** The captured graph of the same kind with the nearest size. */
function nearest(
  captures: readonly CaptureMeasured[],
  graph: Graph,
): { ms: number; bytes: number } | undefined {
  let best: { ms: number; bytes: number } | undefined;
  let bestDistance = Number.POSITIVE_INFINITY;
  for (const other of captures) {
    if (other.ms === undefined || other.graph.kind !== graph.kind) continue;
    const distance = Math.abs(Math.log2(other.graph.tokens / graph.tokens));
    if (distance >= bestDistance) continue;
    best = { ms: other.ms, bytes: other.bytes ?? 0 };
    bestDistance = distance;
  }
  return best;
}

function between(rows: readonly Row[], tokens: number): number {
  const up = rows.findIndex(([size]) => size >= tokens);
  const [upTokens, upSeconds] = rows[up === -1 ? rows.length - 1 : up] ?? [tokens, 0];
  const [downTokens, downSeconds] = rows[up - 1] ?? [upTokens, upSeconds];
  if (upTokens === downTokens) return upSeconds;
  const share = (tokens - downTokens) / (upTokens - downTokens);
  return downSeconds + share * (upSeconds - downSeconds);
}

function titleOf({ engine, simulated }: ProfileInput): string {
  const { model, gpuName, vllmVersion, tensorParallel, pipelineParallel } = engine;
  const gpus = tensorParallel * pipelineParallel;
  const title = `${model} on ${gpus} ${gpuName} under vLLM ${vllmVersion}`;
  return simulated === undefined ? title : `SIMULATED (profile ${simulated}): ${title}`;
}

function setupOf({ engine }: ProfileInput): string {
  return (
    `vLLM ${engine.vllmVersion}, ${engine.cudagraphMode}, tensor parallel ` +
    `${engine.tensorParallel}, pipeline parallel ${engine.pipelineParallel}; waves of completions ` +
    "with prompts of random tokens, without graphs, padded to the tops, and with every graph"
  );
}

interface Tables {
  readonly full: Rows;
  readonly piecewise: Rows;
  readonly ungraphed: Rows;
  readonly taken: CaptureRows;
  readonly frontEnd: number | undefined;
}

function stepsAheadOrigin({ limits, simulated, command }: ProfileInput): Origin {
  if (simulated !== undefined)
    return { kind: "assumed", how: "Of the simulated engine's profile." };
  if (limits.stepsAhead === 0 && command.includes(SYNCHRONOUS)) {
    return { kind: "derived", how: `The command has ${SYNCHRONOUS}.` };
  }
  return { kind: "assumed", how: "vLLM schedules asynchronously by default; no message tells it." };
}

function fieldsOf(input: ProfileInput, tables: Tables): Record<string, Origin> {
  const { steps, simulated } = input;
  const measured = (how: string): Origin => ({ kind: "measured", how });
  const derived = (how: string): Origin => ({ kind: "derived", how });
  const assumed = (how: string): Origin => ({ kind: "assumed", how });
  const slope = (value: number | undefined, how: string): Origin =>
    value === undefined ? assumed("No steps told it apart: taken as 0.") : derived(how);
  const table = ({ measured: at, extended }: Rows): Origin => {
    if (at.length === 0) return assumed("The engine plans no such graphs.");
    const ends =
      extended.length === 0
        ? ""
        : ` No step was measured at ${extended.join(" and ")}: drawn out from its neighbours.`;
    const cells = `Median of timed steps at ${at.join(", ")} tokens, less requests and context`;
    return derived(`${cells}; sizes between are interpolated.${ends}`);
  };
  const { taken } = tables;
  const ids = taken.interpolated;
  // A profile's texts have an end.
  const which = ids.length > 16 ? `${ids.length} graphs (interpolatedCaptures)` : ids.join(", ");
  const missing =
    ids.length === 0 ? "" : ` Not captured, taken as the nearest of its kind: ${which}.`;
  return {
    engine: measured("Told by the engine."),
    startupSeconds:
      simulated === undefined
        ? measured("From the start of the command to the engine's inventory.")
        : assumed("Of the simulated engine's profile, else real time, whatever its --speed was."),
    ...(tables.frontEnd === undefined
      ? {}
      : {
          frontEndSeconds: derived(
            "What a client waited longer than the step took, for prompts sent alone with one token " +
              "of answer and a graph of their own: median over their sizes.",
          ),
        }),
    "limits.maxRequests": measured("Told by the engine."),
    "limits.maxBatchedTokens": measured("Told by the engine."),
    "limits.kvCacheTokens": measured("Told by the engine."),
    "limits.kvBlockTokens": assumed("vLLM's default; no message tells it."),
    "limits.stepsAhead": stepsAheadOrigin(input),
    "memory.freeBytes": derived("Free once ready, plus what the tops took."),
    "memory.reservedBytes": measured("Told by the engine once ready."),
    "memory.activationPeakBytes": measured("Told by the engine."),
    "steps.full": table(tables.full),
    "steps.piecewise": table(tables.piecewise),
    "steps.ungraphed": table(tables.ungraphed),
    "steps.secondsPerRequest": slope(
      steps.secondsPerRequest,
      "Slope of decode steps in one graph over their requests (Huber).",
    ),
    "steps.secondsPerContextToken": slope(
      steps.secondsPerContextToken,
      "Slope of decode steps of one shape over their context (Huber).",
    ),
    "steps.secondsPerTokenBeyond":
      steps.secondsPerTokenBeyond === undefined
        ? assumed("No longer prompts were measured: the slope of the ungraphed table's end.")
        : derived("Prompts that ran alone, longer than the largest graph (Huber)."),
    "steps.secondsPerPromptPair": slope(
      steps.secondsPerPromptPair,
      "Prompts that ran alone, longer than the largest graph (Huber).",
    ),
    "captures.rows.warmMs": {
      kind: "estimated",
      how: "One ungraphed step of that size, at most half of the time before ready.",
    },
    "captures.rows.captureMs": {
      kind: "estimated",
      how:
        "The tops as measured before ready, the rest as between two steps less what the tops' " +
        "neighbours took more than the tops; both less the warm-up run.",
    },
    "captures.rows.laterMs": measured(
      `One command each in an engine without work; of the tops as before ready.${missing}`,
    ),
    "captures.rows.bytes": measured(`As the engine reported them.${missing}`),
    "captures.withoutWarmUp": derived("Share of captureMs in warmMs and captureMs together."),
    ...(simulated === undefined
      ? {}
      : { simulated: assumed(`Every figure comes from the simulated engine ${simulated}.`) }),
  };
}

function rounded(value: number): number {
  return Number(value.toFixed(DIGITS));
}

/** Slopes are far below a microsecond. */
function exact(value: number | undefined): number {
  return Number((value ?? 0).toPrecision(4));
}

function hundredths(value: number): number {
  return Math.round(value * 100) / 100;
}
