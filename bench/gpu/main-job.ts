/**
 * Runs and sums up the cells of `main-job.sh`.
 *
 * Hypothesis: lazy and idle mode capture in at most 1/30 of stock's time before ready, at least 80%
 * of stock's capture seconds are really saved between spawn and first token, and decode with all
 * graphs is within 2% of stock's. Refuted if the printed intervals say otherwise.
 */

import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { type Cell, type CellResult, type Mode, runCell } from "./main-job-cell.ts";
import { printSummary, summarise } from "./main-job-summary.ts";

const out = process.argv[2];
if (out === undefined) {
  console.error("usage: main-job.ts OUT_DIR (start it by main-job.sh)");
  process.exit(2);
}
const modes = (process.env["MODES"] ?? "stock eager lazy idle").split(/\s+/) as Mode[];
const gpus = (process.env["GPUS"] ?? "0").split(",").map(Number);
const rounds = Number(process.env["ROUNDS"] ?? 5);

/** Rounds of all modes; each round starts where the last one didn't, on another GPU. */
function plan(): Cell[][] {
  const batches: Cell[][] = [];
  for (let round = 0; round < rounds; round += 1) {
    const order = modes.map((_, i) => modes[(i + round) % modes.length] as Mode);
    for (let at = 0; at < order.length; at += gpus.length) {
      batches.push(
        order
          .slice(at, at + gpus.length)
          .map((mode, i) => ({ round, mode, gpu: gpus[i] as number })),
      );
    }
  }
  return batches;
}

function cellFile(cell: Cell): string {
  return join(out as string, "cells", `${cell.round}-${cell.mode}.json`);
}

/** The first start on a host fills the compile caches; it is not counted. */
async function warmUp(): Promise<void> {
  const file = join(out as string, "cells", "warm-up.json");
  if (existsSync(file) || process.env["WARM_UP"] === "0") return;
  console.error("warm-up start (fills the compile caches, not counted)");
  const cell: Cell = { round: -1, mode: "stock", gpu: gpus[0] as number };
  writeFileSync(file, JSON.stringify(await runCell(cell, out as string)));
}

async function main(): Promise<void> {
  await warmUp();
  for (const batch of plan()) {
    const left = batch.filter((cell) => !existsSync(cellFile(cell)));
    const ends = await Promise.allSettled(
      left.map(async (cell) => {
        const result = await runCell(cell, out as string);
        writeFileSync(cellFile(cell), JSON.stringify(result));
        console.error(
          `round ${cell.round} ${cell.mode} on GPU ${cell.gpu}: ` +
            `ready ${result.spawnToReadySeconds.toFixed(1)} s, ` +
            `capture before ready ${result.captureBeforeReadySeconds.toFixed(3)} s`,
        );
      }),
    );
    // Only now: a cell that fails must not leave its neighbours' servers behind.
    for (const end of ends) if (end.status === "rejected") throw end.reason;
  }
  const results: CellResult[] = [];
  for (const cell of plan().flat()) {
    results.push(JSON.parse(readFileSync(cellFile(cell), "utf8")) as CellResult);
  }
  const summary = summarise(results, { host: hostname(), gpusAtOnce: gpus.length });
  const file = join(out as string, "main-job.json");
  writeFileSync(file, `${JSON.stringify({ ...summary, cells: results }, null, 1)}\n`);
  printSummary(summary);
  console.error(`raw results: ${file}`);
}

await main();
