/**
 * The order proposed for vLLM (vllm-project/vllm, pull request 23184): tops at start, then one
 * graph in each step, its ideal one if that is missing, else the next largest; exact or ungraphed.
 * The captures happen inside real steps, which an engine of ours never does: the simulator brings
 * them about by `captureInStep`, and the policy only follows with its table.
 */

import {
  bySizeDescending,
  type Graph,
  idealGraph,
  type StepShape,
  topGraphs,
} from "../../../base/graph.ts";
import { createModePolicy } from "../../../schedule/modes/base.ts";
import type { Policy } from "../../../schedule/policy.ts";
import { exactTable } from "./exact.ts";

export function createPr23184Policy(): Policy {
  return createModePolicy({
    name: "pr23184",
    endsAtReady: false,
    first: (planned) => ({ graphs: topGraphs(planned), reason: "the top graph of each kind" }),
    next: () => undefined,
    table: exactTable,
  });
}

/** What this step captures on its way. */
export function pr23184Capture(
  planned: readonly Graph[],
  step: StepShape,
  captured: (graph: Graph) => boolean,
): Graph | undefined {
  const ideal = idealGraph(planned, step);
  if (ideal !== undefined && !captured(ideal)) return ideal;
  return planned.filter((graph) => !captured(graph)).sort(bySizeDescending)[0];
}
