/** What a sound plan looks like, and its text. Pure: every complaint names its place in the file. */

import { caseOf, type StepCase } from "../base/graph.ts";
import { parseJsonFile } from "../base/parse-json.ts";
import { shownWhole } from "../base/shown.ts";
import type { PriorLoad } from "../schedule/costed/prior.ts";
import type { Fingerprint } from "./fingerprint.ts";
import { PLAN_VERSION, type Plan, type PlanGraph, type PlanTraffic, planVersion } from "./plan.ts";

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

type Fields = Readonly<Record<string, unknown>>;

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
  const root = object(value, "$");
  const version = root["lazygraphPlan"];
  if (!Number.isInteger(version) || (version as number) < 1 || (version as number) > PLAN_VERSION) {
    const newer = Number.isInteger(version) && (version as number) > PLAN_VERSION;
    throw new PlanFault(`$.lazygraphPlan to be 1 to ${PLAN_VERSION}`, shownWhole(version), newer);
  }
  const graphs = list(root["graphs"], "$.graphs", GRAPHS_MAX).map(checkGraph);
  const ids = new Set(graphs.map(({ id }) => id));
  if (ids.size !== graphs.length) throw new PlanFault("$.graphs to name each once", "one again");
  const first = list(root["first"], "$.first", GRAPHS_MAX).map((entry, index) => {
    const id = text128(entry, `$.first[${index}]`);
    if (!ids.has(id))
      throw new PlanFault(`$.first[${index}] to be one of $.graphs`, shownWhole(id));
    return id;
  });
  const simulated = root["simulated"];
  const load = root["load"];
  return {
    fingerprint: checkFingerprint(object(root["fingerprint"], "$.fingerprint")),
    createdAt: date(root["createdAt"], "$.createdAt"),
    updatedAt: date(root["updatedAt"], "$.updatedAt"),
    learnedBy: words(root["learnedBy"], "$.learnedBy", 2048),
    starts: whole(root["starts"], "$.starts", 0, STARTS_MAX),
    ...(simulated === undefined ? {} : { simulated: text128(simulated, "$.simulated") }),
    ...(load === undefined ? {} : { load: checkLoad(object(load, "$.load")) }),
    traffic: list(root["traffic"], "$.traffic", TRAFFIC_MAX).map(checkTraffic),
    graphs,
    first: [...new Set(first)],
  };
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

function checkFingerprint(value: Fields): Fingerprint {
  const at = "$.fingerprint";
  const sizes = Object.entries(object(value["captureSizes"], `${at}.captureSizes`));
  if (sizes.length > GROUPS_MAX) {
    throw new PlanFault(
      `${at}.captureSizes to have at most ${GROUPS_MAX} kinds`,
      `${sizes.length}`,
    );
  }
  return {
    vllmVersion: text128(value["vllmVersion"], `${at}.vllmVersion`),
    pluginVersion: text128(value["pluginVersion"], `${at}.pluginVersion`),
    model: words(value["model"], `${at}.model`, 2048),
    gpuName: words(value["gpuName"], `${at}.gpuName`, GPU_NAMES_CHARS_MAX),
    tensorParallel: whole(value["tensorParallel"], `${at}.tensorParallel`, 1, 4096),
    pipelineParallel: whole(value["pipelineParallel"], `${at}.pipelineParallel`, 1, 4096),
    cudagraphMode: text128(value["cudagraphMode"], `${at}.cudagraphMode`),
    captureSizes: Object.fromEntries(
      sizes.map(([kind, entry]) => {
        const place = `${at}.captureSizes[${JSON.stringify(kind)}]`;
        const rows = list(entry, place, GRAPHS_MAX);
        return [kind, rows.map((size, index) => tokensOf(size, `${place}[${index}]`))];
      }),
    ),
  };
}

function checkLoad(load: Fields): PriorLoad {
  return {
    seconds: amount(load["seconds"], "$.load.seconds"),
    workSeconds: amount(load["workSeconds"], "$.load.workSeconds"),
  };
}

function checkTraffic(entry: unknown, index: number): PlanTraffic {
  const at = `$.traffic[${index}]`;
  const row = object(entry, at);
  return {
    tokens: tokensOf(row["tokens"], `${at}.tokens`),
    uniform: whole(row["uniform"], `${at}.uniform`, 0, TOKENS_MAX),
    ...checkCase(row, at),
    requestSteps: amount(row["requestSteps"], `${at}.requestSteps`),
    steps: amount(row["steps"], `${at}.steps`),
    ungraphedSeconds: amount(row["ungraphedSeconds"], `${at}.ungraphedSeconds`),
    ungraphedTimed: amount(row["ungraphedTimed"], `${at}.ungraphedTimed`),
  };
}

function checkGraph(entry: unknown, index: number): PlanGraph {
  const at = `$.graphs[${index}]`;
  const row = object(entry, at);
  const kind = row["kind"];
  if (kind !== "FULL" && kind !== "PIECEWISE") {
    throw new PlanFault(`${at}.kind to be FULL or PIECEWISE`, shownWhole(kind));
  }
  const { captureMs, bytes, uniform } = row;
  return {
    id: text128(row["id"], `${at}.id`),
    kind,
    tokens: tokensOf(row["tokens"], `${at}.tokens`),
    ...(uniform === undefined ? {} : { uniform: tokensOf(uniform, `${at}.uniform`) }),
    ...checkCase(row, at),
    replays: amount(row["replays"], `${at}.replays`),
    regret: amount(row["regret"], `${at}.regret`),
    stepSeconds: amount(row["stepSeconds"], `${at}.stepSeconds`),
    timed: amount(row["timed"], `${at}.timed`),
    ...(captureMs === undefined
      ? {}
      : { captureMs: amount(captureMs, `${at}.captureMs`, CAPTURE_MS_MAX) }),
    ...(bytes === undefined ? {} : { bytes: amount(bytes, `${at}.bytes`) }),
  };
}

function checkCase(row: Fields, at: string): StepCase {
  const { loras, queryLength, microbatches } = row;
  return caseOf({
    ...(loras === undefined ? {} : { loras: whole(loras, `${at}.loras`, 0, TOKENS_MAX) }),
    ...(queryLength === undefined
      ? {}
      : { queryLength: tokensOf(queryLength, `${at}.queryLength`) }),
    ...(microbatches === undefined
      ? {}
      : { microbatches: tokensOf(microbatches, `${at}.microbatches`) }),
  });
}

function object(value: unknown, at: string): Fields {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Fields;
  throw new PlanFault(`${at} to be an object`, shownWhole(value));
}

function list(value: unknown, at: string, lengthMax: number): readonly unknown[] {
  if (Array.isArray(value) && value.length <= lengthMax) return value;
  throw new PlanFault(`${at} to be a list of at most ${lengthMax} entries`, shownWhole(value));
}

function words(value: unknown, at: string, charsMax: number): string {
  const sound = typeof value === "string" && value !== "" && value.length <= charsMax;
  if (sound && !/\p{Cc}/u.test(value)) return value;
  throw new PlanFault(`${at} to be a text of 1 to ${charsMax} characters`, shownWhole(value));
}

function text128(value: unknown, at: string): string {
  return words(value, at, 128);
}

function date(value: unknown, at: string): string {
  const text = typeof value === "string" ? value : "";
  if (
    /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,3})?Z$/.test(text) &&
    !Number.isNaN(Date.parse(text))
  ) {
    return text;
  }
  throw new PlanFault(`${at} to be a time such as 2026-11-21T12:00:00Z`, shownWhole(value));
}

function amount(value: unknown, at: string, max: number = AMOUNT_MAX): number {
  if (typeof value === "number" && value >= 0 && value <= max) return value;
  const range = max === AMOUNT_MAX ? "from 0 up" : `from 0 to ${max}`;
  throw new PlanFault(`${at} to be a number ${range}`, shownWhole(value));
}

function whole(value: unknown, at: string, min: number, max: number): number {
  if (Number.isInteger(value) && (value as number) >= min && (value as number) <= max) {
    return value as number;
  }
  throw new PlanFault(`${at} to be a whole number from ${min} to ${max}`, shownWhole(value));
}

function tokensOf(value: unknown, at: string): number {
  return whole(value, at, 1, TOKENS_MAX);
}
