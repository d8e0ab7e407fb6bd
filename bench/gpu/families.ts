/**
 * Runs and sums up the cells of `families.sh`.
 *
 * Hypothesis: on every family all capture before ready, the throw-away one included, is at most
 * 1/30 of stock's in lazy and idle mode, and every graph is bit for bit an ungraphed run. Refuted
 * if the claims that `npm run claims` makes of it say otherwise.
 */

import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { join, resolve } from "node:path";
import { rounded } from "../lib/result-file.ts";
import { runFamilyCell } from "./family-cell.ts";
import { LEVELS } from "./lib/decode.ts";
import {
  cellName,
  cellsOf,
  expectedSeconds,
  type Family,
  type FamilyCell,
  lanesOf,
  parseFamilies,
} from "./lib/family-plan.ts";
import { type CellResult, isParity, isStart, summaryOf } from "./lib/family-result.ts";

const here = new URL(".", import.meta.url).pathname;
const [out] = process.argv.slice(2);
if (out === undefined) {
  console.error("usage: families.ts OUT_DIR (start it by families.sh)");
  process.exit(2);
}
const env = process.env;
const folder = resolve(out, "cells");
const words = (text: string): string[] => text.split(/\s+/).filter((word) => word !== "");
const python = env["PYTHON"] ?? "python3";
const launcher = env["LAUNCHER"];
const spawned = words(env["VLLM_SERVE"] ?? `${python} -m vllm.entrypoints.cli.main serve`);
const client = resolve(here, "../../worker/src/lazygraph_vllm/launcher/client.py");
// A start that is measured as forked must never be spawned instead.
const serve =
  launcher === undefined
    ? spawned
    : [python, "-I", client, resolve(launcher), "--no-spawn", "--", ...spawned];
const lazygraph =
  env["LAZYGRAPH"] === undefined
    ? [process.execPath, resolve(here, "../../dist/cli/main.js")]
    : words(env["LAZYGRAPH"]);
const secondsMax = Number(env["SECONDS_MAX"] ?? Number.POSITIVE_INFINITY);
const startedMs = performance.now();
const FAILURES_MAX = 2;
const stopping = new AbortController();
for (const signal of ["SIGTERM", "SIGINT"] as const) {
  process.once(signal, () => stopping.abort(new Error(`stopped by ${signal}`)));
}

function chosenFamilies(): Family[] {
  const file = env["SPEC"] ?? join(here, "families.json");
  const all = parseFamilies(JSON.parse(readFileSync(file, "utf8")));
  const names = env["FAMILIES"]?.split(",");
  const unknown = names?.find((name) => !all.some((family) => family.name === name));
  if (unknown !== undefined) {
    const known = all.map(({ name }) => name).join(", ");
    throw new Error(`Expected FAMILIES to be of ${known}, got ${unknown}.`);
  }
  return all.filter(({ name }) => names === undefined || names.includes(name));
}

function resultFile(cell: FamilyCell): string {
  return join(folder, `${cellName(cell)}.json`);
}

function failureFile(cell: FamilyCell): string {
  return join(folder, `${cellName(cell)}.failed`);
}

/** Cells that are neither done nor failed. */
function openCells(family: Family): FamilyCell[] {
  const parts = env["CELLS"]?.split(",");
  return cellsOf(family).filter((cell) => {
    const chosen = parts?.some((part) => `${cellName(cell)}.`.includes(part)) ?? true;
    return chosen && !existsSync(resultFile(cell)) && !existsSync(failureFile(cell));
  });
}

function readResults(): CellResult[] {
  const files = readdirSync(folder).filter((file) => file.endsWith(".json"));
  return files
    .filter((file) => !file.endsWith(".tokens.json"))
    .sort()
    .map((file) => JSON.parse(readFileSync(join(folder, file), "utf8")) as CellResult);
}

/** From spawn to ready, of this family's cells so far. */
function measuredStarts(family: string): number[] {
  return readResults().flatMap((result) => {
    if (result.family !== family || result.round < 0) return [];
    if (isStart(result)) return [result.spawnToReadySeconds];
    return isParity(result) ? [result.readySeconds] : [];
  });
}

function modelFolder(family: Family): string {
  if (family.shape.includes("/")) return family.shape;
  const model = join(env["MODELS"] ?? join(resolve(out as string), "models"), family.shape);
  if (!existsSync(join(model, "tokenizer.json"))) {
    execFileSync(python, [join(here, "random_model.py"), family.shape, model]);
  }
  return model;
}

/** Whole and at once, so that who stops us finds no half a file. */
function writeWhole(file: string, text: string): void {
  writeFileSync(`${file}.part`, text);
  renameSync(`${file}.part`, file);
}

function secondsLeft(): number {
  return secondsMax - (performance.now() - startedMs) / 1000;
}

/** Seconds after spawn at which our idle mode was ready in the parity cell of the same round. */
function oursReady(cell: FamilyCell): number | undefined {
  const file = resultFile({ ...cell, arm: "idle" });
  if (cell.kind !== "parity" || cell.arm !== "stock" || !existsSync(file)) return undefined;
  return (JSON.parse(readFileSync(file, "utf8")) as { readySeconds: number }).readySeconds;
}

async function runCell(
  family: Family,
  cell: FamilyCell,
  gpus: readonly number[],
  pin: readonly string[],
): Promise<void> {
  const name = cellName(cell);
  const ready = oursReady(cell);
  const began = performance.now();
  try {
    const result = await runFamilyCell({
      ...{ family, cell, gpus, pin, serve, lazygraph, python, folder },
      model: modelFolder(family),
      ...(env["CACHES"] === undefined ? {} : { caches: resolve(env["CACHES"]) }),
      via: launcher === undefined ? "spawn" : "launcher",
      repetitions: Number(env["REPETITIONS"] ?? 3),
      levels: env["LEVELS"]?.split(",").map(Number) ?? LEVELS,
      ...(ready === undefined ? {} : { oursReadySeconds: ready }),
      readySecondsMax: Math.min(Number(env["READY_WITHIN"] ?? 420), secondsLeft()),
      signal: stopping.signal,
    });
    const cold =
      isStart(result) &&
      cell.round >= 0 &&
      !readResults().some((earlier) => earlier.family === family.name);
    writeWhole(resultFile(cell), JSON.stringify(cold ? { ...result, cold } : result));
    console.error(`${name} on GPU ${gpus.join(",")}: ${secondsText(began)}${brief(result)}`);
  } catch (error) {
    // One cut off by our own end, or by its time, has not failed: it is run again.
    if (!stopping.signal.aborted && secondsLeft() > 0) writeWhole(failureFile(cell), `${error}\n`);
    console.error(`${name} on GPU ${gpus.join(",")}: ${secondsText(began)}, FAILED: ${error}`);
  }
}

function secondsText(beganMs: number): string {
  return `${((performance.now() - beganMs) / 1000).toFixed(1)} s`;
}

function brief(result: CellResult): string {
  if (isParity(result)) return `, ready ${result.readySeconds.toFixed(1)} s`;
  if (!isStart(result)) return "";
  const { timing, spawnToReadySeconds } = result;
  return (
    `, ready ${spawnToReadySeconds.toFixed(1)} s, captures ${timing.profileSeconds.toFixed(2)} + ` +
    `${timing.captureModelSeconds.toFixed(2)} s`
  );
}

function failures(family: Family): number {
  return cellsOf(family).filter((cell) => existsSync(failureFile(cell))).length;
}

async function runFamily(
  family: Family,
  gpus: readonly number[],
  pin: readonly string[],
): Promise<void> {
  for (const cell of openCells(family)) {
    if (stopping.signal.aborted || failures(family) >= FAILURES_MAX) return;
    if (expectedSeconds(cell, family, measuredStarts(family.name)) > secondsLeft()) {
      console.error(`${cellName(cell)}: left, ${secondsLeft().toFixed(0)} s are too few.`);
      continue;
    }
    await runCell(family, cell, gpus, pin);
  }
}

/** Words before a command of the i-th lane that give it its share of the cores, forked servers too. */
function pinLane(index: number, lanes: number): string[] {
  if (env["PIN"] === "0" || lanes < 2) return [];
  const each = Math.floor(cpus().length / lanes);
  return each < 1 ? [] : ["taskset", "-c", `${index * each}-${(index + 1) * each - 1}`];
}

async function main(): Promise<void> {
  const families = chosenFamilies();
  if (env["LIST"] !== undefined) {
    list(families);
    return;
  }
  if (env["REPORT"] === undefined) await run(families);
  report();
}

async function run(families: readonly Family[]): Promise<void> {
  const gpus = (env["GPUS"] ?? "0").split(",").map(Number);
  const { single, spread } = lanesOf(families, gpus);
  const queue = [...single];
  const lane = async (gpu: number, index: number): Promise<void> => {
    const pin = pinLane(index, gpus.length);
    for (let family = queue.shift(); family !== undefined; family = queue.shift()) {
      await runFamily(family, [gpu], pin);
    }
  };
  await Promise.all(gpus.map(lane));
  for (const family of spread) await runFamily(family, gpus.slice(0, family.gpus), []);
}

function list(families: readonly Family[]): void {
  for (const family of families) {
    for (const cell of openCells(family)) {
      const seconds = expectedSeconds(cell, family, measuredStarts(family.name));
      console.log(`${cellName(cell)}\t${seconds.toFixed(0)} s`);
    }
  }
}

function report(): void {
  const cells = readResults().filter(({ round }) => round >= 0);
  const failed = readdirSync(folder)
    .filter((file) => file.endsWith(".failed"))
    .map((file) => {
      const reason = readFileSync(join(folder, file), "utf8").trim();
      return { cell: file.slice(0, -".failed".length), reason };
    });
  const file = join(out as string, "families.json");
  const summaries = cells.map((cell) => summaryOf(cell, cells));
  writeWhole(file, `${JSON.stringify({ what: "families", cells: summaries, failed }, rounded)}\n`);
  console.error(`results: ${file} (${cells.length} cells, ${failed.length} failed)`);
}

await main();
