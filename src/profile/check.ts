/** What a sound profile looks like: every size there, every cost a number from 0 up. */

import * as v from "valibot";
import type { Graph } from "../base/graph.ts";
import {
  amount,
  type FaultError,
  fields,
  list,
  named,
  number,
  oneOf,
  readBy,
  text,
  whole,
} from "../base/schema.ts";
import type { CaptureCost, CostRow, Profile, StepCosts } from "./profile.ts";

export const TEXT_CHARS_MAX = 2048;
const GRAPHS_MAX = 4096;
const ROWS_MAX = 4096;
/** Tables are held token by token. */
const TOKENS_MAX = 1_048_576;
/** A day, for any one thing: with times without end a simulation would have none either. */
const SECONDS_MAX = 86_400;
/** Bytes: far beyond any GPU's. */
const NUMBER_MAX = 1e15;
const COLUMNS = JSON.stringify(["kind", "tokens", "warmMs", "captureMs", "laterMs", "bytes"]);

const words = text(TEXT_CHARS_MAX);
const count = whole(1);
const seconds = amount(SECONDS_MAX);
const ms = amount(SECONDS_MAX * 1000);
const bytes = amount(NUMBER_MAX);
const tokens = whole(1, TOKENS_MAX);
const rows = list(v.strictTuple([tokens, seconds], "a list of tokens and seconds"), ROWS_MAX, 1);
const origin = fields({
  kind: oneOf(["measured", "derived", "estimated", "assumed"]),
  how: words,
});

const profile = fields({
  schema: v.literal(1, "1"),
  provenance: fields({ measuredOn: words, setup: words, fields: named(origin, ROWS_MAX) }),
  name: words,
  title: words,
  engine: fields({
    model: words,
    vllmVersion: words,
    gpuName: words,
    cudagraphMode: words,
    layers: count,
    tensorParallel: count,
    pipelineParallel: count,
  }),
  startupSeconds: seconds,
  frontEndSeconds: v.nullish(seconds, 0),
  limits: fields({
    maxRequests: count,
    maxBatchedTokens: count,
    kvCacheTokens: count,
    kvBlockTokens: count,
    // Absent in files of before it was known.
    stepsAhead: v.optional(v.picklist([0, 1], "0 or 1"), 0),
  }),
  memory: fields({
    totalBytes: bytes,
    freeBytes: bytes,
    reservedBytes: bytes,
    activationPeakBytes: bytes,
  }),
  steps: fields({
    full: rows,
    piecewise: rows,
    ungraphed: rows,
    secondsPerRequest: seconds,
    secondsPerContextToken: seconds,
    secondsPerTokenBeyond: seconds,
    secondsPerPromptPair: seconds,
  }),
  captures: fields({
    columns: v.custom<object>((value) => JSON.stringify(value) === COLUMNS, COLUMNS),
    rows: list(
      v.strictTuple(
        [v.picklist(["FULL", "PIECEWISE"], "FULL or PIECEWISE"), tokens, ms, ms, ms, bytes],
        `one value for each of ${COLUMNS}`,
      ),
      GRAPHS_MAX,
      1,
    ),
    withoutWarmUp: number(0, 1),
  }),
});

/** @throws what `fail` makes of the first field that is not sound */
export function checkProfile(value: unknown, fail: FaultError): Profile {
  const read = readBy(profile, value, (place, expected, got) =>
    fail(place === "" ? "the profile" : place, expected, got),
  );
  const { provenance, memory, steps, captures } = read;
  if (memory.freeBytes > memory.totalBytes) {
    const most = `at most memory.totalBytes, ${memory.totalBytes}`;
    throw fail("memory.freeBytes", most, `${memory.freeBytes}`);
  }
  for (const kind of ["full", "piecewise", "ungraphed"] as const) {
    checkRows(steps[kind], `steps.${kind}`, fail);
  }
  const costs = captureCosts(captures.rows, fail);
  checkSizes(steps, costs, fail);
  return {
    name: read.name,
    title: read.title,
    measuredOn: provenance.measuredOn,
    setup: provenance.setup,
    provenance: provenance.fields,
    engine: read.engine,
    startupSeconds: read.startupSeconds,
    frontEndSeconds: read.frontEndSeconds,
    limits: read.limits,
    memory,
    steps,
    captures: { withoutWarmUp: captures.withoutWarmUp, costs },
  };
}

/** Tokens rise, and no step is free. */
function checkRows(table: readonly CostRow[], field: string, fail: FaultError): void {
  let last = 0;
  for (const [index, [size, cost]] of table.entries()) {
    if (size <= last) throw fail(`${field}[${index}][0]`, `tokens above ${last}`, `${size}`);
    if (cost === 0) throw fail(`${field}[${index}][1]`, "seconds above 0", "0");
    last = size;
  }
}

type CaptureRow = v.InferOutput<typeof profile>["captures"]["rows"][number];

function captureCosts(captureRows: readonly CaptureRow[], fail: FaultError): CaptureCost[] {
  const seen = new Set<string>();
  return captureRows.map(([kind, size, warmMs, captureMs, laterMs, grown], index) => {
    const id = `${kind}:${size}`;
    if (seen.has(id))
      throw fail(`captures.rows[${index}]`, "one row for each graph", `${id} again`);
    seen.add(id);
    const any: Graph = { id, kind, tokens: size };
    const graph = kind === "FULL" ? { ...any, requests: size, uniform: 1 } : any;
    return { graph, warmMs, captureMs, laterMs, bytes: grown };
  });
}

/** A table that ends below the largest graph would make the cost of that graph a guess. */
function checkSizes(steps: StepCosts, costs: readonly CaptureCost[], fail: FaultError): void {
  for (const [kind, field] of [
    ["FULL", "full"],
    ["PIECEWISE", "piecewise"],
  ] as const) {
    const sizes = costs.filter((cost) => cost.graph.kind === kind).map((c) => c.graph.tokens);
    if (sizes.length === 0) continue;
    const rows = steps[field];
    const [smallest, largest] = [Math.min(...sizes), Math.max(...sizes)];
    if ((rows[0]?.[0] ?? 0) > smallest || (rows.at(-1)?.[0] ?? 0) < largest) {
      throw fail(
        `steps.${field}`,
        `rows from ${smallest} to ${largest} tokens, the sizes of its graphs`,
        `rows from ${rows[0]?.[0]} to ${rows.at(-1)?.[0]}`,
      );
    }
  }
  if (steps.ungraphed[0]?.[0] !== 1) {
    throw fail("steps.ungraphed", "rows from 1 token up", `rows from ${steps.ungraphed[0]?.[0]}`);
  }
}
