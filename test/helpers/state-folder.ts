/** Global set-up: no test reads or writes the learned plans of whoever runs it. */

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { REMOVED } from "./removal.ts";

export async function setup() {
  const folder = await mkdtemp(join(tmpdir(), "lazygraph-state-"));
  // Test processes inherit both.
  process.env["XDG_STATE_HOME"] = folder;
  delete process.env["LAZYGRAPH_PLAN_DIR"];
  return () => rm(folder, REMOVED);
}
