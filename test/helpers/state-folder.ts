/**
 * Global set-up: controllers keep learned plans in the user's state folder unless told otherwise,
 * and no test may read or write that of whoever runs it.
 */

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { REMOVED } from "./removal.ts";

export async function setup(): Promise<() => Promise<void>> {
  const folder = await mkdtemp(join(tmpdir(), "lazygraph-state-"));
  // Test processes start later and inherit both.
  process.env["XDG_STATE_HOME"] = folder;
  delete process.env["LAZYGRAPH_PLAN_DIR"];
  return () => rm(folder, REMOVED);
}
