/**
 * One list for engines that plan the same graphs: what is worked out from a plan once holds for all
 * of them. Graphs don't change, so that nobody can tell a shared list from one of his own.
 */

import type { Graph } from "../base/graph.ts";

/** Different plans remembered; most fleets have one or two. */
const PLANS_MAX = 16;

/** By their content, the one asked for longest ago first. Lists that nobody has go. */
const plans = new Map<string, WeakRef<readonly Graph[]>>();

/** The list that others with these graphs have, else this one. */
export function sharedPlan(graphs: readonly Graph[]): readonly Graph[] {
  const key = JSON.stringify(graphs);
  const known = plans.get(key)?.deref();
  const plan = known ?? graphs;
  plans.delete(key);
  plans.set(key, new WeakRef(plan));
  if (plans.size > PLANS_MAX) {
    const [oldest] = plans.keys();
    if (oldest !== undefined) plans.delete(oldest);
  }
  return plan;
}
