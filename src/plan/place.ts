/** Where plans lie unless somebody says otherwise. */

import { homedir } from "node:os";
import { isAbsolute, join } from "node:path";

/**
 * `LAZYGRAPH_PLAN_DIR`, else `$XDG_STATE_HOME/lazygraph/plans`, else
 * `~/.local/state/lazygraph/plans`. By the XDG rules a relative path there is ignored.
 */
export function defaultPlanFolder(environment: NodeJS.ProcessEnv): string {
  const own = environment["LAZYGRAPH_PLAN_DIR"];
  if (own !== undefined && own !== "") return own;
  const state = environment["XDG_STATE_HOME"];
  const base =
    state !== undefined && isAbsolute(state) ? state : join(homedir(), ".local", "state");
  return join(base, "lazygraph", "plans");
}
