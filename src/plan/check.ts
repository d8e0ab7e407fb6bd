/** What a sound plan looks like, and its text. Pure: every complaint names its place in the file. */

import * as v from "valibot";
import type { StepCase } from "../base/graph.ts";
import { parseJsonFile } from "../base/parse-json.ts";
import { amount, fields, line, list, named, number, readBy, whole } from "../base/schema.ts";
import { shownWhole } from "../base/shown.ts";
import { PLAN_VERSION, type Plan, planVersion } from "./plan.ts";

/** Why a text is no plan; `newer` when a later version of this package wrote it. */
export class PlanFault extends Error {
  override readonly name: string = "PlanFault";
  readonly newer: boolean;

  constructor(expected: string, got: string, newer = false) {
    super(`expected ${expected}, got ${got}`);
    this.newer = newer;
  }
}

/**
 * Bytes of a file. An engine may tell 4,096 graphs by names of 128 characters each: with all their
 * figures, and with the same number of traffic rows, they fit.
 */
export const PLAN_BYTES_MAX: number = 8 << 20;
const GRAPHS_MAX = 4096;
const TRAFFIC_MAX = 4096;
/** Every graph may have a case of its own, as the wire goes. */
const GROUPS_MAX = 4096;
/** The names of the GPUs of 256 ranks. */
const GPU_NAMES_CHARS_MAX = 40_000;
const TOKENS_MAX = 1_048_576;
const AMOUNT_MAX = 1e15;
const STARTS_MAX = 1e9;
/** A day: it reaches prices. */
const CAPTURE_MS_MAX = 86_400_000;
const DATE = "a time such as 2026-11-21T12:00:00Z";

const figure = amount(AMOUNT_MAX);
const tokens = whole(1, TOKENS_MAX);
const name = line(128);
const date = v.pipe(
  v.string(DATE),
  v.regex(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,3})?Z$/, DATE),
  v.check((value) => !Number.isNaN(Date.parse(value)), DATE),
);

const stepCase = {
  loras: v.exactOptional(whole(0, TOKENS_MAX)),
  queryLength: v.exactOptional(tokens),
  microbatches: v.exactOptional(tokens),
};

const fingerprint = fields({
  vllmVersion: name,
  pluginVersion: name,
  model: line(2048),
  gpuName: line(GPU_NAMES_CHARS_MAX),
  tensorParallel: whole(1, 4096),
  pipelineParallel: whole(1, 4096),
  cudagraphMode: name,
  captureSizes: named(list(tokens, GRAPHS_MAX), GROUPS_MAX),
});

const traffic = fields({
  tokens,
  uniform: whole(0, TOKENS_MAX),
  ...stepCase,
  requestSteps: figure,
  steps: figure,
  ungraphedSeconds: figure,
  ungraphedTimed: figure,
});

const graph = fields({
  id: name,
  kind: v.picklist(["FULL", "PIECEWISE"], "FULL or PIECEWISE"),
  tokens,
  uniform: v.exactOptional(tokens),
  ...stepCase,
  replays: figure,
  regret: figure,
  stepSeconds: figure,
  timed: figure,
  captureMs: v.exactOptional(number(0, CAPTURE_MS_MAX)),
  bytes: v.exactOptional(figure),
});

const plan = fields({
  fingerprint,
  createdAt: date,
  updatedAt: date,
  learnedBy: line(2048),
  starts: whole(0, STARTS_MAX),
  simulated: v.exactOptional(name),
  load: v.exactOptional(fields({ seconds: figure, workSeconds: figure })),
  traffic: list(v.pipe(traffic, v.transform(withoutDefaults)), TRAFFIC_MAX),
  graphs: list(v.pipe(graph, v.transform(withoutDefaults)), GRAPHS_MAX),
  first: list(name, GRAPHS_MAX),
});

/** @throws PlanFault with the place in the document, what was expected and what came. */
export function parsePlan(text: string): Plan {
  if (Buffer.byteLength(text) > PLAN_BYTES_MAX) {
    throw new PlanFault(`at most ${PLAN_BYTES_MAX} bytes`, String(Buffer.byteLength(text)));
  }
  let value: unknown;
  try {
    value = parseJsonFile(text);
  } catch {
    throw new PlanFault("JSON", text.length === 0 ? "an empty file" : "text that is none");
  }
  const { lazygraphPlan: version } = readBy(
    fields({ lazygraphPlan: v.optional(v.unknown()) }),
    value,
    fault,
  );
  if (!Number.isInteger(version) || (version as number) < 1 || (version as number) > PLAN_VERSION) {
    const newer = Number.isInteger(version) && (version as number) > PLAN_VERSION;
    throw new PlanFault(`$.lazygraphPlan to be 1 to ${PLAN_VERSION}`, shownWhole(version), newer);
  }
  const read = readBy(plan, value, fault);
  const ids = new Set(read.graphs.map(({ id }) => id));
  if (ids.size !== read.graphs.length) {
    throw new PlanFault("$.graphs to name each once", "one again");
  }
  const strange = read.first.findIndex((id) => !ids.has(id));
  if (strange !== -1)
    throw fault(`first[${strange}]`, "one of $.graphs", shownWhole(read.first[strange]));
  return { ...read, first: [...new Set(read.first)] };
}

function fault(place: string, expected: string, got: string): PlanFault {
  return new PlanFault(`$${place === "" ? "" : "."}${place} to be ${expected}`, got);
}

/** A case is written without what stands at its default. */
function withoutDefaults<T extends StepCase>(row: T): T {
  const isDefault = ([field, value]: [string, unknown]): boolean =>
    (field === "loras" && value === 0) || (field === "microbatches" && value === 1);
  return Object.fromEntries(Object.entries(row).filter((entry) => !isDefault(entry))) as T;
}

/**
 * The plan with every figure inside its limits: an engine may tell any number that the protocol
 * takes, sums of them may be none any more, and what is written must be readable.
 */
export function storable(plan: Plan): Plan {
  const { load } = plan;
  return {
    ...plan,
    starts: Math.min(plan.starts, STARTS_MAX),
    ...(load === undefined
      ? {}
      : { load: { seconds: within(load.seconds), workSeconds: within(load.workSeconds) } }),
    traffic: plan.traffic.slice(0, TRAFFIC_MAX).map((row) => ({
      ...row,
      requestSteps: within(row.requestSteps),
      steps: within(row.steps),
      ungraphedSeconds: within(row.ungraphedSeconds),
      ungraphedTimed: within(row.ungraphedTimed),
    })),
    graphs: plan.graphs.map((graph) => ({
      ...graph,
      replays: within(graph.replays),
      regret: within(graph.regret),
      stepSeconds: within(graph.stepSeconds),
      timed: within(graph.timed),
      ...(graph.captureMs === undefined
        ? {}
        : { captureMs: within(graph.captureMs, CAPTURE_MS_MAX) }),
      ...(graph.bytes === undefined ? {} : { bytes: within(graph.bytes) }),
    })),
  };
}

function within(value: number, max: number = AMOUNT_MAX): number {
  return Number.isNaN(value) ? 0 : Math.min(max, Math.max(0, value));
}

/** The text of a plan: one line for each size and graph, so that it can be read and compared. */
export function formatPlan(plan: Plan): string {
  const { traffic, graphs, first, ...head } = plan;
  const lines = (rows: readonly object[]): string =>
    rows.length === 0
      ? "[]"
      : `[\n    ${rows.map((row) => JSON.stringify(row)).join(",\n    ")}\n  ]`;
  const top = JSON.stringify({ lazygraphPlan: planVersion(plan), ...head }, undefined, 2);
  return (
    `${top.slice(0, -2)},\n  "traffic": ${lines(traffic)},\n  "graphs": ${lines(graphs)},\n` +
    `  "first": ${JSON.stringify(first)}\n}\n`
  );
}
