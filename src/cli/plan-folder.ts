/** Whether the folder of learned plans can be used: told at the start, and no reason not to. */

import { access, constants, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { systemClock, withinSeconds } from "../base/clock.ts";
import { codeOf, messageOf } from "../base/errors.ts";
import type { ControllerOptions } from "../controller/options.ts";
import { defaultPlanFolder } from "../plan/place.ts";
import { note } from "./errors.ts";

/** A disk that doesn't answer must not keep engines waiting. */
const SECONDS_MAX = 2;

type Planning = Pick<ControllerOptions, "plan" | "planFolder" | "planReadOnly">;

/**
 * One line on stderr where it can't, and whether there was one. Without it one would be told only
 * when an engine joins, or has settled.
 */
export async function notePlanFolder(
  { plan, planFolder, planReadOnly = false }: Planning,
  environment: NodeJS.ProcessEnv,
  tell: typeof note = note,
): Promise<boolean> {
  if (plan === false) return false;
  let told = false;
  const say = (sentence: string): void => {
    told = true;
    tell(sentence, "ERR_LAZYGRAPH_PLAN");
  };
  const look = async (): Promise<void> => {
    const folder = planFolder ?? defaultPlanFolder(environment);
    const obstacle = await obstacleOf(folder, planReadOnly);
    if (obstacle === undefined) return;
    const lost = planReadOnly ? "" : ", and what they learn may be lost";
    say(
      `Expected a folder for learned plans that can be used, got ${obstacle} for ${folder}: ` +
        `engines may start as if nothing had been learned${lost}; give another --plan-dir, or ` +
        "--no-plan.",
    );
  };
  await withinSeconds(
    systemClock,
    SECONDS_MAX,
    look().catch((error: unknown) => say(messageOf(error))),
  );
  return told;
}

/** A folder that isn't there yet is made where it may be written, so the next one up counts. */
async function obstacleOf(folder: string, readOnly: boolean): Promise<string | undefined> {
  try {
    const about = await stat(folder);
    if (!about.isDirectory()) return "ENOTDIR";
    const { R_OK, W_OK, X_OK } = constants;
    await access(folder, readOnly ? R_OK | X_OK : R_OK | W_OK | X_OK);
    return undefined;
  } catch (error) {
    const code = codeOf(error) ?? String(error);
    const parent = dirname(folder);
    if (code !== "ENOENT" || readOnly || parent === folder) return code;
    return obstacleOf(parent, false);
  }
}
