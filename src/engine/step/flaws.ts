/** What is wrong with a decision: a policy may be the user's, in JavaScript too. Pure. */

import type { Decision } from "../../schedule/policy.ts";

/** As the end of a sentence about the policy; undefined: nothing. */
export function flawOf(decision: Decision): string | undefined {
  if (typeof decision !== "object" || decision === null) return `a decision is ${String(decision)}`;
  switch (decision.type) {
    case "start": {
      const { graphs, more = [], budgetMs = Number.POSITIVE_INFINITY } = decision;
      if (!isGraphs(graphs)) return "start has no list of graphs";
      if (!isGraphs(more)) return "start has no list of graphs as more";
      return budgetMs >= 0 ? undefined : `start has a budget of ${budgetMs} ms`;
    }
    case "capture":
      return isGraph(decision.graph) ? undefined : "capture has no graph";
    case "wait":
      if (Number.isFinite(decision.seconds)) return undefined;
      return `wait has ${decision.seconds} seconds`;
    case "dispatch":
      return typeof decision.table === "object" ? undefined : "dispatch has no table";
    case "settled":
      return undefined;
  }
}

function isGraphs(value: unknown): boolean {
  return Array.isArray(value) && value.every(isGraph);
}

function isGraph(value: unknown): boolean {
  const { id } = Object(value) as { readonly id?: unknown };
  return typeof id === "string";
}
