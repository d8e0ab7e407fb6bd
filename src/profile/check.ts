/** What a sound profile looks like: every size there, every cost a number from 0 up. */

import type { Graph } from "../base/graph.ts";
import { shownWhole } from "../base/shown.ts";
import type { CaptureCost, CostRow, Profile, StepCosts } from "./profile.ts";

/** Makes the error for one field; the caller adds the file. */
type Fail = (field: string, expected: string, got: string) => Error;
type Fields = Readonly<Record<string, unknown>>;

const GRAPHS_MAX = 4096;
const ROWS_MAX = 4096;
/** Tables are held token by token. */
const TOKENS_MAX = 1_048_576;
/** A day, for any one thing: with times without end a simulation would have none either. */
const SECONDS_MAX = 86_400;
const MS_MAX = SECONDS_MAX * 1000;
/** Bytes: far beyond any GPU's. */
const NUMBER_MAX = 1e15;

export function checkProfile(value: unknown, fail: Fail): Profile {
  const check = new Checker(fail);
  const root = check.object(value, "the profile");
  if (root["schema"] !== 1) throw fail("schema", "1", shownWhole(root["schema"]));
  const origin = check.object(root["provenance"], "provenance");
  const costs = captureCosts(check, check.object(root["captures"], "captures"));
  const steps = stepCosts(check, check.object(root["steps"], "steps"));
  checkSizes(steps, costs, fail);
  const profile: Profile = {
    name: check.text(root["name"], "name"),
    title: check.text(root["title"], "title"),
    measuredOn: check.text(origin["measuredOn"], "provenance.measuredOn"),
    setup: check.text(origin["setup"], "provenance.setup"),
    provenance: provenance(check, origin["fields"]),
    engine: engineFields(check, check.object(root["engine"], "engine")),
    startupSeconds: check.number(root["startupSeconds"], "startupSeconds", SECONDS_MAX),
    frontEndSeconds: check.number(root["frontEndSeconds"] ?? 0, "frontEndSeconds", SECONDS_MAX),
    limits: limits(check, check.object(root["limits"], "limits")),
    memory: memory(check, check.object(root["memory"], "memory")),
    steps,
    captures: {
      withoutWarmUp: check.share(
        check.object(root["captures"], "captures")["withoutWarmUp"],
        "captures.withoutWarmUp",
      ),
      costs,
    },
  };
  return profile;
}

function provenance(check: Checker, value: unknown): Profile["provenance"] {
  const kinds = ["measured", "derived", "estimated", "assumed"];
  return Object.fromEntries(
    Object.entries(check.object(value, "provenance.fields")).map(([name, entry]) => {
      const field = `provenance.fields.${name}`;
      const origin = check.object(entry, field);
      const kind = check.text(origin["kind"], `${field}.kind`);
      if (!kinds.includes(kind))
        throw check.fail(`${field}.kind`, kinds.join(", "), shownWhole(kind));
      return [name, { kind, how: check.text(origin["how"], `${field}.how`) }];
    }),
  );
}

function engineFields(check: Checker, value: Fields): Profile["engine"] {
  return {
    model: check.text(value["model"], "engine.model"),
    vllmVersion: check.text(value["vllmVersion"], "engine.vllmVersion"),
    gpuName: check.text(value["gpuName"], "engine.gpuName"),
    cudagraphMode: check.text(value["cudagraphMode"], "engine.cudagraphMode"),
    layers: check.count(value["layers"], "engine.layers"),
    tensorParallel: check.count(value["tensorParallel"], "engine.tensorParallel"),
    pipelineParallel: check.count(value["pipelineParallel"], "engine.pipelineParallel"),
  };
}

function limits(check: Checker, value: Fields): Profile["limits"] {
  return {
    maxRequests: check.count(value["maxRequests"], "limits.maxRequests"),
    maxBatchedTokens: check.count(value["maxBatchedTokens"], "limits.maxBatchedTokens"),
    kvCacheTokens: check.count(value["kvCacheTokens"], "limits.kvCacheTokens"),
    kvBlockTokens: check.count(value["kvBlockTokens"], "limits.kvBlockTokens"),
    stepsAhead: stepsAhead(check, value["stepsAhead"]),
  };
}

/** Absent in files of before it was known. */
function stepsAhead(check: Checker, value: unknown = 0): number {
  if (value === 0 || value === 1) return value;
  throw check.fail("limits.stepsAhead", "0 or 1", shownWhole(value));
}

function memory(check: Checker, value: Fields): Profile["memory"] {
  const totalBytes = check.number(value["totalBytes"], "memory.totalBytes");
  const freeBytes = check.number(value["freeBytes"], "memory.freeBytes");
  if (freeBytes > totalBytes) {
    throw check.fail(
      "memory.freeBytes",
      `at most memory.totalBytes, ${totalBytes}`,
      `${freeBytes}`,
    );
  }
  return {
    totalBytes,
    freeBytes,
    reservedBytes: check.number(value["reservedBytes"], "memory.reservedBytes"),
    activationPeakBytes: check.number(value["activationPeakBytes"], "memory.activationPeakBytes"),
  };
}

function stepCosts(check: Checker, value: Fields): StepCosts {
  const seconds = (name: string): number => check.number(value[name], `steps.${name}`, SECONDS_MAX);
  return {
    full: costRows(check, value["full"], "steps.full"),
    piecewise: costRows(check, value["piecewise"], "steps.piecewise"),
    ungraphed: costRows(check, value["ungraphed"], "steps.ungraphed"),
    secondsPerRequest: seconds("secondsPerRequest"),
    secondsPerContextToken: seconds("secondsPerContextToken"),
    secondsPerTokenBeyond: seconds("secondsPerTokenBeyond"),
    secondsPerPromptPair: seconds("secondsPerPromptPair"),
  };
}

function costRows(check: Checker, value: unknown, field: string): CostRow[] {
  let last = 0;
  return check.list(value, field, ROWS_MAX).map((entry, index) => {
    const at = `${field}[${index}]`;
    const row = check.list(entry, at, 2);
    const tokens = check.tokens(row[0], `${at}[0]`);
    const seconds = check.number(row[1], `${at}[1]`, SECONDS_MAX);
    if (tokens <= last) throw check.fail(`${at}[0]`, `tokens above ${last}`, shownWhole(tokens));
    if (seconds === 0) throw check.fail(`${at}[1]`, "seconds above 0", "0");
    last = tokens;
    return [tokens, seconds];
  });
}

function captureCosts(check: Checker, value: Fields): CaptureCost[] {
  const columns = ["kind", "tokens", "warmMs", "captureMs", "laterMs", "bytes"];
  if (JSON.stringify(value["columns"]) !== JSON.stringify(columns)) {
    throw check.fail("captures.columns", JSON.stringify(columns), shownWhole(value["columns"]));
  }
  const seen = new Set<string>();
  return check.list(value["rows"], "captures.rows", GRAPHS_MAX).map((entry, index) => {
    const at = `captures.rows[${index}]`;
    const row = check.list(entry, at, columns.length);
    const kind = row[0];
    if (kind !== "FULL" && kind !== "PIECEWISE") {
      throw check.fail(`${at}[0]`, "FULL or PIECEWISE", shownWhole(kind));
    }
    const tokens = check.tokens(row[1], `${at}[1]`);
    const id = `${kind}:${tokens}`;
    if (seen.has(id)) throw check.fail(at, "one row for each graph", `${id} again`);
    seen.add(id);
    const graph: Graph =
      kind === "FULL" ? { id, kind, tokens, requests: tokens, uniform: 1 } : { id, kind, tokens };
    return {
      graph,
      warmMs: check.number(row[2], `${at}[2]`, MS_MAX),
      captureMs: check.number(row[3], `${at}[3]`, MS_MAX),
      laterMs: check.number(row[4], `${at}[4]`, MS_MAX),
      bytes: check.number(row[5], `${at}[5]`),
    };
  });
}

/** A table that ends below the largest graph would make the cost of that graph a guess. */
function checkSizes(steps: StepCosts, costs: readonly CaptureCost[], fail: Fail): void {
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

class Checker {
  readonly fail: Fail;

  constructor(fail: Fail) {
    this.fail = fail;
  }

  object(value: unknown, field: string): Fields {
    if (typeof value === "object" && value !== null && !Array.isArray(value)) {
      return value as Fields;
    }
    throw this.fail(field, "an object", shownWhole(value));
  }

  list(value: unknown, field: string, lengthMax: number): readonly unknown[] {
    if (Array.isArray(value) && value.length > 0 && value.length <= lengthMax) return value;
    throw this.fail(field, `a list of 1 to ${lengthMax} entries`, shownWhole(value));
  }

  text(value: unknown, field: string): string {
    if (typeof value === "string" && value !== "" && value.length <= 2048) return value;
    throw this.fail(field, "a text of 1 to 2048 characters", shownWhole(value));
  }

  number(value: unknown, field: string, max: number = NUMBER_MAX): number {
    if (typeof value === "number" && value >= 0 && value <= max) return value;
    const expected = (value as number) > max ? `a number from 0 to ${max}` : "a number from 0 up";
    throw this.fail(field, expected, shownWhole(value));
  }

  share(value: unknown, field: string): number {
    if (typeof value === "number" && value >= 0 && value <= 1) return value;
    throw this.fail(field, "a number from 0 to 1", shownWhole(value));
  }

  tokens(value: unknown, field: string): number {
    if (Number.isInteger(value) && (value as number) >= 1 && (value as number) <= TOKENS_MAX) {
      return value as number;
    }
    throw this.fail(field, `a whole number from 1 to ${TOKENS_MAX}`, shownWhole(value));
  }

  count(value: unknown, field: string): number {
    if (Number.isInteger(value) && (value as number) >= 1) return value as number;
    throw this.fail(field, "a whole number from 1 up", shownWhole(value));
  }
}
