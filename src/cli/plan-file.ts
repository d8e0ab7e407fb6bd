/** Plan files of commands: errors are sentences that name the file. */

import { stat } from "node:fs/promises";
import { basename, dirname } from "node:path";
import { LazygraphError } from "../base/errors.ts";
import { unreadable } from "../base/read-file.ts";
import { PlanFault } from "../plan/check.ts";
import { readPlan, writePlan } from "../plan/files.ts";
import type { Plan } from "../plan/plan.ts";
import { notWritten } from "./report.ts";

/** @throws LazygraphError ERR_LAZYGRAPH_PLAN with file and place */
export async function loadPlan(file: string): Promise<Plan> {
  try {
    return await readPlan(file);
  } catch (error) {
    const newer = ", of a newer version of this package: read it with that";
    const why =
      error instanceof PlanFault
        ? `${error.message}${error.newer ? newer : ""}`
        : `expected a file that can be read, got ${unreadable(error)}`;
    throw new LazygraphError("ERR_LAZYGRAPH_PLAN", `Plan ${file}: ${why}.`, { cause: error });
  }
}

/**
 * @param file what `requireWritable` said: a mistyped folder is not made
 * @throws LazygraphError `ERR_LAZYGRAPH_FILE` when it can't be written
 */
export async function savePlan(file: string, plan: Plan, option: string): Promise<void> {
  try {
    await writePlan(dirname(file), basename(file), plan);
  } catch (error) {
    throw notWritten(file, option, error);
  }
}

export async function isFolder(path: string): Promise<boolean> {
  return stat(path).then(
    (about) => about.isDirectory(),
    () => false,
  );
}
