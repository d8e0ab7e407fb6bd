/** Where plans lie unless somebody says otherwise. */

import { homedir } from "node:os";
import { isAbsolute, join } from "node:path";
import { LazygraphError } from "../base/errors.ts";

/**
 * `LAZYGRAPH_PLAN_DIR`, else `$XDG_STATE_HOME/lazygraph/plans`, else
 * `~/.local/state/lazygraph/plans`. By the XDG rules a relative path there is ignored.
 *
 * @throws LazygraphError ERR_LAZYGRAPH_PLAN where nothing names a folder: a container may run as a
 *   user that the system doesn't know, without HOME
 */
export function defaultPlanFolder(environment: NodeJS.ProcessEnv): string {
  const own = environment["LAZYGRAPH_PLAN_DIR"];
  if (own !== undefined && own !== "") return own;
  const state = environment["XDG_STATE_HOME"];
  const base = state !== undefined && isAbsolute(state) ? state : join(home(), ".local", "state");
  return join(base, "lazygraph", "plans");
}

function home(): string {
  let folder = "";
  try {
    folder = homedir();
  } catch {
    // Neither HOME nor an entry for this user.
  }
  // Relative to whatever the working folder is, plans would lie anywhere.
  if (isAbsolute(folder)) return folder;
  throw new LazygraphError(
    "ERR_LAZYGRAPH_PLAN",
    "Expected a home folder for learned plans, got none for this user: set LAZYGRAPH_PLAN_DIR, " +
      "name a folder, or turn plans off.",
  );
}
